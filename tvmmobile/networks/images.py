"""Reads an image or array from disk as a network's input: NCHW float32, normalised as timm does for `mobilenetv1_100`."""

from __future__ import annotations

import os
import re
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from tvmmobile.networks.arrays import archived, check_finite, read_mapped
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.networks.signature import Port
from tvmmobile.system.errors import UserError, one_line

Array = npt.NDArray[np.float32]
_IMAGE_CHANNELS = 3
#: Suffixes of images, as in torchvision's ImageFolder.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
#: Suffixes of files that `read_input` reads.
INPUT_SUFFIXES = SUFFIXES | {".npy"}
_NOISE = re.compile(r"noise:([1-9]\d{0,4})")
#: Pillow's modes with at most 8 bits a channel: in others, values above 255 would be clipped silently.
_EIGHT_BITS = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
#: Transposition that turns an image upright, by its EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: What Pillow raises for damaged files.
_DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    MemoryError,
    TypeError,
    AttributeError,
    LookupError,
    struct.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Input:
    """A network's input and its origin.

    Attributes:
        array: `[1, channels, side, side]`.
        origin: the source of the input and its preprocessing, for people, in one line.
    """

    array: Array
    origin: str


@dataclass(frozen=True)
class Arrays:
    """A network's inputs by name, and their origin, for people, in one line."""

    arrays: Mapping[str, npt.NDArray[Any]]
    origin: str


def read_input(path: Path, preprocessing: Preprocessing) -> Input:
    """Return an image that Pillow reads, or a `.npy`: float32 `[1, 3, side, side]` as it is, uint8 `[height, width, 3]` as an image.

    EXIF rotation is applied; transparency is ignored.

    Raises:
        UserError: the file is missing, damaged or something else, has another shape, or holds values that are not finite.
    """
    if not os.path.isfile(path):
        raise UserError(f"{path} does not exist.", "Give an image or a .npy file.")
    if not _holds_array(path, preprocessing):
        with _pillow_reads(path) as image:
            image.load()
            upright = _upright(image)
        return _from_image(upright, str(path), preprocessing)
    array = _checked_array(path, preprocessing)
    if array.dtype == np.uint8:
        return _from_image(Image.fromarray(np.ascontiguousarray(read_mapped(array))), str(path), preprocessing)
    array = read_mapped(array)
    check_finite(str(path), array)
    return Input(np.ascontiguousarray(array), f"{path}, float32 {'×'.join(map(str, array.shape))} as it is")


def read_arrays(path: Path, takes: Sequence[Port]) -> Arrays:
    """Return a network's inputs other than images: a `.npy`, or a `.npz` with an array for each name; shapes and types are not checked.

    Raises:
        UserError: the file is missing, damaged, or lacks an input.
    """
    names, suffix = ", ".join(map(str, takes)), ".npy" if len(takes) == 1 else ".npz"
    if not os.path.isfile(path):
        raise UserError(f"{path} does not exist.", f"Give a {suffix} file.")
    if path.suffix.lower() != suffix:
        saved = "numpy.save" if len(takes) == 1 else "numpy.savez, with an array for each name"
        raise UserError(f"{path} is not a {suffix} file, and the network takes {names}.", f"Write one with {saved}.")
    if len(takes) == 1:
        return Arrays({takes[0].name: _load_array(path)}, f"{path}, {names}")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {port.name: archived(stored, port.name) for port in takes if port.name in stored.files}
    except Exception as error:  # NumPy's readers raise errors of any kind
        raise UserError(f"{path} cannot be read: {one_line(error)}.", "Write it with numpy.savez.") from error
    for port in takes:
        if port.name not in arrays:
            raise UserError(f"{path} has no array {port.name}.", f"The network takes {names}.")
    return Arrays(arrays, f"{path}, {names}")


def noise_count(source: str) -> int:
    """Return N for `noise:N`; 0 for anything else."""
    found = _NOISE.fullmatch(source)
    return int(found[1]) if found else 0


def noise_input(number: int, shape: tuple[int, ...]) -> Array:
    """Return one input of noise: uniform with unit variance, as normalised photographs have, and the same each time."""
    return np.random.default_rng(number).uniform(-(3**0.5), 3**0.5, shape).astype(np.float32)


def check_header(path: Path, preprocessing: Preprocessing) -> None:
    """Read the header of an image or array; raise `UserError` if it shows that `read_input` will refuse the file."""
    if _holds_array(path, preprocessing):
        _checked_array(path, preprocessing)
        return
    with _pillow_reads(path) as image:
        _check_kind(image, str(path), preprocessing)


