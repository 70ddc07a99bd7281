"""What all packages of libraries have in common."""

from __future__ import annotations

from tvmmobile.running.library import Library

#: The earliest time that zip files know: the same library always gives the same package.
OLDEST_TIME = (1980, 1, 1, 0, 0, 0)


def title_of(library: Library) -> str:
    """Return a library's description for people, such as `mobilenet_v1_0.25_128 in float32 on 2 threads`."""
    return f"{library.spec.variant} in {library.dtype} on {library.threads} thread{'s' * (library.threads > 1)}"
