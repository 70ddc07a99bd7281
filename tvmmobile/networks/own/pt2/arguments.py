"""Checks the operators of a serialised program against PyTorch's own signatures: its reader takes arguments of any kind.

Also has the program run on the processor: one that was exported on a GPU says so of every tensor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tvmmobile.networks.budget import check_constants, check_elements, check_operators, check_window
from tvmmobile.networks.frontend import refuse_operators
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.pt2.dimensions import mapped
from tvmmobile.networks.own.pt2.quantised import register_operators
from tvmmobile.networks.torch_selection import register_selection
from tvmmobile.system.errors import UserError, shown

_ATEN = "torch.ops."
#: Devices whose tensors are in memory that a processor's may be in as well.
_MOVED = {"cuda", "mps", "xpu", "hip", "mtia", "xla", "npu", "hpu"}
#: Integers of PyTorch.
_LARGEST = 2**63
#: Arguments that describe windows, with the least that each may be.
_WINDOWS = {"kernel_size": 1, "stride": 1, "dilation": 1, "padding": 0, "output_padding": 0}
_NUMBER = ("as_int", "as_float", "as_bool", "as_sym_int", "as_sym_float", "as_sym_bool", "as_complex")
#: Kinds of serialised arguments by the type in a signature, with those that PyTorch converts to it. An empty list is written as one of
#: integers.
_KINDS: Mapping[str, tuple[str, ...]] = {
    "Tensor": ("as_tensor", *_NUMBER),
    "int": ("as_int", "as_bool", "as_sym_int"),
    "float": ("as_float", "as_int", "as_bool", "as_sym_float", "as_sym_int"),
    "number": _NUMBER,
    "bool": ("as_bool", "as_sym_bool"),
    "str": ("as_string",),
    "ScalarType": ("as_scalar_type",),
    "Layout": ("as_layout",),
    "Device": ("as_device",),
    "MemoryFormat": ("as_memory_format",),
    "List[int]": ("as_ints", "as_sym_ints", "as_int", "as_sym_int"),
    "List[float]": ("as_floats", "as_sym_floats", "as_ints"),
    "List[number]": ("as_ints", "as_floats", "as_bools"),
    "List[bool]": ("as_bools", "as_ints"),
    "List[str]": ("as_strings", "as_ints"),
    "List[Tensor]": ("as_tensors", "as_ints"),
    "List[Optional[Tensor]]": ("as_optional_tensors", "as_tensors", "as_ints"),
}
_INFINITE = ("Infinity", "-Infinity", "NaN")
#: Checks that a value is of its kind; lists of a kind hold such values.
_IS: Mapping[str, Callable[[Any], bool]] = {
    "as_int": lambda value: type(value) is int and -_LARGEST <= value < _LARGEST,
    "as_float": lambda value: type(value) in (int, float) or value in _INFINITE,
    "as_bool": lambda value: isinstance(value, bool),
    "as_string": lambda value: isinstance(value, str),
    **dict.fromkeys(("as_scalar_type", "as_layout", "as_memory_format"), lambda value: type(value) is int),
    "as_tensor": lambda value: isinstance(value, dict) and isinstance(value.get("name"), str),
}


def check_arguments(file: OwnFile, program: Any, fix: str) -> None:
    """Check nodes, extents of tensors and windows.

    Raises:
        UserError: an operator is unknown, lacks an argument or has one of another kind, or a tensor or window is beyond the limits.
        AttributeError, LookupError, TypeError, ValueError: it is no serialised program.
    """
    graph = program["graph_module"]["graph"]
    check_operators(str(file), len(graph["nodes"]))
    for name, tensor in graph["tensor_values"].items():
        check_elements(f"{file}: the tensor {name!r}", [size["as_int"] for size in tensor["sizes"]])
    refuse_operators(
        str(node["target"]) for node in graph["nodes"] if node["target"].startswith(_ATEN) and signature(node["target"]) is None
    )
    for node in graph["nodes"]:
        if (arguments := signature(node["target"])) is not None:
            _check_node(file, node, arguments, fix)


def check_weights(file: OwnFile, config: Any) -> None:
    """Raise `UserError` for weights with extents beyond the limits; other errors as `check_arguments`."""
    total = 0
    for name, payload in config.items():
        if (tensor := payload.get("tensor_meta")) is not None:
            sizes = [size["as_int"] for size in tensor["sizes"]]
            check_elements(f"{file}: the weight {name!r}", sizes)
            total += functools.reduce(lambda one, other: one * other, sizes, 1)
    check_constants(str(file), total)


@functools.cache
def signature(target: str) -> tuple[tuple[str, str, bool], ...] | None:
    """Return an operator's arguments: names, types, whether each is needed; `None` unless it is a PyTorch operator's overload."""
    if not target.startswith(_ATEN):
        return None
    register_operators()
    register_selection()
    library, _, rest = target.removeprefix(_ATEN).partition(".")
    name, _, overload = rest.partition(".")
    try:
        found = torch._C._jit_get_schemas_for_operator(f"{library}::{name}")
    except RuntimeError:  # there is no such operator
        return None
    schema = next((one for one in found if (one.overload_name or "default") == overload), None)
    if schema is None:
        return None
    return tuple((argument.name, str(argument.real_type), not argument.has_default_value()) for argument in schema.arguments)


def _check_node(file: OwnFile, node: Any, arguments: tuple[tuple[str, str, bool], ...], fix: str) -> None:
    what, given = node["target"].removeprefix(_ATEN), {one["name"]: one["arg"] for one in node["inputs"]}
    for name, kind, needed in arguments:
        if name not in given:
            if needed:
                raise UserError(f"{file}: {what} lacks its argument {name}.", fix)
        elif not _fits(given[name], kind):
            raise UserError(f"{file}: the argument {name} of {what} is {shown(given[name])}, not {kind}.", fix)
        elif name in _WINDOWS:
            numbers = [*([given[name]["as_int"]] if "as_int" in given[name] else ()), *(given[name].get("as_ints") or ())]
            check_window(f"{file}: {what}", name, numbers, _WINDOWS[name])


def _fits(given: Any, kind: str) -> bool:
    """Return whether a serialised argument fits a signature's type; types that are not in the table are left to PyTorch."""
    if kind.startswith("Optional["):
        return "as_none" in given or _fits(given, kind.removeprefix("Optional[").removesuffix("]"))
    if kind not in _KINDS:
        return True
    if len(given) != 1 or (key := next(iter(given))) not in _KINDS[kind]:
        return False
    value = given[key]
    if key == "as_ints" and kind not in ("List[int]", "List[float]", "List[number]"):
        return bool(value == [])
    if (test := _IS.get(key)) is not None:
        return test(value)
    if (test := _IS.get(key.removesuffix("s"))) is not None:
        return isinstance(value, list) and all(map(test, value))
    return True


def on_processor(file: OwnFile, value: Any) -> Any:
    """Move all tensors of a program or description of weights to the processor's memory; itself if all are there.

    Raises:
        UserError: a tensor is on a device that has no such memory, as `meta`.
    """

    def moved(part: dict[str, Any]) -> Any:
        if part.keys() != {"type", "index"} or part["type"] == "cpu":
            return None
        if part["type"] not in _MOVED:
            raise UserError(f"{file} has tensors on the device {shown(part['type'])}, which holds no numbers.", "Export it on the CPU.")
        return {"type": "cpu", "index": None}

    return mapped(value, moved)
