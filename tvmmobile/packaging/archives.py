"""Parts common to all packages of libraries."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

from tvmmobile.running.library import Library
from tvmmobile.running.manifest import Manifest

#: The earliest time that zip files know: the same library always gives the same package.
_OLDEST_TIME = (1980, 1, 1, 0, 0, 0)
#: Before the name of an entry in a zip file.
_HEADER_BYTES = 30
#: Identifier in a zip file's entries of the bytes that align what follows, as Android's zipalign writes it.
_ALIGNMENT_FIELD = 0xD935


def zipped(files: Mapping[str, bytes], page_bytes: int = 0) -> bytes:
    """Return a zip file with these entries, which everybody may read; native libraries are stored as they are, from a multiple of a page
    on, if pages have a size.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, _OLDEST_TIME)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            if page_bytes and path.endswith(".so"):
                entry.compress_type = zipfile.ZIP_STORED
                entry.extra = _filling(stream.tell() + _HEADER_BYTES + len(path.encode()), page_bytes)
            archive.writestr(entry, content)
    return stream.getvalue()


def _filling(place: int, page_bytes: int) -> bytes:
    """Return a zip field that begins at `place` and ends with a page."""
    head = 6
    zeros = -(place + head) % page_bytes
    return struct.pack("<HHH", _ALIGNMENT_FIELD, 2 + zeros, page_bytes) + bytes(zeros)


def title_of(library: Library) -> str:
    """Return a library's description for people, such as `mobilenet_v1_0.25_128 in float32 on 2 threads`."""
    return f"{library.spec.variant} in {library.dtype} on {library.threads} thread{'s' * (library.threads > 1)}"


def fastest_sentence(facts: Manifest) -> str:
    """Return a sentence on the number of threads that is fastest on each core; "" for one thread, or where the manifest does not say."""
    counts = facts.fastest_in_words()
    if facts.threads == 1 or not counts:
        return ""
    return f"It runs on up to {facts.threads} threads; fastest by the records that it was compiled from: {counts}."
