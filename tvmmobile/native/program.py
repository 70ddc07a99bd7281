"""A lowered network as a straight list of kernel calls: the library's steps, with buffers as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import numpy as np
from tvm import relax

from tvmmobile.graph.bindings import bindings_of
from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.networks.states import State, inputs_but, outputs_but
from tvmmobile.schedules.emit.expansion import NO_EXPANSIONS, Expansion, digest_of
from tvmmobile.system.errors import UserError


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the network, contiguous.

    Attributes:
        kind: the caller's, a constant, or what a kernel writes.
        shape, dtype: its extents and NumPy's name of its elements.
        data: a constant's elements; `None` for the others.
        expansion: way in which `init` makes them, if the file does not hold them.
    """

    kind: Literal["input", "constant", "result"]
    shape: tuple[int, ...]
    dtype: str
    data: Array | None = None
    expansion: Expansion | None = None

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Call:
    """One run of a kernel: `symbol` names its function, `arguments` what it reads and `result` what it writes, as numbers of values."""

    symbol: str
    arguments: tuple[int, ...]
    result: int


@dataclass(frozen=True)
class Program:
    """The calls in execution order.

    Attributes:
        values: every tensor once; a reshaped one is the same.
        placed: value that each part of a placed concatenation, or placed slice, lies in, and its offset there in bytes.
        inputs, outputs: numbers of the caller's tensors, in the caller's order.
        states: numbers of the tensors that are kept between calls: as a call finds it, and the next one that it writes.
        functions: a TIR function for every symbol that is called.
    """

    values: tuple[Value, ...]
    placed: Mapping[int, tuple[int, int]]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    states: tuple[tuple[int, int], ...]
    calls: tuple[Call, ...]
    functions: Mapping[str, Any]

    def place_of(self, value: int) -> tuple[int, int]:
        """Return the value whose memory a value lies in, itself if it is not placed, and its offset there in bytes."""
        offset = 0
        while value in self.placed:
            value, distance = self.placed[value]
            offset += distance
        return value, offset


def read_program(module: Any, states: Sequence[State] = (), expansions: Mapping[bytes, Expansion] = NO_EXPANSIONS) -> Program:
    """Read `main` of a module that `graph.lowering.lower` returned; `UserError` for an output that no kernel writes.

    Args:
        module: the network.
        states: tensors that its library keeps between calls.
        expansions: ways in which `init` makes constants, by `digest_of` them.
    """
    reader = _Reader(expansions)
    main = module["main"]
    reader.inputs.extend(reader.added(parameter, "input") for parameter in main.params)
    for binding in bindings_of(main):
        reader.bind(binding.var, binding.value)
    result = main.body.body
    outputs = tuple(reader.number(field) for field in getattr(result, "fields", [result]))
    if len(set(outputs)) < len(outputs) or any(reader.values[output].kind != "result" for output in outputs):
        raise UserError(
            "an output of the network is one of its inputs, a constant, or another output.", "Leave it out, or compile with --format vm."
        )
    functions = {call.symbol: module[call.symbol] for call in reader.calls}
    kept = tuple((reader.inputs[state.input], outputs[state.output]) for state in states)
    ends = inputs_but(states, reader.inputs), outputs_but(states, outputs)
    return Program(tuple(reader.values), reader.placed, *ends, kept, tuple(reader.calls), functions)


class _Reader:
    """Numbers the values of `main` while its bindings are read."""

    def __init__(self, expansions: Mapping[bytes, Expansion]) -> None:
        self.expansions = expansions
        self.values: list[Value] = []
        self.inputs: list[int] = []
        self.calls: list[Call] = []
        self.placed: dict[int, tuple[int, int]] = {}
        self._numbers: dict[Any, int] = {}

    def added(self, variable: Any, kind: Literal["input", "result"]) -> int:
        """Add a value for a variable."""
        shape = tuple(shape_of(variable))
        self.values.append(Value(kind, shape, str(variable.ty.dtype)))
        self._numbers[variable] = len(self.values) - 1
        return len(self.values) - 1

    def number(self, expression: Any) -> int:
        """Return the value of a variable, or of a constant."""
        if isinstance(expression, relax.Var):
            return self._numbers[expression]
        data = expression.value.numpy()
        expansion = self.expansions.get(digest_of(data)) if self.expansions else None
        self.values.append(Value("constant", data.shape, str(data.dtype), data, expansion))
        return len(self.values) - 1

    def bind(self, variable: Any, value: Any) -> None:
        """Read one binding: a kernel's call, a placed concatenation or slice, a view, or another name."""
        name = operator_of(value)
        if name == "relax.call_tir":
            arguments = tuple(self.number(argument) for argument in value.args[1].fields)
            self.calls.append(Call(value.args[0].name_hint, arguments, self.added(variable, "result")))
        elif name == "relax.concat":
            self._place(list(map(self.number, value.args[0].fields)), self.added(variable, "result"))
        elif name == "relax.strided_slice":
            self._place_slice(value, self.added(variable, "result"))
        elif name == "relax.reshape":
            self._numbers[variable] = self.number(value.args[0])
        elif isinstance(value, relax.Call):
            raise AssertionError(f"{name or value.op} is neither a kernel nor a view")
        else:
            self._numbers[variable] = self.number(value)

    def _place(self, parts: Sequence[int], whole: int) -> None:
        """Place the parts of a concatenation one behind the other in the result."""
        assert all(self.values[part].kind == "result" and part not in self.placed for part in parts) and len({*parts}) == len(parts)
        ends = accumulate((self.values[part].bytes for part in parts), initial=0)
        self.placed.update((part, (whole, begin)) for part, begin in zip(parts, ends, strict=False))

    def _place_slice(self, call: Any, part: int) -> None:
        """Place a slice along the outermost axis of its source there."""
        axis, first = (int(numbers.fields[0].value) for numbers in call.args[1:3])
        whole = self.number(call.args[0])
        self.placed[part] = whole, self.values[whole].bytes // shape_of(call.args[0])[axis] * first
