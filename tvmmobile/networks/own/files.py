"""The file that `--model` names, and the tensors that its network takes and returns."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path
from typing import Any

from tvmmobile.graph.precision import FLOAT32
from tvmmobile.networks.budget import MOST_BYTES, check_elements
from tvmmobile.networks.models.spec import OwnSpec, side_of
from tvmmobile.networks.models.traits import TRAITS
from tvmmobile.networks.signature import INPUT_NAME, INTEGERS, MOST_NAME, OUTPUT_NAME, Port, named, words
from tvmmobile.system.errors import UserError, shown

#: Suffixes of files that hold a whole network.
SUFFIXES = (".pt2", ".onnx", ".tflite")
#: The forms of `--model` for a user's own network.
FORMS = "path.py:factory, file.pt2, file.onnx or file.tflite"
#: Files that PyTorch and its users write with `torch.save` or `torch.jit.save`, which networks are not read from.
_WEIGHTS = frozenset({".pt", ".pth", ".ckpt", ".torchscript", ".safetensors"})
#: Characters of a network's name: those of its library's files, with more behind them, have at most 255.
_MOST_CHARACTERS = 150
#: Names that programs give to any network.
_MEANINGLESS = {"", "model", "network", "graph", "main", "main_graph", "torch_jit", "torch-jit-export", "tf2onnx", "onnx_graph"}
_PYTHON = re.compile(r"(?P<path>.+\.py)(:(?P<factory>.*))?", re.DOTALL)
#: The side of a square input in pixels, or height and width.
Side = int | tuple[int, int]


@dataclass(frozen=True)
class RequestedShape:
    """Requested values of the first input's dynamic dimensions; `None` for those not requested.

    Attributes:
        side: side of the images, or their height and width.
        batch: images at a time; without it, a dynamic batch dimension is 1.
    """

    side: Side | None = None
    batch: int | None = None


@dataclass(frozen=True)
class OwnFile:
    """The file of a user's own network.

    Attributes:
        path: the file's path, as it was given.
        factory: the function of a Python file that returns the network; "" for other files.
        shapes: requested shapes of inputs by name, for dimensions that the file leaves open.
        values: values by name of inputs that always have this value; these inputs become constants.
    """

    path: Path
    factory: str = ""
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    values: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        return f"{self.path}:{self.factory}" if self.factory else str(self.path)

    @property
    def label(self) -> str:
        """The file's own name, and the factory's."""
        return str(OwnFile(Path(self.path.name), self.factory))

    @property
    def name(self) -> str:
        """The network's name: the factory's or else the file's, cut if it is long; with `own_` in front if a built-in network has it."""
        return self.named("")

    def named(self, inside: str) -> str:
        """Return the network's name from inside the file, for a file with a meaningless name such as `model.onnx`."""
        own = self.factory or self.path.stem
        given = inside if own in _MEANINGLESS and inside not in _MEANINGLESS else own
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", given)[:_MOST_CHARACTERS].strip("._-") or "network"
        return f"own_{name}" if name in TRAITS else name


@dataclass(frozen=True)
class FileTensor:
    """An input or output of a network.

    Attributes:
        name: the tensor's name in the file.
        shape: a dimension that is not a number has its name in the file, or ""; `None` for an unknown rank.
        dtype: NumPy's name of it.
        operator: name of the operator that computes an output or reads an input; empty if unknown.
    """

    name: str
    shape: tuple[int | str, ...] | None
    dtype: str
    operator: str = ""

    @property
    def called(self) -> str:
        """The name with the operator, for messages."""
        return f"{self.name!r} (of {self.operator})" if self.operator else repr(self.name)


def own_file(model: str) -> OwnFile | None:
    """Return the file that `--model` names; `None` for a built-in network's name; raise `UserError` for files of other kinds."""
    path = Path(model)
    if match := _PYTHON.fullmatch(model):
        if not (match["factory"] or "").isidentifier():
            raise UserError(
                f"--model {model} does not say which function returns the network.", f"Name it: --model {match['path']}:factory"
            )
        return OwnFile(Path(match["path"]), match["factory"])
    if path.suffix.lower() in SUFFIXES:
        return OwnFile(path)
    if path.suffix.lower() in _WEIGHTS:
        problem = f"--model {model} is not a network file: it has weights, pickled objects or TorchScript."
        raise UserError(problem, "Export the network with torch.export.save (file.pt2) or torch.onnx.export (file.onnx), and give that.")
    if path.suffix or len(path.parts) > 1:
        raise UserError(f"--model {model} is not a network file.", f"Give a built-in network's name, {FORMS}.")
    return None


def side_from(text: str) -> Side:
    """Return a side in pixels, or height and width, from `160` or `96x128`; raise `UserError` for other texts."""
    match = re.fullmatch(r"(-?\d{1,9})(?:[x×](-?\d{1,9}))?", text)
    if match is None:
        raise UserError(f"--resolution {text} is not a size.", "Give a side in pixels, such as 160, or 96x128.")
    height, width = int(match[1]), int(match[2] or match[1])
    return height if height == width else (height, width)


def side_given(given: Any) -> Side:
    """Return a side in pixels, or height and width, from a call's numbers or text; raise `UserError` for anything else."""
    if isinstance(given, str):
        return side_from(given)
    try:
        height, width = map(index, given) if isinstance(given, Iterable) else 2 * (index(given),)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--resolution takes a side in pixels, or height and width, not {shown(given)}.", "Give --resolution 160, or (96, 128)."
        ) from error
    return height if height == width else (height, width)


