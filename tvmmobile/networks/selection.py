"""Kernels that sort elements, add them up and select boxes: plain loops, with no schedules to search."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T  # noqa: N812

from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.operators import ORDERS

#: Meaning of a box's four numbers: two opposite corners in any order, the lower corner in front, or centre and size.
Corners = Literal["any", "ordered", "centre"]
#: Larger buffers are in the workspace.
_STACK_BYTES = 1024
#: Tests if an element of a row comes before another one, from their places in it.
_Before = Callable[[Any, Any], Any]


def first_in_order(builder: Any, data: Any, count: int, descending: bool, kind: str = "int64") -> Any:
    """Emit a kernel's call: the places of each row's first `count` elements in order; equal ones keep their order."""
    *outer, size = shape_of(data)

    def body(given: Sequence[Any], result: Any) -> None:
        keys, places, heap = T.buffer_proxy(given[0]), T.buffer_proxy(result), _Heap(size)
        with T.serial(0, math.prod(outer)) as row:

            def before(one: Any, other: Any) -> Any:
                first, second = keys[row * size + one], keys[row * size + other]
                return tirx.any(first > second if descending else first < second, tirx.all(first == second, one < other))

            with T.serial(0, size) as place:
                heap.items[place] = place
            heap.size[0] = T.int32(size)
            heap.make(before)
            with T.serial(0, count) as place:
                places[row * count + place] = T.Cast(kind, heap.items[0])
                heap.drop_first(before)

    loops = partial(_loops, "order", shape=[*outer, count], kind=kind, body=body)
    return builder.emit_te(lambda rows: loops([rows]), data, primfunc_name_hint="order", primfunc_attrs={ORDERS: True})


def running_sums(builder: Any, data: Any, exclusive: bool, kind: str) -> Any:
    """Emit a kernel's call: sums of each row's elements up to each one, or up to the one before it, in this type."""
    *outer, size = shape_of(data)
    wide = "float64" if kind.startswith(("float", "bfloat")) else "int64"

    def body(given: Sequence[Any], result: Any) -> None:
        elements, sums, total = T.buffer_proxy(given[0]), T.buffer_proxy(result), _memory(1, wide)
        with T.serial(0, math.prod(outer)) as row:
            total[0] = tirx.const(0, wide)
            with T.serial(0, size) as step:
                if exclusive:
                    sums[row * size + step] = T.Cast(kind, total[0])
                total[0] = total[0] + T.Cast(wide, elements[row * size + step])
                if not exclusive:
                    sums[row * size + step] = T.Cast(kind, total[0])

    loops = partial(_loops, "cumsum", shape=[*outer, size], kind=kind, body=body)
    return builder.emit_te(lambda rows: loops([rows]), data, primfunc_name_hint="cumsum")


def places_of_true(builder: Any, data: Any) -> Any:
    """Emit a kernel's call: indices `[rank, elements]` of a tensor's nonzero elements, in order, followed by -1."""
    shape = shape_of(data)
    most = math.prod(shape)

    def body(given: Sequence[Any], result: Any) -> None:
        element, places, found = T.buffer_proxy(given[0]), T.buffer_proxy(result), _memory(1, "int32")
        found[0] = T.int32(0)
        with T.serial(0, most) as place, T.If(element[place].astype("bool")), T.Then():
            step = most
            for axis, extent in enumerate(shape):
                step //= extent
                places[axis * most + found[0]] = T.Cast("int64", place // step % extent)
            found[0] = found[0] + 1
        with T.serial(0, most) as place, T.If(place >= found[0]), T.Then():
            for axis in range(len(shape)):
                places[axis * most + place] = T.int64(-1)

    loops = partial(_loops, "places", shape=[len(shape), most], kind="int64", body=body)
    return builder.emit_te(lambda tensor: loops([tensor]), data, primfunc_name_hint="places_of_true")


@dataclass(frozen=True)
class Suppression:
    """Options of `non_max_suppression`. Numbers may also be tensors of one element, as Relax expressions.

    Attributes:
        most: boxes to select of each class of each image.
        overlap: intersection over union of two boxes above which the one with the lower score is left out.
        score: a bound: only boxes with a greater score are selected; `None` selects all.
        corners: the form of the boxes.
    """

    most: Any
    overlap: Any
    score: Any
    corners: Corners = "any"


def most_selected(boxes: Sequence[int], scores: Sequence[int], most: int | None) -> int:
    """Return the number of rows of `non_max_suppression` from shapes; `None` if it is a tensor."""
    return scores[0] * scores[1] * min(boxes[1], boxes[1] if most is None else max(most, 0))


def non_max_suppression(builder: Any, boxes: Any, scores: Any, options: Suppression) -> Any:
    """Emit a kernel's call: indices `[rows, 3]` of images, classes and boxes, by descending score in each class, followed by -1.

    Args:
        boxes: `[images, boxes, 4]`.
        scores: `[images, classes, boxes]`.
    """
    numbers = (options.most, options.overlap, options.score)
    tensors = [number for number in numbers if isinstance(number, relax.Expr)]
    whole = None if isinstance(options.most, relax.Expr) else int(options.most)
    rows = most_selected(shape_of(boxes), shape_of(scores), whole)

    def selected(*given: Any) -> Any:
        def body(read: Sequence[Any], result: Any) -> None:
            left = list(read[2:])
            most, overlap, score = (left.pop(0) if isinstance(number, relax.Expr) else number for number in numbers)
            _select(read[0], read[1], result, Suppression(most, overlap, score, options.corners))

        return _loops("non_max_suppression", given, [rows, 3], "int64", body)

    return builder.emit_te(selected, boxes, scores, *tensors, primfunc_name_hint="non_max_suppression")


def _select(boxes: Any, scores: Any, rows: Any, options: Suppression) -> None:
    """Emit the loops of `non_max_suppression`; numbers of `options` may be buffers."""
    images, classes, count = (int(extent) for extent in scores.shape)
    most = int(rows.shape[0])

    def number(value: Any, kind: str) -> Any:
        return T.buffer_proxy(value)[0] if hasattr(value, "shape") else getattr(T, kind)(value)

    score, row = T.buffer_proxy(scores), T.buffer_proxy(rows)
    heap, overlaps = _Heap(count), _Overlap(boxes, options.corners)
    found, first, which, kept = (_memory(1, "int32") for _ in range(4))
    found[0] = T.int32(0)
    with T.serial(0, images) as image, T.serial(0, classes) as kind:

        def score_of(box: Any, start: Any = (image * classes + kind) * count) -> Any:
            return score[start + box]

        def before(one: Any, other: Any) -> Any:
            return tirx.any(score_of(one) > score_of(other), tirx.all(score_of(one) == score_of(other), one < other))

        first[0] = found[0]
        heap.size[0] = T.int32(0)
        with T.serial(0, count) as box:
            chosen = T.bool(True) if options.score is None else score_of(box) > number(options.score, "float32")
            with T.If(chosen), T.Then():
                heap.items[heap.size[0]] = box
                heap.size[0] = heap.size[0] + 1
        heap.make(before)
        limit = T.min(T.Cast("int64", count), number(options.most, "int64"))
        with T.While(tirx.all(heap.size[0] > 0, T.Cast("int64", found[0] - first[0]) < limit)):
            kept[0] = T.int32(1)
            which[0] = first[0]
            overlaps.begin(image * count + heap.items[0])
            with T.While(tirx.all(which[0] < found[0], kept[0] == 1)):
                overlaps.compare(image * count + T.Cast("int32", row[which[0] * 3 + 2]))
                with T.If(overlaps.share[0] > number(options.overlap, "float32")), T.Then():
                    kept[0] = T.int32(0)
                which[0] = which[0] + 1
            with T.If(kept[0] == 1), T.Then():
                for column, value in enumerate((image, kind, heap.items[0])):
                    row[found[0] * 3 + column] = T.Cast("int64", value)
                found[0] = found[0] + 1
            heap.drop_first(before)
    with T.serial(0, most * 3) as place, T.If(place >= found[0] * 3), T.Then():
        row[place] = T.int64(-1)


class _Heap:
    """A heap of places in a row, the first in order on top, by R. W. Floyd, Algorithm 245 (1964). Emits TIR.

    Attributes:
        items, size: buffers.
    """

    def __init__(self, most: int) -> None:
        self.items = _memory(most, "int32")
        self.size, self._root, self._moved, self._child, self._step = (_memory(1, "int32") for _ in range(5))

    def make(self, before: _Before) -> None:
        """Arrange unordered items as a heap."""
        self._step[0] = self.size[0] // 2
        with T.While(self._step[0] > 0):
            self._step[0] = self._step[0] - 1
            self._root[0] = self._step[0]
            self._moved[0] = self.items[self._root[0]]
            self._sink(before)

    def drop_first(self, before: _Before) -> None:
        """Remove the first item."""
        self.size[0] = self.size[0] - 1
        self._root[0] = T.int32(0)
        self._moved[0] = self.items[self.size[0]]
        self._sink(before)

    def _sink(self, before: _Before) -> None:
        """Sink the moved item from the root until all items above it precede it."""
        child, root = self._child, self._root
        child[0] = root[0] * 2 + 1
        with T.While(child[0] < self.size[0]):
            smaller = before(self.items[child[0] + 1], self.items[child[0]])
            with T.If(child[0] + 1 < self.size[0]), T.Then(), T.If(smaller), T.Then():
                child[0] = child[0] + 1
            with T.If(before(self.items[child[0]], self._moved[0])):
                with T.Then():
                    self.items[root[0]] = self.items[child[0]]
                    root[0] = child[0]
                    child[0] = root[0] * 2 + 1
                with T.Else():
                    child[0] = self.size[0]
        self.items[root[0]] = self._moved[0]


class _Overlap:
    """Intersection over union of one box with others, as ONNX Runtime computes it. Emits TIR.

    Attributes:
        share: a buffer of the last result; 0 where a box has no area.
    """

    def __init__(self, boxes: Any, corners: Corners) -> None:
        self._boxes, self._corners = T.buffer_proxy(boxes), corners
        self._one, self._other = ([_memory(1, "float32") for _ in range(5)] for _ in range(2))
        self.share, self._common = _memory(1, "float32"), _memory(1, "float32")

    def begin(self, box: Any) -> None:
        """Read the box that is compared with others, by its number among those of all images."""
        self._read(self._one, box)

    def compare(self, box: Any) -> None:
        """Compare it with another one."""
        self._read(self._other, box)
        one, other, zero = self._one, self._other, T.float32(0)
        low = [T.max(one[axis][0], other[axis][0]) for axis in (0, 1)]
        high = [T.min(one[axis][0], other[axis][0]) for axis in (2, 3)]
        self.share[0] = zero
        self._common[0] = (high[0] - low[0]) * (high[1] - low[1])
        areas = tirx.all(one[4][0] > zero, other[4][0] > zero)
        inside = tirx.all(tirx.all(high[0] > low[0], high[1] > low[1]), tirx.all(self._common[0] > zero, areas))
        with T.If(inside), T.Then():
            self.share[0] = self._common[0] / (one[4][0] + other[4][0] - self._common[0])

    def _read(self, into: Sequence[Any], box: Any) -> None:
        """Read corners and area."""
        numbers = [self._boxes[box * 4 + place] for place in range(4)]
        for axis in (0, 1):
            one, other = numbers[axis], numbers[axis + 2]
            low, high = one, other
            if self._corners == "centre":
                half = other / T.float32(2)
                low, high = one - half, one + half
            elif self._corners == "any":
                low, high = T.min(one, other), T.max(one, other)
            into[axis][0], into[axis + 2][0] = low, high
        into[4][0] = (into[2][0] - into[0][0]) * (into[3][0] - into[1][0])


def _loops(name: str, read: Sequence[Any], shape: Sequence[int], kind: str, body: Callable[[Sequence[Any], Any], None]) -> Any:
    """Return a tensor that loops compute from buffers of others; all are contiguous."""

    def emitted(inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        with IRBuilder() as loops:
            with T.serial(0, 1):  # around several statements
                body(inputs, outputs[0])
            return loops.get()

    def buffer(extents: Any, dtype: str) -> Any:
        return tirx.decl_buffer(extents, dtype, name, layout=None)

    given = [buffer(tensor.shape, tensor.dtype) for tensor in read]
    result = [buffer(shape, kind)]
    return te.extern([list(shape)], list(read), emitted, name=name, dtype=[kind], in_buffers=given, out_buffers=result)


def _memory(count: int, kind: str) -> Any:
    """Return a buffer of numbers of 4 bytes, or one of 8: in registers or on the stack, or in the workspace if it is larger."""
    small = 4 * count <= _STACK_BYTES
    on_stack: dict[str, Any] = {"scope": "local", "annotations": {"disable_lower_builtin": True}} if small else {}
    return T.buffer_proxy(T.alloc_buffer((count,), kind, **on_stack))
