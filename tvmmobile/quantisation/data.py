"""Reads calibration data from disk: tensors, or images with the same preprocessing as in `evaluate`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tvmmobile.networks.arrays import archived, check_finite, read_part
from tvmmobile.networks.folders import files_below
from tvmmobile.networks.images import INPUT_SUFFIXES, SUFFIXES, noise_count, noise_input, read_input
from tvmmobile.networks.labelled import classes_of
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.networks.signature import Port
from tvmmobile.quantisation.calibration import CalibrationSamples
from tvmmobile.quantisation.flow import Batch
from tvmmobile.quantisation.named_samples import joined_samples, samples_in_files, samples_in_rows
from tvmmobile.system.errors import UserError, one_line

#: Sources of calibration data.
SOURCES = "a folder of images, a .npy or .npz of float32 inputs, or, for generated weights, noise:N"
_GIVE = f"Give {SOURCES}."


@dataclass(frozen=True)
class CalibrationData:
    """The location of calibration data; a small value that can be sent to a worker process.

    Attributes:
        given: value of `--calibrate`, such as `photos` or `noise:64`.
        place: file or folder; `None` for noise.
        preprocessing: preprocessing of images, and shape of the network's input.
        takes: inputs of a network that has several.
    """

    given: str
    place: Path | None
    preprocessing: Preprocessing
    takes: tuple[Port, ...] = ()

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The file itself, or the folder's visible images and `.npy` files (for several inputs, its `.npz` files) at any depth, sorted; the
        folder is listed only once.
        """
        if self.place is None:
            return ()
        return (self.place,) if self.place.is_file() else tuple(files_below(self.place, {".npz"} if self.takes else INPUT_SUFFIXES))

    def reads(self) -> Mapping[str, Path]:
        """Return the files, by their path relative to the folder that `moved` takes."""
        place = self.place
        if place is None:
            return {}
        return {path.name if path == place else f"{place.name}/{path.relative_to(place).as_posix()}": path for path in self.files}

    def moved(self, folder: Path) -> CalibrationData:
        """Return a copy that finds its files below `folder`."""
        return self if self.place is None else replace(self, place=folder / self.place.name)

    def labels(self, classes: int) -> tuple[int, ...]:
        """Return the class of each of the `samples`, if class folders (`networks.labelled`) tell it without doubt; otherwise nothing.

        Args:
            classes: number of the network's classes.
        """
        place = self.place
        if place is None or not place.is_dir() or any(path.parent.parent != place for path in self.files):
            return ()
        try:
            known_classes = classes_of(place, classes)
        except UserError:  # the folders are not class folders
            return ()
        names = [path.parent.name for path in self.files]
        listed = all(name in known_classes.labels for name in names)  # a folder may be gone by now; reading its files will report that
        return tuple(known_classes.labels[name] for name in names) if known_classes.certain and listed else ()

    def samples(self) -> CalibrationSamples:
        """Return the samples, which are read lazily.

        Raises:
            UserError: if there are no samples; reading an invalid one raises it, too.
        """
        place, files = self.place, self.files
        if place is None:
            shape = self.preprocessing.input_shape
            return CalibrationSamples(
                noise_count(self.given), lambda numbers: (np.concatenate([noise_input(number, shape) for number in numbers]),)
            )
        what, preprocessing = f"--calibrate {self.given}", self.preprocessing
        if self.takes:
            return samples_in_files(files, self.takes, what) if place.is_dir() else samples_in_rows(place, self.takes, what)
        if place.is_dir():
            if not files:
                raise UserError(f"{what} has no images in it.", f"Images end in {', '.join(sorted(SUFFIXES))}.")
            return CalibrationSamples(
                len(files), lambda numbers: joined_samples((read_input(files[number], preprocessing).array,) for number in numbers)
            )
        arrays = [_checked(array, self.given, preprocessing.input_shape) for array in _arrays(place, self.given)]
        owners = [(array, number) for array in arrays for number in range(len(array))]
        if not owners:
            raise UserError(f"{what} has no inputs in it.", _GIVE)

        def read(numbers: Sequence[int]) -> Batch:
            batch = np.stack([read_part(*owners[number]) for number in numbers])
            check_finite(what, batch)
            return (batch,)

        return CalibrationSamples(len(owners), read)


def calibration_data(given: str, preprocessing: Preprocessing, generated: bool, takes: Sequence[Port] = ()) -> CalibrationData:
    """Find the calibration data that `--calibrate` names.

    Args:
        takes: the network's inputs.
        generated: true if the network's weights are generated, in which case noise may be used.

    Raises:
        UserError: if there is no such file or folder, or if noise is given for trained weights.
    """
    several = tuple(takes) if len(takes) > 1 else ()
    if noise_count(given):
        if not generated:
            raise UserError(
                "noise cannot calibrate trained weights: the scales would fit no real image.", "Give --calibrate a folder of images."
            )
        return CalibrationData(given, None, preprocessing, several)
    if not given:
        raise UserError("--calibrate is empty.", _GIVE)
    place = Path(given)
    if not os.path.exists(place):  # false also without permission
        raise UserError(f"--calibrate {given} does not exist.", _GIVE)
    if not place.is_dir() and not (place.is_file() and place.suffix.lower() in (".npy", ".npz")):
        raise UserError(f"--calibrate {given} is neither a folder nor a .npy or .npz file.", _GIVE)
    return CalibrationData(given, place, preprocessing, several)


def check_values(data: CalibrationData, samples: CalibrationSamples) -> None:
    """Raise `UserError` if every batch is constant, such as black images: no real input would fit the scales."""
    if all(np.ptp(array) == 0 for batch in samples.batches() for array in batch):
        value = samples.read([0])[0].flat[0]
        raise UserError(f"--calibrate {data.given} holds nothing but {value:g}.", "Give images like those that the network will see.")


def _arrays(place: Path, given: str) -> list[Any]:
    """Return the arrays of a `.npy` or `.npz` file; pickles are refused."""
    try:
        loaded = np.load(place, mmap_mode="r", allow_pickle=False)
        return [loaded] if isinstance(loaded, np.ndarray) else [archived(loaded, name) for name in loaded.files]
    except Exception as error:  # NumPy's readers, and those of archives, raise errors of any kind
        raise UserError(
            f"--calibrate {given} cannot be read by NumPy: {one_line(error)}.", "Write it with numpy.save or numpy.savez."
        ) from error


def _checked(array: Any, given: str, shape: tuple[int, ...]) -> Any:
    """Return `array` if it is a float32 array of inputs; raise `UserError` otherwise."""
    wanted = f"float32 [N, {', '.join(map(str, shape[1:]))}]"
    if not isinstance(array, np.ndarray):  # NumPy returns other files of an archive as bytes
        raise UserError(f"--calibrate {given} holds something other than arrays.", f"Save {wanted} alone, normalised.")
    if array.dtype != np.float32 or array.ndim != len(shape) or array.shape[1:] != shape[1:]:
        raise UserError(
            f"--calibrate {given} holds {array.dtype} {list(array.shape)}, and the network takes {wanted}.", f"Save {wanted}, normalised."
        )
    return array