def read_whole(path: Path) -> bytes:
    """Return the content of a file; raise `UserError` where it cannot be read."""
    check_readable(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error


def check_readable(path: Path) -> None:
    """Raise `UserError` for a network's path that is not a regular file, which might block, or is too large to read."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:  # a NUL in its name
        raise _unreadable(path, getattr(error, "strerror", None) or str(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise _unreadable(path, os.strerror(errno.EISDIR) if stat.S_ISDIR(found.st_mode) else "it is not a regular file")
    if found.st_size > MOST_BYTES:
        raise _unreadable(path, f"it has {found.st_size:,} bytes, more than {MOST_BYTES:,}")


def _unreadable(path: Path, why: str) -> UserError:
    return UserError(f"{path} cannot be read: {why}.", f"Give --model {FORMS}, or a built-in network's name.")


def spec_of(
    file: OwnFile,
    contents: str,
    inputs: Sequence[FileTensor],
    outputs: Sequence[FileTensor],
    wanted: RequestedShape,
    fix: str,
    inside: str = "",
) -> OwnSpec:
    """Identify a network by its inputs and outputs.

    Args:
        contents: SHA-256 in hexadecimal.
        inputs, outputs: all of them, in order.
        wanted: the requested dimensions.
        fix: a way to make such a file with static shapes.
        inside: the network's name in the file, "" for none.

    Raises:
        UserError: there are none, one is not a tensor of a known type and shape, or the first input is an image of another size or batch.
    """
    for tensors, verb, act in ((inputs, "takes", "Give the network an input"), (outputs, "returns", "Return a tensor from the network")):
        if not tensors:
            raise UserError(f"{file} {verb} no tensors.", f"{act}, and export it again.")
    takes = _ports(file, inputs, "input", INPUT_NAME, fix)
    _check_shapes(file, [replace(port, name=tensor.name) for port, tensor in zip(takes, inputs, strict=True)])
    given, side = takes[0].shape, wanted.side
    if wanted.batch is not None and wanted.batch != given[0]:
        raise UserError(f"{file} takes only a batch of {given[0]}, not {wanted.batch}.", f"Leave out --batch, or give {given[0]}.")
    if side is not None and (len(given) != 4 or height_and_width(side) != given[2:]):
        size = "x".join(map(str, height_and_width(side))) if isinstance(side, tuple) else side
        own = side_of((1, *given[1:]))  # of one image of a batch
        remedy = f"Leave out --resolution, or give {own}." if len(given) == 4 else "Leave out --resolution."
        what = f"images of side {own}" if len(given) == 4 else words(given)
        raise UserError(f"{file} takes only {what}, not {size}.", remedy)
    return OwnSpec.of(file.named(inside), contents, takes, _ports(file, outputs, "output", OUTPUT_NAME, fix))


def _check_shapes(file: OwnFile, takes: Sequence[Port]) -> None:
    """Raise `UserError` for a requested shape that an input does not have."""
    known = {port.name: port.shape for port in takes}
    for name, shape in file.shapes:
        if name not in known:
            raise UserError(f"{file} has no input {name!r} for --shape.", f"Name one of: {', '.join(known)}.")
        if shape != known[name]:
            raise UserError(f"{file}: the input {name!r} is {words(known[name])}, not {words(shape)}.", "Change --shape, or leave it out.")


def height_and_width(side: Side) -> tuple[int, int]:
    """Return the height and width of an input whose side is given as one number or two."""
    return side if isinstance(side, tuple) else (side, side)


def refuse_dynamic(file: OwnFile, tensor: FileTensor, kind: str, fix: str) -> None:
    """Raise `UserError` for a dimension that is not a number; `kind` is `input` or `output`, see `spec_of` for `fix`."""
    for place, extent in enumerate(tensor.shape or ()):
        if isinstance(extent, str):
            called = f" ({extent})" if extent else ""
            raise UserError(f"{file}: dimension {place} of the {kind} {tensor.name!r} is dynamic{called}, and must be a number.", fix)


def _ports(file: OwnFile, tensors: Sequence[FileTensor], kind: str, only: str, fix: str) -> tuple[Port, ...]:
    """Return the tensors under their names in the file, or `only` one."""
    found = tuple(Port(tensor.name, _static(file, tensor, kind, fix), tensor.dtype) for tensor in tensors)
    for tensor, port in zip(tensors, found, strict=True):
        check_elements(f"{file}: the {kind} {ascii(port.name)[:60]}", port.shape)
        if not port.elements or not port.shape:
            what = "which is empty" if port.shape else "a number without dimensions"
            raise UserError(
                f"{file}: the {kind} {tensor.called} is {words(port.shape)}, {what}.", "Have it hold an element in each dimension."
            )
        if not port.name.isprintable() or not 0 < len(port.name) <= MOST_NAME or sum(other.name == port.name for other in found) > 1:
            raise UserError(f"{file}: {ascii(port.name)[:60]} does not name one {kind}.", "Give each a short name of its own.")
    return named(found, only)


def _static(file: OwnFile, tensor: FileTensor, kind: str, fix: str) -> tuple[int, ...]:
    if tensor.dtype not in (FLOAT32.name, *INTEGERS):
        known = ", ".join((FLOAT32.name, *INTEGERS))
        raise UserError(f"{file}: the {kind} {tensor.called} is {tensor.dtype}, not one of {known}.", "Convert it within the network.")
    if tensor.shape is None:
        raise UserError(f"{file}: the {kind} {tensor.called} has no shape.", fix)
    refuse_dynamic(file, tensor, kind, fix)
    return tuple(extent for extent in tensor.shape if isinstance(extent, int))
