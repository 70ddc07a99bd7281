"""Finds compiled variants on disk, each a library with manifest and reference, and checks them before anything runs."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.precision import INT8, precision_named, with_weights
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.signature import INPUT_NAME, OUTPUT_NAME, keys_of
from tvmmobile.running.formats import C
from tvmmobile.running.manifest import MOST_ROUNDING, Manifest, read_manifest
from tvmmobile.system.errors import UserError, one_line, shown
from tvmmobile.system.files import sha256_of, whole_files

Array = npt.NDArray[Any]
_AGAIN = "Compile the library again."
#: Upper bound on the header's size for an array with few dimensions.
_HEADER_BYTES = 4096


#: Tolerance of a float32 network with weights in int8, whose kernels may round what they multiply to 16 bits.
_FIXED_TOLERANCE = 1e-3


def stem_of(variant: str, dtype: str, threads: int) -> str:
    """Return a library's name without its suffix, such as `mobilenet_v1_1.0_224_float32_t1`."""
    return f"{any_threads(variant, dtype)}_t{threads}"


def any_threads(variant: str, dtype: str) -> str:
    """Return the part of a library's name that the libraries for other numbers of threads share, such as `net_1.0_224_int8`."""
    return f"{variant}_{dtype}"


def without_threads(name: str) -> str:
    """Return that part of a library's name, or of the name of its file."""
    return re.sub(r"_t\d+$", "", name.removesuffix(".so"))


class Reference(NamedTuple):
    """Inputs of a network and its outputs for them, in the network's order."""

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]


@dataclass(frozen=True)
class Library:
    """The files of a compiled variant: `path` is the `.so`; its manifest and `.reference.npz` lie beside it under the same stem."""

    spec: ModelSpec
    dtype: str
    threads: int
    path: Path

    @property
    def manifest_path(self) -> Path:
        return self.path.with_suffix(".json")

    @property
    def reference_path(self) -> Path:
        return self.path.with_suffix(".reference.npz")

    @property
    def header_path(self) -> Path:
        return self.path.with_suffix(".h")

    def manifest(self) -> dict[str, Any]:
        """Return the manifest as parsed JSON; the program itself uses `facts`."""
        content: dict[str, Any] = json.loads(self.manifest_path.read_text(encoding="utf-8"))
        return content

    @property
    def facts(self) -> Manifest:
        """The manifest. Raises `UserError` if it cannot be read."""
        return read_manifest(self.manifest_path)

    @property
    def format(self) -> str:
        """Format of the library, one of `FORMS`."""
        return self.facts.format

    @property
    def is_c(self) -> bool:
        """True for a C library, false for one of TVM's virtual machine."""
        return self.format == C

    @property
    def precision(self) -> str:
        """Precision of the library, with that of weights stored in fewer bits, such as `float32_int8weights`."""
        small = self.facts.small_weights
        return with_weights(self.dtype, small.dtype if small else None)

    @property
    def weights(self) -> str:
        """The source of the weights, such as `seeded kaiming, seed 0` or `checkpoint sha256 …`."""
        return self.facts.weights

    @property
    def tolerance(self) -> float:
        """The largest error of its outputs, relative to the largest magnitude of their references."""
        facts = self.facts
        if facts.loss is not None and not facts.float32_layers:  # else integers are rounded from floats, to one side or the other
            return MOST_ROUNDING
        least = _FIXED_TOLERANCE if facts.small_weights is not None and facts.small_weights.dtype == INT8.name else 0.0
        return max(precision_named(self.dtype).tolerance_of(quantised=facts.quantised), facts.rounding, least)

    def reference(self) -> Reference:
        """Return inputs and the reference program's outputs for them; raise `UserError` for a bad file. This runs no code.

        The file calls them `input` and `output`, numbered if there are several: `output0`, `output1`, ….
        """
        takes, returns = self.spec.takes, self.spec.returns
        ports = dict(zip((*keys_of(takes, INPUT_NAME), *keys_of(returns, OUTPUT_NAME)), (*takes, *returns), strict=True))
        others = UserError(f"{self.reference_path} does not hold the arrays of {self.spec.variant}.", _AGAIN)
        try:
            most = max(np.dtype(port.dtype).itemsize * port.elements for port in ports.values())
            if _largest(self.reference_path) > most + _HEADER_BYTES:
                raise others  # it might fill memory when unpacked
            with np.load(self.reference_path, allow_pickle=False) as stored:
                arrays = [stored[key] for key in ports]
        except UserError:
            raise
        except Exception as error:  # the readers of zip, deflate and NumPy's headers raise errors of any kind for damaged files
            raise UserError(f"{self.reference_path} cannot be read: {one_line(error)}.", _AGAIN) from error
        if any(
            not isinstance(array, np.ndarray) or array.shape != port.shape or array.dtype != port.dtype
            for array, port in zip(arrays, ports.values(), strict=True)
        ):
            raise others
        return Reference(tuple(arrays[: len(takes)]), tuple(arrays[len(takes) :]))


def checked_library(given: Library) -> Library:
    """Return a call's library; raise `UserError` for anything else, such as a library's path."""
    if not isinstance(given, Library):
        called = shown(str(given)) if isinstance(given, str | Path) else type(given).__name__
        raise UserError(
            f"{called} is not a library.", "Give one that tvmmobile.compile returns; tvmmobile.open_libraries opens those on disk."
        )
    return given


def _largest(path: Path) -> int:
    """Return the bytes of the largest array in an archive, unpacked and with its header."""
    with zipfile.ZipFile(path) as archive:
        return max((info.file_size for info in archive.infolist()), default=0)


def find_libraries(paths: Sequence[Path]) -> list[Library]:
    """Find libraries, a directory's by name; raise `UserError` for none, a damaged one or a name twice."""
    if not paths:
        raise UserError("no library was named.", "Give the path of one, or of a directory of them.")
    files: list[Path] = []
    for path in paths:
        files += whole_files(path, "*.so") if path.is_dir() else [path]
    libraries = [_described(path) for path in dict.fromkeys(files)]
    if not libraries:
        raise UserError(f"no library in {', '.join(map(str, paths))}.", "Compile some with tvmmobile compile.")
    names: dict[str, Path] = {}
    for library in libraries:
        other = names.setdefault(library.path.stem, library.path)
        if other != library.path:
            raise UserError(
                f"{other} and {library.path} have the same name.", "Take them one at a time, or rename one with its companions."
            )
    return libraries


def _described(path: Path) -> Library:
    """Return the library at `path` as its manifest describes it."""
    for needed in (path, path.with_suffix(".json"), path.with_suffix(".reference.npz")):
        if not needed.is_file():
            raise UserError(
                f"{needed} does not exist.", "A library needs its manifest and reference beside it: tvmmobile compile writes all three."
            )
    manifest = read_manifest(path.with_suffix(".json"))
    library = Library(manifest.spec, manifest.dtype, manifest.threads, path)
    if sha256_of(path) != manifest.sha256:
        raise UserError(f"{path} is not the library its manifest describes.", _AGAIN)
    library.reference()
    return library
