"""Splits batches into single images: kernels, and their records in the logs, are for one image.

A batch saves a core nothing, because weights stay in its caches within one image anyway. Operators that compute each image by itself are
repeated for each, one image at a time up to the next operator that mixes images. Its input is concatenated, and its output is split again.
The same is done for the parts of a single image that go through convolutions as a batch, as windows for attention do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax

from tvmmobile.graph.bindings import bindings_of
from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.rewriting import MainRewriter, rebuilt

#: Most parts of an image; each has kernel calls of its own.
_MOST_PARTS = 16


def split_batch(module: Any) -> Any:
    """Compute batches of `main` image by image; a network of one image without parts stays as it is."""
    for size in batches_of(module["main"]):
        module = _ImageSplitter(module["main"], size).in_module(module)
    return module


def batches_of(main: Any) -> list[int]:
    """Return the batches that are computed image by image, in ascending order: the inputs', and those of few parts."""
    sizes = {_shape(binding.value.args[0])[0] for binding in bindings_of(main) if _is_convolution(binding.value)}
    given = {extent for parameter in main.params for extent in _shape(parameter)[:1]}
    return sorted(size for size in sizes if size > 1 and (size in given or size <= _MOST_PARTS))


def _is_convolution(value: Any) -> bool:
    return has(value, Trait.CONVOLUTION) or has(value, Trait.TRANSPOSED_CONVOLUTION)


def _shape(value: Any) -> list[int]:
    """Return the shape of a tensor with static extents; empty for other values."""
    return shape_of(value) if isinstance(value.ty, relax.TensorType) and value.ty.ndim > 0 else []


#: Given the arguments of one image, the operator's call for it.
_Call = Callable[[Sequence[Any]], Any]


