"""Parts common to all packages of libraries."""

from __future__ import annotations

import zipfile

from tvmmobile.running.library import Library
from tvmmobile.running.manifest import Manifest

#: The earliest time that zip files know: the same library always gives the same package.
_OLDEST_TIME = (1980, 1, 1, 0, 0, 0)


def entry_of(path: str) -> zipfile.ZipInfo:
    """Return a compressed file's entry in a zip file, which everybody may read."""
    entry = zipfile.ZipInfo(path, _OLDEST_TIME)
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def title_of(library: Library) -> str:
    """Return a library's description for people, such as `mobilenet_v1_0.25_128 in float32 on 2 threads`."""
    return f"{library.spec.variant} in {library.dtype} on {library.threads} thread{'s' * (library.threads > 1)}"


def fastest_sentence(facts: Manifest) -> str:
    """Return a sentence on the number of threads that is fastest on each core; "" for one thread, or where the manifest does not say."""
    if facts.threads == 1 or not facts.fastest_by_core:
        return ""
    counts = ", ".join(f"{count} on {core}" for core, count in facts.fastest_by_core.items())
    return f"It runs on up to {facts.threads} threads; fastest by the records that it was compiled from: {counts}."
