"""Compiles kernels to object files and caches them, because a network with other weights or images has the same kernels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import Any

import tvm
from tvm.tirx.build import codegen_build
from tvm_ffi import structural_hash

from tvmmobile.kernels.codegen import make_target, pass_context
from tvmmobile.kernels.lowering import PIPELINE
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.files import write_bytes
from tvmmobile.system.package import cached_file
from tvmmobile.system.workers import worker_count

#: Number of object files among which kernels are distributed.
_OBJECTS = 16
_FOLDER = "objects"
#: Bytes of object files in the cache beyond which the least recently used ones are removed.
MOST_BYTES = 512 << 20


def write_objects(module: Any, target: Mapping[str, Any], folder: Path) -> None:
    """Compile what `cut_parts` returned to `kernels*.o` in a folder, several at a time; each function to the same one everywhere."""
    functions = sorted(module.functions.items(), key=lambda item: str(item[0].name_hint))
    shares = [share for first in range(_OBJECTS) if (share := functions[first::_OBJECTS])]
    paths = [folder / f"kernels{number}.o" for number in range(len(shares))]
    with ThreadPoolExecutor(worker_count(len(shares))) as threads:
        list(threads.map(_write_object, shares, repeat(target), paths))
    _bound_cache()


def _write_object(functions: Sequence[tuple[Any, Any]], target: Mapping[str, Any], path: Path) -> None:
    """Write one of the files: a copy of the cached one, or a new one, which is added to the cache if that is writable."""
    cached = _cached(functions, target)
    content = _read(cached)
    if content is not None:
        path.write_bytes(content)
        return
    _compile(functions, target, path)
    with suppress(OSError):
        write_bytes(cached, path.read_bytes())


def _read(cached: Path) -> bytes | None:
    """Return the content of a cached file, and mark it as used; `None` if there is none."""
    try:
        content = cached.read_bytes()
    except OSError:
        return None
    with suppress(OSError):
        os.utime(cached)
    return content


def _cached(functions: Sequence[tuple[Any, Any]], target: Mapping[str, Any]) -> Path:
    """Return the file in the cache, named after all that the object depends on."""
    hashes = [(str(name.name_hint), structural_hash(function)) for name, function in functions]
    return cached_file(_FOLDER, (tvm.__version__, sorted(target.items(), key=str), hashes), ".o")


def _compile(functions: Sequence[tuple[Any, Any]], target: Mapping[str, Any], path: Path) -> None:
    """Compile functions, in a pass context of its own: TVM's holds for one thread."""
    with pass_context():
        _, finish, _ = tvm.tirx.get_tir_pipeline(PIPELINE)
        codegen_build(finish()(tvm.IRModule(dict(functions))), make_target(target)).write_to_file(str(path), "o")


def _bound_cache() -> None:
    """Remove the least recently used cached files beyond `MOST_BYTES`."""
    found = []
    with suppress(OSError):  # there is no cache, or another process removes files as well
        found = [(stat.st_mtime_ns, stat.st_size, entry.path) for entry in os.scandir(cache_dir() / _FOLDER) for stat in [entry.stat()]]
    size = sum(one for _, one, _ in found)
    for _, one, path in sorted(found):
        if size <= MOST_BYTES:
            break
        with suppress(OSError):
            os.unlink(path)
        size -= one