class _ImageSplitter(MainRewriter):
    """Rewrites `main` so that operators run once per image; `replaced` has variables with all images.

    Attributes:
        parts: new variables for each old one, image by image.
        waiting: bindings that are not computed yet, each for one image at a time.
        split: variables of bindings that are, or were, waiting.
    """

    def __init__(self, main: Any, size: int) -> None:
        super().__init__(main)
        self.size = size
        self.parts: dict[Any, list[Any]] = {}
        self.waiting: list[tuple[Any, Sequence[Any], _Call]] = []
        self.split: set[Any] = set()

    def bind(self, variable: Any, value: Any) -> None:
        """Emit a value of all images, or let it wait."""
        arguments, call = self._of_one(value)
        # A tensor that each image reads whole must be there before any of them is computed.
        if call is not None and not any(isinstance(argument, _SharedArgument) and argument.value in self.split for argument in arguments):
            self.waiting.append((variable, arguments, call))
            self.split.add(variable)
        else:
            super().bind(variable, value)

    def value(self, variable: Any, value: Any) -> Any:
        """Return a value of all images."""
        return rebuilt(value, self.output)

    def output(self, variable: Any) -> Any:
        """Return a variable or constant, of all images."""
        if not isinstance(variable, relax.Var):
            return variable
        if variable not in self.replaced:
            self._compute()
            self.replaced[variable] = self._concatenated(variable)
        return self.replaced[variable]

    def _concatenated(self, variable: Any) -> Any:
        parts = self.parts[variable]
        if isinstance(variable.ty, relax.TensorType):
            return self.builder.emit(relax.op.concat(parts, 0))
        fields = range(len(variable.ty.fields))
        columns = [[self.builder.emit(relax.TupleGetItem(part, place)) for part in parts] for place in fields]
        return self.builder.emit(relax.Tuple([self.builder.emit(relax.op.concat(column, 0)) for column in columns]))

    def _compute(self) -> None:
        """Compute the waiting bindings, image by image."""
        waiting, self.waiting = self.waiting, []
        for image in range(self.size):
            for variable, arguments, call in waiting:
                found = self.builder.emit(call([self._part(argument, image) for argument in arguments]))
                self.parts.setdefault(variable, []).append(found)

    def _part(self, argument: Any, image: int) -> Any:
        """Return the input that an operator of one image reads in place of an argument."""
        if isinstance(argument, _SharedArgument):
            return self.output(argument.value)
        if argument in self.split:
            return self.parts[argument][image]
        known = self.parts.setdefault(argument, [])
        if len(known) <= image:
            known.append(self.builder.emit(relax.op.strided_slice(self.output(argument), [0], [image], [image + 1])))
        return known[image]

    def _of_one(self, value: Any) -> tuple[Sequence[Any], Any]:
        """Return the arguments of an operator that can be computed image by image, and its call for one; no call for other operators."""
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in self.split:
            return [value.tuple_value], lambda given: relax.TupleGetItem(given[0], value.index)
        if not isinstance(value, relax.Call) or not value.args:
            return (), None
        name, data = operator_of(value).removeprefix("relax."), value.args[0]

        def rebuild(given: Sequence[Any]) -> Any:
            return relax.Call(value.op, list(given), value.attrs, value.ty_args)

        if name == "concat":
            fields = list(getattr(data, "fields", ()))
            if int(value.attrs.axis) % max(len(_shape(value)), 1) == 0 or not all(map(self._is_batch, fields)):
                return (), None
            return fields, lambda given: rebuild([relax.Tuple(list(given))])
        if name == "matmul":
            return self._product(value, rebuild)
        if has(value, Trait.ELEMENT_WISE):
            return self._by_element(value, rebuild)
        if not self._is_batch(data):
            return (), None
        rest = [_SharedArgument(argument) for argument in value.args[1:]]
        if name in ("reshape", "broadcast_to"):
            shape, view = _shape(value), getattr(relax.op, name)
            if shape[:1] != [self.size] or (name == "broadcast_to" and len(shape) != len(_shape(data))):
                return (), None
            return [data], lambda given: view(given[0], [1, *shape[1:]])
        return ([data, *rest], rebuild) if has(value, Trait.PER_IMAGE) or self._keeps_images(name, value) else ((), None)

    def _is_batch(self, value: Any) -> bool:
        return isinstance(value, relax.Var) and _shape(value)[:1] == [self.size]

    def _product(self, value: Any, rebuild: _Call) -> tuple[Sequence[Any], Any]:
        """Return a matrix product with images in front of its first operand, or of both."""
        data, other = value.args
        ranks = len(_shape(data)), len(_shape(other))
        if not self._is_batch(data) or ranks[0] < 2 or _shape(value)[:1] != [self.size]:
            return (), None
        if ranks[1] == 2 or (ranks[1] > 2 and _shape(other)[0] == 1):
            return [data, _SharedArgument(other)], rebuild
        return ([data, other], rebuild) if ranks[0] == ranks[1] > 2 and self._is_batch(other) else ((), None)

    def _by_element(self, value: Any, rebuild: _Call) -> tuple[Sequence[Any], Any]:
        """Split an operator by element: operands that hold all images are split; others are the same for each."""
        shape = _shape(value)
        if shape[:1] != [self.size]:
            return (), None
        arguments: list[Any] = []
        for argument in value.args:
            own = _shape(argument) if hasattr(argument, "ty") else []
            if len(own) == len(shape) and own[0] == self.size:
                if not self._is_batch(argument):
                    return (), None
                arguments.append(argument)
            else:
                arguments.append(_SharedArgument(argument))
        return (arguments, rebuild) if any(not isinstance(each, _SharedArgument) for each in arguments) else ((), None)

    def _keeps_images(self, name: str, value: Any) -> bool:
        """Return whether an operator of one tensor leaves the first axis alone."""
        attrs, rank = value.attrs, len(_shape(value.args[0]))
        if has(value, Trait.ALONG_AXIS) or has(value, Trait.ALONG_AXES):
            axes = attrs.axes if has(value, Trait.ALONG_AXES) else attrs.axis
            named = [] if axes is None else [axes] if isinstance(axes, int) else list(axes)
            return bool(named) and all(int(axis) % rank for axis in named)
        if name == "permute_dims":
            return attrs.axes is not None and int(attrs.axes[0]) == 0
        if name == "nn.pad":
            return [int(width) for width in attrs.pad_width[:2]] == [0, 0]
        if name == "strided_slice":
            return all(int(axis.value) % rank for axis in value.args[1].fields)
        if name == "expand_dims":
            return all(int(axis) % (rank + len(attrs.axis)) for axis in attrs.axis)
        return False


class _SharedArgument:
    """An argument that is the same for every image."""

    def __init__(self, value: Any) -> None:
        self.value = value
