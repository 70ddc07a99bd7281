"""Checks arrays that users give, and reads `.npy` files that other programs may be writing.

A file is mapped to read its header: one that promises more than the file holds is refused before anything is allocated. Numbers are then
read from the file, not from the mapping: if the file has shrunk since, touching a mapped page would kill this process with SIGBUS.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.format import MAGIC_PREFIX
from numpy.lib.npyio import NpzFile

from tvmmobile.graph.precision import FLOAT32
from tvmmobile.system.errors import UserError

Array = npt.NDArray[Any]


def check_finite(what: str, array: Array, stored: str = FLOAT32.name) -> None:
    """Raise `UserError` for NaN, infinity, and numbers that become infinite in the type that a library takes, `stored`."""
    if not np.isfinite(array).all():
        raise UserError(f"{what} holds values that are not finite (NaN or infinity).", "Check the program that wrote it.")
    with np.errstate(over="ignore"):
        kept = array.astype(stored, copy=False)
    if not np.isfinite(kept).all():
        raise UserError(f"{what} holds values beyond the range of {stored}.", "Check the program that wrote it.")


def archived(archive: NpzFile, name: str) -> Any:
    """Return an array of a `.npz` file; of a member that is none its first bytes, where NumPy would unpack all of it, however large."""
    assert archive.zip is not None, "the archive is open"
    member = next(found for found in archive.zip.namelist() if found in (name, f"{name}.npy"))
    with archive.zip.open(member) as stream:
        start = stream.read(len(MAGIC_PREFIX))
    return archive[name] if start == MAGIC_PREFIX else start


def read_mapped(array: Array) -> Array:
    """Return a mapped file's numbers; any other array unchanged. Raises `UserError` if the file is gone or has become shorter."""
    return _read(array, array.shape, 0) if isinstance(array, np.memmap) else array


def read_part(array: Array, number: int) -> Array:
    """Read `array[number]` alone, as `read_mapped` does."""
    if not isinstance(array, np.memmap):
        return np.asarray(array[number])
    if not array.flags.c_contiguous:  # its elements are scattered over the file
        return np.asarray(read_mapped(array)[number])
    return _read(array, array.shape[1:], number)


def _read(array: Any, shape: tuple[int, ...], number: int) -> Array:
    count = int(np.prod(shape, dtype=np.int64))
    try:
        numbers = np.fromfile(array.filename, array.dtype, count, offset=array.offset + number * count * array.dtype.itemsize)
    except OSError as error:
        raise UserError(f"{array.filename} cannot be read: {error.strerror}.", "Check whether something changes it.") from error
    if numbers.size < count:
        raise UserError(f"{array.filename} has become shorter since it was opened.", "Run it again once the file is whole.")
    return numbers.reshape(shape, order="C" if array.flags.c_contiguous else "F")
