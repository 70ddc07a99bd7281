"""Reads calibration data of networks with several inputs: arrays by the input's name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.networks.arrays import check_finite
from tvmmobile.networks.images import read_arrays
from tvmmobile.networks.signature import Port, words
from tvmmobile.quantisation.calibration import CalibrationSamples
from tvmmobile.quantisation.flow import Batch
from tvmmobile.system.errors import UserError


def samples_in_files(files: Sequence[Path], takes: Sequence[Port], what: str) -> CalibrationSamples:
    """Return the samples of `.npz` files, each of which holds one, as `run` takes it.

    Args:
        what: description of the files for messages.

    Raises:
        UserError: there are no files; reading an invalid one raises it, too.
    """
    if not files:
        raise UserError(
            f"{what} has no .npz files in it.",
            f"Save each sample with numpy.savez, with an array for each of {', '.join(map(str, takes))}.",
        )

    def read(number: int) -> Batch:
        path = files[number]
        arrays = read_arrays(path, takes).arrays
        sample = tuple(_checked(arrays[port.name], str(path), port, port.shape) for port in takes)
        for array in sample:
            check_finite(str(path), array)
        return sample

    return CalibrationSamples(len(files), lambda numbers: joined_samples(map(read, numbers)))


def samples_in_rows(file: Path, takes: Sequence[Port], what: str) -> CalibrationSamples:
    """Return the samples of a `.npz` file, which holds a value of each input in each row of the input's array.

    Args:
        what: description of the file for messages.

    Raises:
        UserError: the file is damaged, lacks an input, or has arrays of other shapes or of different lengths; reading a number that is not
            finite raises it, too.
    """
    arrays = read_arrays(file, takes).arrays
    rows = [_checked(arrays[port.name], what, port, (-1, *port.shape[1:])) for port in takes]
    counts = {len(array) for array in rows}
    if len(counts) > 1 or 0 in counts:
        listed = ", ".join(f"{len(array)} of {port.name}" for port, array in zip(takes, rows, strict=True))
        raise UserError(f"{what} has {listed}.", "Save as many values of each input, at least one.")

    def read(numbers: Sequence[int]) -> Batch:
        batch = tuple(array[list(numbers)] for array in rows)
        for array in batch:
            check_finite(what, array)
        return batch

    return CalibrationSamples(counts.pop(), read)


def joined_samples(samples: Iterable[Batch]) -> Batch:
    """Return samples as one batch."""
    return tuple(map(np.concatenate, zip(*samples, strict=True)))


def _checked(array: Any, what: str, port: Port, shape: tuple[int, ...]) -> Array:
    """Return `array` if an input takes it; raise `UserError` otherwise. An extent of -1 in `shape` may be any."""
    wanted = f"{port.dtype} {words(shape).replace('-1', 'N')}"
    remedy = f"Save it as {wanted}."
    if not isinstance(array, np.ndarray):  # NumPy returns other files of an archive as bytes
        raise UserError(f"{what} holds something other than an array for {port.name}.", remedy)
    fits = array.ndim == len(shape) and all(extent in (-1, found) for extent, found in zip(shape, array.shape, strict=True))
    if not fits or array.dtype != port.dtype:
        raise UserError(f"{what} holds {array.dtype} {words(array.shape)} for {port.name}, which is {wanted}.", remedy)
    return array