def _holds_array(path: Path, preprocessing: Preprocessing) -> bool:
    """Return whether a file's name is an array's; raise `UserError` for others where the network takes no images."""
    if path.suffix.lower() == ".npy":
        return True
    if not preprocessing.takes_images:
        shape = f"{preprocessing.channels} channels" if not preprocessing.shape else "×".join(map(str, preprocessing.shape))
        raise UserError(f"{path} is not an array, and the network takes {shape}.", f"Give a .npy: {_wanted(preprocessing)}.")
    return False


def _wanted(preprocessing: Preprocessing) -> str:
    """Describe the arrays that need no preprocessing."""
    return f"float32 {list(preprocessing.input_shape)} ({'' if preprocessing.shape else 'NCHW, '}normalised)"


def _checked_array(path: Path, preprocessing: Preprocessing) -> npt.NDArray[np.generic]:
    """Map a `.npy` that the network takes: float32 of its input's shape, or the uint8 pixels of an image."""
    array, takes_images = _load_array(path), preprocessing.takes_images
    is_input = array.dtype == np.float32 and array.shape == preprocessing.input_shape
    is_image = array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == _IMAGE_CHANNELS and array.size > 0
    if not (is_input or (is_image and takes_images)):
        raise UserError(
            f"{path} holds {array.dtype} {list(array.shape)}, which this network does not take.",
            f"Give {_wanted(preprocessing)}{', or uint8 [height, width, 3]' if takes_images else ''}.",
        )
    return array


def _load_array(path: Path) -> npt.NDArray[np.generic]:
    try:
        # Mapped: a header that promises more than the file holds is refused before anything is allocated. No pickle is ever read.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy's readers, including the parser of Python syntax in the header, raise errors of any kind
        raise UserError(
            f"{path} is not an array of numbers that NumPy can read: {one_line(error)}.", "Write it with numpy.save."
        ) from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} is an archive of arrays.", "Give one array, written with numpy.save.")
    return array


@contextmanager
def _pillow_reads(path: Path) -> Iterator[Image.Image]:
    """Open an image and read its header; Pillow's objections, then and within the context, become `UserError`s."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged tags; and photos of today are large: twice as much is refused
            with Image.open(path) as image:
                yield image
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image.", "Give an image such as PNG or JPEG, or an array in a .npy file.") from error
    except _DAMAGED as error:
        raise UserError(f"{path} cannot be read as an image: {one_line(error)}.", "Check that it is complete.") from error


def _upright(image: Image.Image) -> Image.Image:
    """Rotate an image according to its EXIF orientation. Pillow's `exif_transpose` also rewrites the EXIF, which fails where another tag
    has an odd type.
    """
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _check_kind(image: Image.Image, source: str, preprocessing: Preprocessing) -> None:
    """Raise `UserError` for what the header alone rules out."""
    if image.mode not in _EIGHT_BITS:
        raise UserError(f"{source} has more than 8 bits a channel ({image.mode}).", "Save it with 8 bits a channel.")
    width, height = image.size
    side = preprocessing.side
    if preprocessing.resize and max(_scaled(image, preprocessing)) > 100 * preprocessing.shorter_side:
        raise UserError(f"{source} is {width}×{height}: a strip, not a picture.", "Crop it.")
    if not preprocessing.resize and (width, height) != (side, side):
        raise UserError(f"{source} is {width}×{height}; the network takes {side}×{side}.", "Leave out --no-resize.")


def _scaled(image: Image.Image, preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the width and height after scaling the shorter side."""
    width, height = image.size
    shorter = preprocessing.shorter_side
    return int(shorter * width / min(width, height)), int(shorter * height / min(width, height))


def _from_image(image: Image.Image, source: str, preprocessing: Preprocessing) -> Input:
    _check_kind(image, source, preprocessing)
    width, height = image.size
    side = preprocessing.side
    image = image.convert("RGB")
    if preprocessing.resize:
        scaled = _scaled(image, preprocessing)
        left, top = (round((length - side) / 2) for length in scaled)
        # Across, then down, as C libraries do it: Pillow 13 begins with what it deems faster, and rounds in between.
        for size in ((scaled[0], height), scaled):
            image = image.resize(size, Image.Resampling.BICUBIC)
        image = image.crop((left, top, left + side, top + side))
    pixels = np.asarray(image, np.float32) / np.float32(255)
    normalised = (pixels - np.asarray(preprocessing.mean, np.float32)) / np.asarray(preprocessing.std, np.float32)
    array = np.ascontiguousarray(normalised.transpose(2, 0, 1)[np.newaxis], np.float32)
    return Input(array, f"{source}, {width}×{height}; {preprocessing}")
