"""Limits the time and memory that a network's file may take, judged from its declarations before anything is computed.

They are far above what boards run, and far below what would exhaust the machine that compiles.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tvmmobile.graph.bindings import bindings_of
from tvmmobile.graph.expressions import operator_of
from tvmmobile.system.errors import UserError, shown

#: Elements of one tensor, 2 GiB in float32: libraries count bytes of a tensor in 32 bits.
MOST_ELEMENTS = 1 << 29
#: Elements of all constants together.
MOST_CONSTANTS = 1 << 30
#: Elements of constants that a file may store without their zeros: a base, and an addition per stored number.
_SPARSE, _EACH = 1 << 26, 128
#: Multiply-adds of one run: a quarter of an hour on a Raspberry Pi 4.
MOST_MACS = 10**13
#: Operators, after functions are inlined: seconds of import.
MOST_OPERATORS = 10_000
#: Operators that compute a batch, image by image, and images.
MOST_CALLS, MOST_IMAGES = 20_000, 128
#: Rows or columns of a window, of its steps, of gaps within it and of the padding around an image.
MOST_WINDOW = 1 << 20
#: Bytes of a file that is read as a whole.
MOST_BYTES = 1 << 32
#: Limit of an unpacked archive: this multiple of its size, plus this many bytes. PyTorch does not compress archives.
_TIMES, _MORE_BYTES = 4, 64 << 20

_SMALLER = "Give a network that a board can run."


def check_elements(what: str, shape: Iterable[int]) -> None:
    """Raise `UserError` for a tensor with a negative extent or more elements than any network needs; `what` names it."""
    extents = list(shape)
    if any(extent < 0 for extent in extents):
        raise UserError(f"{what} has a negative extent: {_times(extents)}.", "Export it again.")
    if math.prod(extents) > MOST_ELEMENTS or any(extent > MOST_ELEMENTS for extent in extents):
        raise UserError(f"{what} is {_times(extents)}: more than {MOST_ELEMENTS:,} numbers, which is too many for a board.", _SMALLER)


def check_constants(what: str, elements: int) -> None:
    """Raise `UserError` for more elements of constants than fit into memory."""
    if elements > MOST_CONSTANTS:
        raise UserError(f"{what} has {shown(elements)} numbers in its constants, more than {MOST_CONSTANTS:,}.", _SMALLER)


def check_zeros(what: str, elements: int, stored: int, copies: int = 1) -> None:
    """Raise `UserError` for sparse constants whose zeros would fill the memory.

    Args:
        elements: number of elements of these constants, with their zeros.
        stored: numbers of them that the file has.
        copies: largest number of copies of each before the network is compiled.
    """
    if elements > _SPARSE // copies + _EACH * stored:
        many = f"{shown(elements)} numbers in sparse constants, of which it stores {shown(stored)}"
        raise UserError(f"{what} has {many}: too many zeros.", "Store these constants with their zeros.")


def check_unpacked(what: str, packed_bytes: int, unpacked_bytes: int) -> None:
    """Raise `UserError` for an archive that would fill the memory."""
    if unpacked_bytes > _TIMES * packed_bytes + _MORE_BYTES:
        many = f"{unpacked_bytes:,}" if unpacked_bytes < 10**15 else "countless"
        raise UserError(f"{what} has {packed_bytes:,} bytes and unpacks to {many}, too many more.", "Save it again, without compression.")


def check_zip(what: str, archive: Path | BinaryIO) -> None:
    """Apply `check_unpacked` to a zip archive, by its stated sizes; others are ignored. Raises what `zipfile` raises for a damaged one."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
        packed_bytes = archive.stat().st_size if isinstance(archive, Path) else archive.seek(0, io.SEEK_END)
        check_unpacked(what, packed_bytes, sum(member.file_size for member in members))


def check_operators(what: str, count: int) -> None:
    """Raise `UserError` for more operators than can be imported in minutes."""
    if count > MOST_OPERATORS:
        many = f"{count:,}" if count < 10**15 else "countless"
        raise UserError(f"{what} has {many} operators, functions inlined: more than {MOST_OPERATORS:,}.", _SMALLER)


def check_window(what: str, name: str, numbers: Iterable[Any], least: int = 0) -> None:
    """Raise `UserError` for a size, step, gap or padding of windows that is below `least`, or that would make indices overflow."""
    for number in numbers:
        if not isinstance(number, int) or not least <= number <= MOST_WINDOW:
            raise UserError(f"{what} has {name} {shown(number)}, not a number from {least} to {MOST_WINDOW:,}.", "Export it again.")


def check_batch(what: str, images: int, operators: int) -> None:
    """Raise `UserError` for a batch that needs more calls than can be planned and compiled in minutes: images are computed one by one."""
    most = min(MOST_IMAGES, max(1, MOST_CALLS // max(operators, 1)))
    if images > most:
        raise UserError(
            f"{what} takes a batch of {images:,}, which is computed image by image, and {most} is the most.",
            f"Compile it with --batch {most} or less, and run the library several times.",
        )


def check_module(what: str, module: Any, macs: int) -> None:
    """Raise `UserError` for a Relax module with a tensor, a window, a batch or a number of multiply-adds beyond the limits."""
    from tvmmobile.graph.passes.split_batch import batches_of

    main = module["main"]
    bindings = bindings_of(main)
    check_operators(what, len(bindings))
    for binding in bindings:
        name = operator_of(binding.value).removeprefix("relax.")
        for shape in _shapes(binding.value.ty):
            check_elements(f"{what}: a result of {name or 'an operator'}", shape)
        if name.startswith("nn."):
            for field, least in _LEAST.items():
                if (numbers := getattr(binding.value.attrs, field, None)) is not None:
                    check_window(f"{what}: {name.removeprefix('nn.')}", field, map(int, numbers), least)
    if macs > MOST_MACS:
        raise UserError(f"{what} needs {macs:.1e} multiply-adds for one run, more than {MOST_MACS:.0e}.", _SMALLER)
    for images in batches_of(main):
        check_batch(what, images, len(bindings))


#: Attributes of Relax's window operators, each with its smallest valid value; negative padding crops the image.
_LEAST = {"strides": 1, "dilation": 1, "pool_size": 1, "padding": 0, "output_padding": 0, "pad_width": -MOST_WINDOW}


def _shapes(kind: Any) -> list[list[int]]:
    """Return the static shapes of a tensor's type, or of the tensors in a tuple's."""
    import tvm

    if isinstance(kind, tvm.ir.TupleType):
        return [shape for field in kind.fields for shape in _shapes(field)]
    extents = getattr(getattr(kind, "shape", None), "values", None)
    if extents is None or not all(isinstance(extent, int | tvm.tirx.IntImm) for extent in extents):
        return []
    return [[int(extent) for extent in extents]]


def _times(extents: Sequence[int]) -> str:
    return "×".join(map(shown, extents[:8])) + ("×…" if len(extents) > 8 else "")
