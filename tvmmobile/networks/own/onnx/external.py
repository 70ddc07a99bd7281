"""Reads the weights of an ONNX model that are in files beside it."""

from __future__ import annotations

import math
from typing import Any

from onnx import TensorProto, helper

from tvmmobile.networks.own.files import OwnFile, check_readable
from tvmmobile.networks.own.onnx.tensors import PACKED_BITS, external_tensors
from tvmmobile.system.errors import UserError, shown

#: Maximum length in characters of an external file's path.
_LONGEST_NAME = 255
_TOGETHER, _WHOLE = "Keep the two files together.", "Copy or download both files again."


def read_beside(file: OwnFile, model: Any) -> list[Any]:
    """Read the weights in files beside a model; return their tensors.

    Links are followed to files in the model's folder, or in the folder of the file that the model's path links to: caches of downloads
    keep files in one folder and link to them.

    Raises:
        UserError: a file is missing or elsewhere, or does not hold what the model says.
    """
    tensors = list(external_tensors(model))
    for tensor in tensors:
        tensor.raw_data = _data(file, tensor)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return tensors


def names_beside(file: OwnFile, model: Any) -> list[str]:
    """Return the files that hold weights, relative to the model's folder; raise `UserError` for one that is elsewhere."""
    return list(dict.fromkeys(_location(file, tensor) for tensor in external_tensors(model)))


def _location(file: OwnFile, tensor: Any) -> str:
    location = _entries(tensor).get("location", "")
    if not location or location.startswith("/") or ".." in location.split("/") or "\0" in location or len(location) > _LONGEST_NAME:
        raise UserError(f"{file}: the data of {tensor.name} is in {shown(location)}, which is not in the same folder.", "Export it again.")
    return location


def _entries(tensor: Any) -> dict[str, str]:
    return {str(entry.key): str(entry.value) for entry in reversed(tensor.external_data)}


def _data(file: OwnFile, tensor: Any) -> bytes:
    """Return a tensor's bytes."""
    location, entries = _location(file, tensor), _entries(tensor)
    what = f"{file}: the data of {tensor.name} in {location} cannot be read"
    path = file.path.parent / location
    try:
        check_readable(path)
    except UserError as error:
        raise UserError(f"{what}: {str(error.as_typed[0]).removeprefix(f'{path} cannot be read: ')}", _TOGETHER) from error
    try:
        found = path.resolve(strict=True)
        if not any(found.is_relative_to(folder) for folder in (file.path.parent.resolve(), file.path.resolve().parent)):
            raise UserError(f"{what}: it is a link to a file in another folder.", "Copy that file to the model's folder.")
        size, needed = found.stat().st_size, _bytes_of(tensor)
        begin, length = (_number(what, entries, name, default) for name, default in (("offset", 0), ("length", needed)))
        if length != needed:
            raise UserError(f"{what}: {length:,} bytes are given, and its shape needs {needed:,}.", "Export it again.")
        if begin + needed > size:
            raise UserError(f"{what}: the file ends at byte {size:,}, and they at byte {begin + needed:,}.", _WHOLE)
        with found.open("rb") as stream:
            stream.seek(begin)
            return stream.read(needed)
    except OSError as error:
        raise UserError(f"{what}: {error.strerror or error}.", _TOGETHER) from error


def _number(what: str, entries: dict[str, str], name: str, default: int) -> int:
    """Return an offset or a length in bytes."""
    text = entries.get(name, str(default))
    if not text.isdecimal() or len(text) > 18:
        raise UserError(f"{what}: its {name} is {shown(text)}, not a number of bytes.", "Export it again.")
    return int(text)


def _bytes_of(tensor: Any) -> int:
    """Return how many bytes a tensor's shape and type take."""
    name = TensorProto.DataType.Name(tensor.data_type)
    bits = PACKED_BITS.get(name) or 8 * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    return -(-math.prod(map(int, tensor.dims)) * bits // 8)
