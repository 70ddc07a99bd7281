"""Draws an ONNX model around one operator: what it reads, and what follows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tvmmobile.networks.own.onnx.constants import with_shapes

Array = npt.NDArray[Any]
Values = Callable[[np.random.Generator, Sequence[int]], Array]
Option = TypeVar("Option")


class Impossible(Exception):
    """The operator has no such form in this version."""


def normal(random: np.random.Generator, shape: Sequence[int]) -> Array:
    return random.normal(0.0, 1.5, shape)


def positive(random: np.random.Generator, shape: Sequence[int]) -> Array:
    return random.uniform(0.1, 4.0, shape)


def unit(random: np.random.Generator, shape: Sequence[int]) -> Array:
    return random.uniform(-0.95, 0.95, shape)


def halves(random: np.random.Generator, shape: Sequence[int]) -> Array:
    """Multiples of ½, which roundings treat differently."""
    return random.integers(-9, 10, shape) / 2


def small_integers(random: np.random.Generator, shape: Sequence[int]) -> Array:
    return random.integers(-7, 8, shape).astype(np.float64)


def nonzero(random: np.random.Generator, shape: Sequence[int]) -> Array:
    return random.uniform(0.5, 3.0, shape) * random.choice([-1.0, 1.0], shape)


@dataclass
class Draw:
    """A model while it is drawn.

    Attributes:
        opset: version of the standard operators.
        outputs: names of what the operator under test returns.
        feeds: inputs by name.
    """

    operator: str
    opset: int
    random: np.random.Generator
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    feeds: dict[str, Array] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)

    @property
    def since(self) -> int:
        """The operator's own version in this opset."""
        return int(onnx.defs.get_schema(self.operator, self.opset).since_version)

    def chance(self, probability: float = 0.5) -> bool:
        return bool(self.random.random() < probability)

    def integer(self, low: int, high: int) -> int:
        """Return a number from `low` to `high`, both included."""
        return int(self.random.integers(low, high + 1))

    def pick(self, options: Sequence[Option]) -> Option:
        return options[self.integer(0, len(options) - 1)]

    def uniform(self, low: float, high: float) -> float:
        return round(float(self.random.uniform(low, high)), 3)

    def some(self, options: Sequence[Option], least: int = 1) -> list[Option]:
        """Some of the options, in any order."""
        count = self.integer(min(least, len(options)), len(options))
        return [options[int(place)] for place in self.random.permutation(len(options))[:count]]

    def shape(self, low: int = 1, high: int = 5, most: int = 5) -> list[int]:
        """Half of the shapes are images."""
        if low <= 4 <= high and self.chance():
            return self.image()
        return [self.integer(1, most) for _ in range(self.integer(low, high))]

    def image(self, dimensions: int = 2, least: int = 3, most: int = 7) -> list[int]:
        return [self.pick([1, 1, 1, 2]), self.integer(1, 6), *(self.integer(least, most) for _ in range(dimensions))]

    def broadcast(self, shape: Sequence[int]) -> list[int]:
        """Return a shape that broadcasts with this one."""
        shape = list(shape)[self.integer(0, len(shape)) :] if self.chance(0.4) else list(shape)
        return [1 if self.chance(0.3) else extent for extent in shape]

    def name(self, kind: str) -> str:
        return f"{kind}{len(self.nodes) + len(self.constants) + len(self.feeds)}"

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        name = self.name("k")
        self.constants[name] = np.asarray(array, dtype)
        return name

    def integers(self, numbers: Any) -> str:
        return self.constant(numbers, np.int64)

    def weights(self, shape: Sequence[int]) -> str:
        fan = max(1, int(np.prod(shape[1:])))
        return self.constant(self.random.normal(0.0, (2 / fan) ** 0.5, shape))

    def input(self, shape: Sequence[int], values: Values = normal) -> str:
        """Return an input of the network; the operator of a number follows, since networks take no numbers without dimensions."""
        name = self.name("x")
        self.feeds[name] = values(self.random, list(shape) or [1]).astype(np.float32)
        return name if shape else self.node("Reshape", [name, self.integers(np.zeros(0))])

    def data(self, shape: Sequence[int], values: Values = normal, constant: float = 0.0) -> str:
        """Return the operator's operand: an input, or a convolution of one if any values will do; rarely a constant."""
        if self.chance(constant):
            return self.constant(values(self.random, list(shape)))
        if values is not normal or not shape or self.chance(0.4):
            return self.input(shape, values)
        if len(shape) == 4:
            return self.convolved(self.input([shape[0], 3, *shape[2:]]), 3, shape[1])
        count = int(np.prod(shape))
        made = self.convolved(self.input([1, 3, 1, count]), 3, 1)
        return self.node("Reshape", [made, self.integers(shape)])

    def convolved(self, data: str, inputs: int, outputs: int) -> str:
        """Return a 1×1 convolution with a bias, and sometimes an activation."""
        made = self.node("Conv", [data, self.weights([outputs, inputs, 1, 1]), self.constant(self.random.normal(0, 1, outputs))])
        return self.node("LeakyRelu", [made], alpha=0.3) if self.chance(0.2) else made

    def cast(self, name: str, kind: int) -> str:
        return self.node("Cast", [name], to=kind)

    def whole(self, shape: Sequence[int], kind: int = TensorProto.INT64, values: Values = small_integers) -> str:
        """Integers, from an input."""
        return self.cast(self.input(shape, values), kind)

    def booleans(self, shape: Sequence[int]) -> str:
        return self.cast(self.input(shape, lambda random, extents: random.integers(0, 2, extents)), TensorProto.BOOL)

    def node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = self.name("n")
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def apply(self, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> None:
        """The operator under test; attributes that are `None` are left out."""
        given = {key: value for key, value in attributes.items() if value is not None}
        known = onnx.defs.get_schema(self.operator, self.opset).attributes
        if set(given) - set(known):
            raise Impossible(f"{self.operator}-{self.since} has no {sorted(set(given) - set(known))}")
        self.outputs = [f"{self.name('r')}_{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(self.operator, list(inputs), self.outputs, **given))

    def model(self) -> Any:
        """Return the model: every output as float32, sometimes with a convolution behind it; at least one convolution with weights."""
        returned = []
        for name, (kind, shape) in self._types().items():
            shown = name if kind == TensorProto.FLOAT else self.cast(name, TensorProto.FLOAT)
            if not shape:
                shown = self.node("Reshape", [shown, self.integers([1])])
            elif len(shape) == 4 and self.chance():
                shown = self.convolved(shown, shape[1], self.integer(1, 4))
            returned.append(shown)
        if not self.feeds:  # networks read something
            returned.append(self.convolved(self.input([1, 3, 4, 4]), 3, 2))
        if not any(node.op_type in ("Conv", "ConvTranspose") for node in self.nodes):
            returned.append(self.convolved(self.node("Reshape", [returned[0], self.integers([1, 1, 1, -1])]), 1, 2))
        model = self._made(list(dict.fromkeys(returned)))
        if not all(value.type.tensor_type.elem_type and value.type.tensor_type.HasField("shape") for value in model.graph.output):
            raise Impossible(f"ONNX does not infer the type of {self.operator}-{self.since}")
        return model

    def _types(self) -> dict[str, tuple[int, list[int]]]:
        """Element type and shape of each result of the operator; images of unknown size where they are unknown."""
        found = {}
        for value in self._made(self.outputs).graph.output:
            kind = value.type.tensor_type
            extents = [int(extent.dim_value) for extent in kind.shape.dim]
            found[value.name] = (kind.elem_type or TensorProto.FLOAT, extents if kind.HasField("shape") else [0])
        return found

    def _made(self, returned: Sequence[str]) -> Any:
        """Return a model that returns these, with the types that ONNX infers."""
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in self.feeds.items()]
        outputs = [helper.make_empty_tensor_value_info(name) for name in returned]
        constants = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "graph", inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 8 if self.opset < 20 else 10
        return with_shapes(model)
