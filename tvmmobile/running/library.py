"""Compiled variants on disk: a library with its manifest and reference beside it, found and checked before anything runs."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.precision import FLOAT32
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.running.formats import VM, C
from tvmmobile.running.manifest import check_manifest, check_version, spec_of
from tvmmobile.system.errors import UserError, one_line
from tvmmobile.system.files import sha256_of

_AGAIN = "Compile the library again."
#: More than the header of an array with few dimensions needs.
_HEADER_BYTES = 4096


def stem_of(variant: str, dtype: str, threads: int) -> str:
    """A library's name without its suffix, such as `mobilenet_v1_1.0_224_float32_t1`."""
    return f"{variant}_{dtype}_t{threads}"


@dataclass(frozen=True)
class Library:
    """A compiled variant: `path` is the `.so`; its manifest and `.reference.npz` lie beside it under the same stem."""

    spec: ModelSpec
    dtype: str
    threads: int
    path: Path

    @property
    def manifest_path(self) -> Path:
        """The manifest."""
        return self.path.with_suffix(".json")

    @property
    def reference_path(self) -> Path:
        """Input, and the output for it."""
        return self.path.with_suffix(".reference.npz")

    @property
    def header_path(self) -> Path:
        """The header of a C library."""
        return self.path.with_suffix(".h")

    def manifest(self) -> dict[str, Any]:
        """The manifest's content."""
        content: dict[str, Any] = json.loads(self.manifest_path.read_text(encoding="utf-8"))
        return content

    @property
    def format(self) -> str:
        """Its format, one of `FORMS`."""
        return str(self.manifest().get("format", VM))

    @property
    def is_c(self) -> bool:
        """Whether it is a C library, not one of TVM's virtual machine."""
        return self.format == C

    @property
    def weights(self) -> str:
        """Where they came from, such as `seeded kaiming, seed 0` or `checkpoint sha256 …`."""
        return str(self.manifest()["weights"])

    def reference(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The reference input, NCHW, and the output PyTorch or another gave; runs no code. Raises `UserError` for a bad file."""
        shapes = self.spec.input_shape, self.spec.output_shape
        others = UserError(f"{self.reference_path} does not hold the arrays of {self.spec.variant}.", _AGAIN)
        try:
            if _largest(self.reference_path) > FLOAT32.numpy.itemsize * max(map(math.prod, shapes)) + _HEADER_BYTES:
                raise others  # it might fill memory when unpacked
            with np.load(self.reference_path, allow_pickle=False) as arrays:
                data, output = arrays["input"], arrays["output"]
        except UserError:
            raise
        except Exception as error:  # the readers of zip, deflate and NumPy's headers raise errors of any kind for damaged files
            raise UserError(f"{self.reference_path} cannot be read: {one_line(error)}.", _AGAIN) from error
        if any(
            not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != FLOAT32.numpy
            for array, shape in zip((data, output), shapes, strict=True)
        ):
            raise others
        return data, output


def _largest(path: Path) -> int:
    """The bytes of the largest array in an archive, unpacked and with its header."""
    with zipfile.ZipFile(path) as archive:
        return max((info.file_size for info in archive.infolist()), default=0)


def read_manifest(path: Path) -> tuple[dict[str, Any], ModelSpec]:
    """A manifest and the network it describes, checked as `check_manifest` does; raises `UserError` for anything else."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        check_version(manifest)
        spec = spec_of(manifest)
        check_manifest(manifest, spec)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} is not a manifest of tvmmobile: {problem}.", _AGAIN) from error
    return manifest, spec


def find_libraries(paths: Sequence[Path]) -> list[Library]:
    """Libraries of one thread count, a directory's by name; raises `UserError` for none, a damaged or foreign one, or a name twice."""
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.so")) if path.is_dir() else [path]
    libraries = [_described(path) for path in dict.fromkeys(files)]
    if not libraries:
        raise UserError(f"no library in {', '.join(map(str, paths))}.", "Compile some with tvmmobile compile.")
    names: dict[str, Path] = {}
    for library in libraries:
        other = names.setdefault(library.path.stem, library.path)
        if other != library.path:
            raise UserError(
                f"{other} and {library.path} have the same name.", "Time them one at a time, or rename one with its companions."
            )
    threads = {library.threads for library in libraries}
    if len(threads) > 1:
        raise UserError(f"libraries for {sorted(threads)} threads cannot share a report.", "Time them one thread count at a time.")
    return libraries


def _described(path: Path) -> Library:
    """The library at `path` as its manifest describes it."""
    for needed in (path, path.with_suffix(".json"), path.with_suffix(".reference.npz")):
        if not needed.is_file():
            raise UserError(
                f"{needed} does not exist.", "A library needs its manifest and reference beside it: tvmmobile compile writes all three."
            )
    manifest, spec = read_manifest(path.with_suffix(".json"))
    library = Library(spec, str(manifest["dtype"]), manifest["threads"], path)
    if sha256_of(path) != manifest["sha256"]:
        raise UserError(f"{path} is not the library its manifest describes.", _AGAIN)
    library.reference()
    return library
