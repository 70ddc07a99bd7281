"""Shared by the translators of LiteRT's operators: ONNX nodes and constants, and the order of their tensors' dimensions.

Images have their channels last in LiteRT and in front in ONNX. Images between operators have their channels in front, and are transposed
only where an operator needs the order in memory (`RESHAPE`). Tensors of integers become `QuantizeLinear` and `DequantizeLinear` around the
operator in float32, as in quantised ONNX networks; LiteRT's own kernels scale sums by a 31-bit multiplier, so that one value in
thousands differs by one step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.networks.own.litert.reader import LiteRtNetwork, LiteRtOperator, LiteRtTensor, QuantisationParameters
from tvmmobile.networks.own.onnx.tensors import Nodes
from tvmmobile.system.errors import UserError

#: The remedy at the end of messages that refuse an operator.
SIMPLER = "Convert the network without it."
#: The dimensions of an image with its channels last in the order with channels in front, and the other way round. The second also has the
#: place in front of each dimension of the first.
TO_FRONT, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
#: Activations that are part of another operator (`ActivationFunctionType`): none, ReLU, -1 to 1, ReLU6, tanh.
_ACTIVATIONS: Mapping[int, tuple[str, tuple[float, ...]] | None] = {
    0: None,
    1: ("Relu", ()),
    2: ("Clip", (-1.0, 1.0)),
    3: ("Clip", (0.0, 6.0)),
    4: ("Tanh", ()),
}


class Translation(Nodes):
    """The ONNX nodes for the operators of a network, made one after another."""

    def __init__(self, network: LiteRtNetwork) -> None:
        super().__init__()
        self.network = network
        self.is_open = any(tensor.open for tensor in network.tensors) or _leaves_products_open(network)
        #: Names of the real numbers of a tensor, and whether channels are in front; complex ones are pairs along one more dimension.
        self.names: dict[int, tuple[str, bool]] = {}
        #: Padded images by number: the number of the image inside, and ONNX's `pads` of height and width.
        self.padded: dict[int, tuple[int, list[int]]] = {}
        #: Tensors that the file leaves undefined, and constants that are computed from shapes.
        self.known: dict[int, LiteRtTensor] = {}
        #: Types and shapes of what nodes read and return, as far as they are known, where the file leaves extents open.
        self.described: dict[str, Any] = {}
        self._kept: dict[tuple[object, ...], str] = {}

    def tensor(self, number: int) -> LiteRtTensor:
        """Return the file's tensor of this number."""
        return self.known.get(number) or self.network.tensors[number]

    def is_constant(self, number: int) -> bool:
        """Return whether an operand is a constant, perhaps one that is computed from shapes, or omitted."""
        return number < 0 or self.tensor(number).value is not None

    def is_whole(self, number: int) -> bool:
        """Return whether a tensor holds plain integers rather than quantised real numbers."""
        tensor = self.tensor(number)
        return tensor.grid is None and tensor.dtype is not None and tensor.dtype.kind in "iu"

    def gains_dimension(self, number: int) -> bool:
        """Return whether a number without dimensions is read with one, as constants are unless they are whole."""
        return number >= 0 and not self.tensor(number).shape and self.is_constant(number) and not self.is_whole(number)

    def value(self, number: int) -> Array:
        """Return a constant of the file; raise `UserError` where it is computed."""
        found = self.tensor(number).value if number >= 0 else None
        if found is None:
            name = self.tensor(number).name if number >= 0 else "a tensor"
            raise UserError(f"the network computes {name}, which must be a constant.", SIMPLER)
        return found

    def real_value(self, number: int) -> Array:
        """Return the real numbers of a constant of the file; raise `UserError` where it is computed."""
        self.value(number)
        return self.tensor(number).real_numbers()

    def axes(self, number: int, rank: int) -> list[int]:
        """Return a constant of dimensions, counted from the first one."""
        return [int(axis) % rank for axis in np.ravel(self.value(number))]

    def weight(self, number: int, order: Sequence[int]) -> str:
        """Return a constant's real numbers with its dimensions in another order; missing leading ones have extent 1."""
        array, grid, rank = self.value(number), self.tensor(number).grid, len(order)
        if grid is not None and grid.scales.size > 1:
            grid = replace(grid, axis=order.index((grid.axis - array.ndim) % rank))
        array = array.reshape((1,) * (rank - array.ndim) + array.shape)
        whole = array.dtype.kind in "iu" and grid is None  # such as a shape; others get a dimension if they have none
        return self._real_numbers(np.array(array.transpose(order), order="C", ndmin=0 if whole else 1), grid)

    def _real_numbers(self, array: Array, grid: QuantisationParameters | None) -> str:
        """Return the name of a constant in float32, or of its integers if it is on no grid."""
        if array.dtype.kind == "f":
            return self.constant(array.astype(np.float32))
        if grid is None:
            return self.constant(array)
        along: dict[str, Any] = {"axis": grid.axis} if grid.scales.size > 1 else {}
        return self.emit("DequantizeLinear", [self.constant(array), *self.steps(grid, array.dtype)], **along)

    def steps(self, grid: QuantisationParameters, dtype: Any) -> tuple[str, str]:
        """Return the names of a grid's scale and zero point, the latter in a type."""
        shape = () if grid.scales.size == 1 else grid.scales.shape
        return self.constant(grid.scales.reshape(shape)), self.constant(grid.zeros.astype(dtype).reshape(shape))

    def read(self, number: int, front: bool) -> str:
        """Return the name of a tensor's real numbers, channels in front or last if it is an image.

        In front, constants of fewer dimensions get those of an image that are missing.
        """
        tensor = self.tensor(number)
        if number in self.padded and number not in self.names:
            data, (top, left, bottom, right) = self.padded[number]
            pads = self.integers(0, 0, top, left, 0, 0, bottom, right)
            self.names[number] = self.emit("Pad", [self.read(data, True), pads]), True
        if number not in self.names:
            order = TO_FRONT if front and len(tensor.shape) <= 4 else range(len(tensor.shape))
            return self._once(("constant", number, front), lambda: self.weight(number, order))
        name, is_front = self.names[number]
        if len(tensor.shape) != 4 or is_front == front:
            return name
        return self._once((name, front), lambda: self.emit("Transpose", [name], perm=TO_FRONT if front else TO_LAST))

    def as_it_is(self, number: int) -> tuple[str, bool]:
        """Return the name of a tensor's real numbers, and whether channels come first."""
        return self.names[number] if number in self.names else (self.read(number, False), False)

    def in_order(self, number: int) -> str:
        """Return the name of a tensor's real numbers in the file's order, which an image of one pixel always has."""
        shape = self.tensor(number).shape
        one_pixel = len(shape) == 4 and shape[1:3] == (1, 1) and number in self.names
        return self.names[number][0] if one_pixel else self.read(number, False)

    def _once(self, key: tuple[object, ...], make: Callable[[], str]) -> str:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def write(self, number: int, name: str, front: bool, source: int | None = None) -> None:
        """Set the real numbers of a tensor of the network; they are rounded unless its integers are those of `source`."""
        tensor = self.tensor(number)
        if tensor.grid is not None and not (source is not None and same_grid(tensor, self.tensor(source))):
            steps = self.steps(tensor.grid, tensor.dtype)
            name = self.emit("DequantizeLinear", [self.emit("QuantizeLinear", [name, *steps]), *steps])
        self.names[number] = name, front

    def activated(self, name: str, operator: LiteRtOperator) -> str:
        """Apply the activation that is part of an operator, if it has one."""
        fused = getattr(operator.options, "fusedActivationFunction", 0)
        if fused not in _ACTIVATIONS:
            raise UserError(f"the network has activation {fused}, which is not supported.", SIMPLER)
        found = _ACTIVATIONS[fused]
        return name if found is None else self.emit(found[0], [name, *map(self.real, found[1])])


def _leaves_products_open(network: LiteRtNetwork) -> bool:
    """Return whether some first dimension is a multiple of an open batch, such as a number of frames: the file has 1 there, too."""
    pairs = [(operator.inputs[0], operator.outputs[0]) for operator in network.operators if operator.kind == "RESHAPE"]
    return any(math.prod(network.tensors[one].shape) != math.prod(network.tensors[other].shape) for one, other in pairs)


#: Appends ONNX's nodes in place of an operator.
Translator = Callable[[Translation, LiteRtOperator], None]


def same_grid(one: LiteRtTensor, other: LiteRtTensor) -> bool:
    """Return whether two tensors are stored alike: on the same grid of integers, or neither on a grid."""
    if one.grid is None or other.grid is None:
        return one.grid is other.grid
    return (
        one.dtype == other.dtype and np.array_equal(one.grid.scales, other.grid.scales) and np.array_equal(one.grid.zeros, other.grid.zeros)
    )
