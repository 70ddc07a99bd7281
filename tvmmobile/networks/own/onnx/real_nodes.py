"""New nodes of an ONNX network whose integers become the real numbers they represent, see `onnx/quantised.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import GraphProto, helper, numpy_helper

from tvmmobile.graph.integers import LOWEST
from tvmmobile.graph.layers import Array
from tvmmobile.networks.own.onnx.tensors import Nodes, rename
from tvmmobile.networks.quantised import WeightScales
from tvmmobile.system.errors import UserError

#: Types of integers, and what is subtracted from their zero points and bounds.
SHIFTS = {"int8": 0, "uint8": 128, "int16": 0, "uint16": 0}
#: Types of inputs, by their numbers in ONNX.
_INPUTS = {2: "uint8", 3: "int8"}


@dataclass(frozen=True)
class IntegerGrid:
    """A tensor's scale, zero point and bounds, and whether its 8-bit integers are unsigned in the file."""

    scale: np.float32
    zero: int
    low: int
    high: int
    unsigned: bool

    @property
    def shown(self) -> int:
        """The zero point in the file."""
        return self.zero - LOWEST * self.unsigned

    def real(self, integers: Array) -> Array:
        """Dequantise integers as the file has them, to float32."""
        return (integers.astype(np.float32) - self.shown) * self.scale


class RealNodes(Nodes):
    """The nodes of a graph while integers become real numbers."""

    def __init__(self, graph: Any, opset: int) -> None:
        super().__init__()
        self.opset, self.weights = opset, WeightScales()
        #: Constants of the file.
        self.known: dict[str, Array] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        #: Scale and zero point of each tensor that held integers; its name holds real numbers now.
        self.grids: dict[str, IntegerGrid] = {}
        #: Names of tensors that held integers, and hold real numbers of the same value now.
        self.numbers: set[str] = set()
        #: Names of dequantised tensors in the file, and of what has their values.
        self.same: dict[str, str] = {}
        #: Names of what was made of constants and inputs.
        self.dequantised: dict[tuple[object, ...], str] = {}
        self.results = {value.name for value in graph.output}
        #: Types of inputs that are integers.
        inputs = {value.name: _INPUTS.get(value.type.tensor_type.elem_type, "") for value in graph.input if value.name not in self.known}
        self.entries = {name: kind for name, kind in inputs.items() if kind}

    def within(self) -> RealNodes:
        """Return the nodes of a graph inside."""
        return RealNodes(GraphProto(), self.opset)

    def leave(self, value: Any) -> None:
        """Append the conversion of an output that has to hold integers."""
        name, kind = value.name, value.type.tensor_type.elem_type
        dtype = str(np.dtype(helper.tensor_dtype_to_np_dtype(kind))) if kind else ""
        if dtype not in SHIFTS or name not in self.grids | dict.fromkeys(self.numbers):
            return
        shown = f"{name}/real"
        rename(self.nodes, {name: shown})
        self.subject = f"{name}/"
        if name in self.grids:
            grid = self.grids[shown] = self.grids[name]
            shift = grid.shown - grid.zero
            shown = self.emit("Max", [self.placed(shown), self.real(grid.low + shift)])
            shown = self.emit("Min", [shown, self.real(grid.high + shift)])
        self.cast(shown, dtype, name)

    def whole(self, tensor: str, zero: str = "") -> str | None:
        """Return the name of a tensor's integers less their zero point, in float32; `None` if its grid is another one."""
        grid = self.grids.get(tensor)
        if grid is None or (zero and not self._reads_zero(grid, zero)):
            return None
        return self.emit("Round", [self.emit("Div", [tensor, self.real(grid.scale)])])

    def placed(self, tensor: str) -> str:
        """Return the name of the integers of a tensor on a grid, with the zero point in the file, in float32."""
        whole = self.whole(tensor)
        assert whole is not None
        return self.emit("Add", [whole, self.real(self.grids[tensor].shown)])

    def rounded(self, source: str, output: str, grid: IntegerGrid) -> bool:
        """Append the rounding of a tensor."""
        scale, zero, low, high = map(self.real, (grid.scale, grid.zero, grid.low, grid.high))
        for operator, operands in (("Div", [scale]), ("Round", []), ("Add", [zero]), ("Max", [low]), ("Min", [high]), ("Sub", [zero])):
            source = self.emit(operator, [source, *operands])
        self.emit("Mul", [source, scale], output)
        self.grids[output] = grid
        return True

    def grid(self, scale: str, zero: str, kind: str = "uint8") -> IntegerGrid | None:
        """Return the grid of a scale and a zero point; `None` unless each is one constant.

        Args:
            kind: type of integers without a zero point.
        """
        if scale not in self.known or (zero and zero not in self.known):
            return None
        step, place = self.known[scale], self.known[zero] if zero else np.zeros((), kind)
        if step.size != 1 or place.size != 1 or step.dtype != np.float32 or str(place.dtype) not in SHIFTS:
            return None
        if not (np.isfinite(step).all() and (step > 0).all()):
            raise UserError(f"the network has a scale that is not a positive number: {scale} is {step.item():g}.", "Quantise it again.")
        shift, bounds = SHIFTS[str(place.dtype)], np.iinfo(place.dtype)
        return IntegerGrid(
            np.float32(step.item()), int(place.item()) - shift, int(bounds.min) - shift, int(bounds.max) - shift, bool(shift)
        )

    def reals(self, names: Sequence[str], axis: int, block: int = 0) -> str | None:
        """Return the name of an integer tensor's real numbers; `None` if its scale or zero point is not one constant, or it is not known.

        Args:
            names: names of the tensor, its scale and zero point.
            axis: axis along which a constant has several scales.
            block: places of the axis that share a scale; 0 for one place.
        """
        tensor, scale, zero = key = tuple(names)
        if key not in self.dequantised:
            grid, step = self.grids.get(tensor), self.known.get(scale)
            if tensor in self.entries:
                if (entered := self.grid(scale, zero, self.entries[tensor])) is None:
                    return None
                shown = entered.zero + SHIFTS[self.entries[tensor]]
                real = self.emit("Sub", [self.cast(tensor, np.float32), self.real(shown)])
                self.dequantised[key] = self.emit("Mul", [real, self.real(entered.scale)])
                self.grids[self.dequantised[key]] = entered
            elif grid is not None:
                if (read := self.grid(scale, zero, "uint8" if grid.unsigned else "int8")) is None:
                    return None
                if (read.scale, read.zero) == (grid.scale, grid.zero):
                    return tensor
                moved = self.emit("Sub", [self.placed(tensor), self.real(read.shown)])
                self.dequantised[key] = self.emit("Mul", [moved, self.real(read.scale)])
                self.grids[self.dequantised[key]] = replace(grid, scale=read.scale, zero=read.zero)
            elif tensor in self.known and step is not None and (not zero or zero in self.known):
                zeros = self.known[zero] if zero else np.zeros((), np.int64)
                self.dequantised[key] = self.constant(self.weights.dequantise(self.known[tensor], step, zeros, axis, block))
            else:
                return None
        return self.dequantised[key]

    def _reads_zero(self, grid: IntegerGrid, zero: str) -> bool:
        place = self.known.get(zero)
        return place is not None and place.size == 1 and int(place.item()) - SHIFTS.get(str(place.dtype), 0) == grid.zero
