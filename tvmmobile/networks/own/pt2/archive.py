"""Checks a `.pt2` before PyTorch loads it, so that nothing in the file is executed.

`torch.export.load` unpickles whatever is not stored as plain tensors, loads compiled code, evaluates the text of symbolic dimensions,
imports the modules of containers it does not know and of enumerations among a dictionary's keys, and looks operators up by any name
below `torch`; names go into Python code that it makes from the graph. A network with static shapes needs none of that, so a file with
any of it is refused. Symbolic dimensions become numbers before: see `pt2/dimensions.py`; blocks without gradients or autocasting become
part of the graph: see `pt2/blocks.py`; and arguments are checked against PyTorch's signatures: see `pt2/arguments.py`.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any

import torch
from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

from tvmmobile.networks.budget import check_unpacked, check_zip
from tvmmobile.networks.frontend import refuse_operators
from tvmmobile.networks.own.files import OwnFile, RequestedShape
from tvmmobile.networks.own.pt2 import quantised
from tvmmobile.networks.own.pt2.arguments import check_arguments, check_weights, on_processor
from tvmmobile.networks.own.pt2.blocks import without_blocks
from tvmmobile.networks.own.pt2.dimensions import entries, is_dynamic, known_symbols, with_fixed_dimensions
from tvmmobile.networks.own.pt2.missing_rows import with_greatest_extents
from tvmmobile.networks.own.pt2.numbers import constant_numbers
from tvmmobile.networks.torch_selection import PLACES, SUPPRESSION
from tvmmobile.system.errors import UserError, some_of

_MODEL, _COMPILED, _CONFIG = "models/model.json", "data/aotinductor/", "_config.json"
#: PyTorch's own operators, ours, those of its quantised networks, and the selection of one of several results.
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+|_operator\.getitem"
    rf"|{re.escape(SUPPRESSION)}|{re.escape(PLACES)}"
    rf"|torch\.ops\.{quantised.LIBRARY}\.({'|'.join(map(re.escape, sorted(quantised.OPERATORS)))})"
)
#: Operators of torchvision other than the selection of boxes, which `pt2/missing_rows.py` replaces.
_TORCHVISION = re.compile(r"torch\.ops\.torchvision\.(?!nms\.)\w{1,40}\.\w{1,40}")
_NAME = re.compile(r"[\w.]*")
#: Modules may have any name without a dot in it, which PyTorch puts into its Python code in quotation marks; torchvision's have hyphens.
_PATHS = {"parameter_name", "buffer_name", "tensor_constant_name"}
_PATH = re.compile(r"[\w.-]*")
_CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
_RETURNS = "Have forward take and return tensors, or tuples, lists or dictionaries of them, and export it again."
#: Raised for damaged content by readers of zip archives, JSON and safe pickles, and here where a part is missing or of another kind.
_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    *(pickle.PickleError, struct.error, zipfile.BadZipFile, zlib.error),
)
#: Node arguments other than tensors, numbers, strings, lists of them, and graphs.
_EXECUTED = {"as_custom_obj", "as_operator"}
#: The beginning of operators with graphs of their own.
_HIGHER = "torch.ops.higher_order."
_STRAIGHT = "Export it without torch.autocast, and with torch.where in place of branches that depend on values."


def checked_archive(file: OwnFile, content: bytes, wanted: RequestedShape, fix: str) -> bytes:
    """Check a `.pt2`; return a copy that PyTorch may load, with numbers for dynamic dimensions.

    Args:
        wanted: requested dimensions.
        fix: a way to make a file that can be read.

    Raises:
        UserError: it is damaged, of another kind or too large unpacked, a dimension stays dynamic, or loading it would execute part of it.
    """
    with _refusing_damage(file, fix):
        check_zip(str(file), io.BytesIO(content))  # before PyTorch's reader, which unpacks some members at once
        with PT2ArchiveReader(io.BytesIO(content)) as archive:  # PyTorch's own: two programs may read one archive differently
            names = archive.get_file_names()
            check_unpacked(str(file), len(content), sum(map(archive.archive_file.get_record_size, names)))
            parts = {name: archive.read_bytes(name) for name in names if name.endswith((".json", ".pt"))}
        program = json.loads(parts[_MODEL])
        configs = {name: json.loads(content) for name, content in parts.items() if name.endswith(_CONFIG)}
        pickled = any(payload["use_pickle"] for config in configs.values() for payload in config["config"].values())
    if any(name.startswith(_COMPILED) for name in names):
        raise _refusal(file, "holds compiled code", fix)
    tensors = {name: _plain_tensors(file, part) for name, part in parts.items() if name.endswith(".pt")}
    if pickled or None in tensors.values():
        raise _refusal(file, "holds more than tensors, which would have to be unpickled", fix)
    if any(name.startswith("models/") and name != _MODEL for name in names):
        raise _refusal(file, "holds several programs", fix)
    _refuse_torchvision(file, program)
    with _refusing_damage(file, fix):
        plain = {_MODEL: _plain_program(file, program, wanted, lambda program: _numbers(content, program, configs))}
        _check_program(file, plain[_MODEL], fix)
        check_arguments(file, plain[_MODEL], fix)
        for name, config in configs.items():
            check_weights(file, config["config"])
            plain[name] = on_processor(file, config)
    changed = {name: json.dumps(value).encode() for name, value in plain.items() if value is not {_MODEL: program, **configs}[name]}
    changed |= {name: moved for name, moved in tensors.items() if moved is not None and moved is not parts[name]}
    if not changed:
        return content
    with _refusing_damage(file, fix):  # weights were not read so far
        return _rewritten(content, changed)


@contextmanager
def _refusing_damage(file: OwnFile, fix: str) -> Iterator[None]:
    """Raise `UserError` for a file that is not as PyTorch writes it."""
    try:
        yield
    except _DAMAGE as error:
        raise UserError(f"{file} is damaged or was not written by torch.export.save.", fix) from error


def _refuse_torchvision(file: OwnFile, program: Any) -> None:
    """Raise `UserError` for the operators of another package, such as pooling of regions."""
    targets = {value for name, value in entries(program) if name == "target" and isinstance(value, str)}
    names = sorted(name.removeprefix("torch.ops.") for name in targets if _TORCHVISION.fullmatch(name))
    if names:
        what = f"{file} has operators of torchvision, which PyTorch alone cannot read: {', '.join(names[:8])}."
        raise UserError(what, "Export the network to ONNX, which has operators for them: torch.onnx.export.")


def _plain_program(file: OwnFile, program: Any, wanted: RequestedShape, numbers: Callable[[Any], dict[str, Fraction]]) -> Any:
    """Return the program as one graph on the processor, with `numbers` for dynamic dimensions and values taken from constants."""
    program = without_blocks(on_processor(file, program))
    specs = [value for name, value in entries(program) if name in ("in_spec", "out_spec") and isinstance(value, str)]
    if not all(map(_plain, specs)):
        raise _refusal(file, "takes or returns containers other than tuples, lists and dictionaries", _RETURNS)
    if not is_dynamic(program):
        return program
    return with_fixed_dimensions(file, *with_greatest_extents(file, program, known_symbols(file, program, wanted, numbers(program))))


def _numbers(content: bytes, program: Any, configs: Mapping[str, Any]) -> dict[str, Fraction]:
    """Return the values of the symbols that stand for numbers in stored tensors."""
    folders = {f"{PurePosixPath(name).parent}/": config["config"] for name, config in configs.items()}
    with PT2ArchiveReader(io.BytesIO(content)) as archive:
        return constant_numbers(program, folders, archive.read_bytes)


def _rewritten(content: bytes, changed: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with PT2ArchiveReader(io.BytesIO(content)) as archive, PT2ArchiveWriter(stream) as writer:
        for name in archive.get_file_names():
            if not name.startswith(".data/") and name != "byteorder":  # the writer's own
                writer.write_bytes(name, changed[name] if name in changed else archive.read_bytes(name))
    return stream.getvalue()


def _check_program(file: OwnFile, program: Any, fix: str) -> None:
    found = list(entries(program))
    for name, value in found:
        if name == "as_graph":
            targets = {str(target) for one, target in found if one == "target"}
            names = sorted(target.removeprefix(_HIGHER) for target in targets if target.startswith(_HIGHER))
            what = "holds graphs within its graph, which are branches, loops or blocks of torch.autocast"
            raise _refusal(file, f"{what}: {some_of(names)}" if names else what, _STRAIGHT)
        if name in _EXECUTED or (name == "guards_code" and value):
            raise _refusal(file, f"holds {name}, which would have to be executed", fix)
        named = isinstance(value, str) and (name == "name" or name.endswith("_name"))
        if named and not (_PATH if name in _PATHS else _NAME).fullmatch(value):
            raise _refusal(file, f"holds a name that PyTorch does not give, {value!r}", fix)
    refuse_operators(value for name, value in found if name == "target" and isinstance(value, str) and not _OPERATOR.fullmatch(value))


def _plain(spec: str) -> bool:
    """Return whether a tree has only containers from `_CONTAINERS`, with strings or numbers as keys."""
    try:
        found = list(entries(json.loads(spec)))
        keys = [json.loads(value) for name, value in found if name == "context" and value is not None]
    except (RecursionError, TypeError, ValueError):
        return False
    named = all(one is None or (isinstance(one, list) and all(isinstance(key, str | int) for key in one)) for one in keys)
    return named and all(value in _CONTAINERS for name, value in found if name == "type")


def _plain_tensors(file: OwnFile, content: bytes) -> bytes | None:
    """Return tensors in a form that PyTorch's safe reader, which executes nothing, can read here: GPU tensors move to the processor.
    `None` if there is none: PyTorch would fall back to an unsafe reader.
    """
    try:
        check_zip(str(file), io.BytesIO(content))
    except _DAMAGE:
        return None
    for place in (None, "cpu"):
        with suppress(*_DAMAGE):
            tensors = torch.load(io.BytesIO(content), place, weights_only=True)
            if place is None:
                return content
            saved = io.BytesIO()
            torch.save(tensors, saved)
            return saved.getvalue()
    return None


def _refusal(file: OwnFile, what: str, fix: str) -> UserError:
    return UserError(f"{file} {what}.", fix)
