"""Relax networks written by hand, NHWC, and what they compute by PyTorch, operator by operator: nothing is compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tvm import relax

Array = np.ndarray[Any, Any]


class Written:
    """Operators for a `relax.BlockBuilder` within a function; weights are random."""

    def __init__(self, builder: Any) -> None:
        self.emit = builder.emit
        self._random = np.random.default_rng(0)

    def constant(self, *shape: int) -> Any:
        return relax.const(self._random.normal(0.0, 1.0, shape).astype(np.float32))

    def conv(self, data: Any, outputs: int, kernel: int = 1, groups: int = 1) -> Any:
        """With bias and ReLU; pixels stay as many."""
        weight = self.constant(kernel, kernel, channels(data) // groups, outputs)
        padding = [kernel // 2] * 4
        product = self.emit(relax.op.nn.conv2d(data, weight, 1, padding, 1, groups, "NHWC", "HWIO"))
        total = self.emit(relax.op.add(product, self.constant(1, 1, 1, outputs)))
        return self.emit(relax.op.maximum(total, relax.const(0.0)))

    def shuffle(self, data: Any, groups: int) -> Any:
        """Return the channels of the groups taken in turn, as it is imported."""
        _, height, width, count = shape_of(data)
        data = self.emit(relax.op.permute_dims(data, [0, 3, 1, 2]))
        data = self.emit(relax.op.reshape(data, (1, groups, count // groups, height, width)))
        data = self.emit(relax.op.permute_dims(data, [0, 2, 1, 3, 4]))
        data = self.emit(relax.op.reshape(data, (1, count, height, width)))
        return self.emit(relax.op.permute_dims(data, [0, 2, 3, 1]))

    def part(self, data: Any, first: int, last: int) -> Any:
        return self.emit(relax.op.strided_slice(data, [3], [first], [last]))

    def join(self, *parts: Any) -> Any:
        return self.emit(relax.op.concat(list(parts), 3))

    def add(self, one: Any, other: Any) -> Any:
        return self.emit(relax.op.add(one, other))


def shape_of(data: Any) -> list[int]:
    return [int(extent) for extent in data.ty.shape]


def channels(data: Any) -> int:
    return shape_of(data)[3]


def values_of(module: Any, image: Array) -> Array:
    """Return the result of `main`."""
    main = module["main"]
    values = {main.params[0]: torch.from_numpy(image)}
    for block in main.body.blocks:
        for binding in block.bindings:
            values[binding.var] = _value(binding.value, values)
    result: Array = values[main.body.body].numpy()
    return result


def _value(expression: Any, values: dict[Any, torch.Tensor]) -> torch.Tensor:
    if isinstance(expression, relax.Var):
        return values[expression]
    if not isinstance(expression, relax.Call):
        return torch.from_numpy(np.array(expression.value.numpy()))
    name, attrs = expression.op.name.removeprefix("relax."), expression.attrs
    if name == "concat":
        return torch.cat([_value(part, values) for part in expression.args[0].fields], int(attrs.axis))
    data = _value(expression.args[0], values)
    if name == "permute_dims":
        return data.permute([int(axis) for axis in attrs.axes])
    if name == "reshape":
        return data.reshape([int(extent) for extent in expression.ty.shape])
    if name == "strided_slice":
        (axis,), (begin,), (end,) = ([int(number.value) for number in part.fields] for part in expression.args[1:4])
        return data.narrow(axis, begin, end - begin)
    other = _value(expression.args[1], values)
    if name == "nn.conv2d":
        padding = int(attrs.padding[0])
        product = functional.conv2d(data.permute(0, 3, 1, 2), other.permute(3, 2, 0, 1), None, 1, padding, 1, int(attrs.groups))
        return product.permute(0, 2, 3, 1)
    return {"add": torch.add, "maximum": torch.maximum}[name](data, other)
