"""Layers as the planner sees them: one operator with its bias and clamp, all shapes static, batch 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.curves import CHANNEL, CURVES, TENSOR
from tvmmobile.graph.layouts import Layout, activation_shape, short_name
from tvmmobile.graph.storage import ConvertingLayer

#: Weights and activations, in any precision.
Array = npt.NDArray[Any]
#: Applied to the output: lower and upper bound, `None` if unbounded; or the name of one of `curves.CURVES`.
Clamp = tuple[float | None, float | None] | str
NO_CLAMP: Clamp = (None, None)

_CLAMP_NAMES: dict[Clamp, str] = {(None, None): "linear", (0.0, None): "relu", (0.0, 6.0): "relu6"}


def clamp_name(clamp: Clamp) -> str:
    """`relu6` for (0, 6), `relu`, `linear`, the name of a curve, else both bounds."""
    if isinstance(clamp, str):
        return clamp
    known = _CLAMP_NAMES.get(clamp)
    return known or "clamp" + "_".join("inf" if bound is None else f"{bound:g}" for bound in clamp)


class SumLayer:
    """A layer whose results are sums that begin with a bias and pass through steps once complete."""

    clamp: Clamp
    then: tuple[Clamp, ...]

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weights, output channels last."""
        raise NotImplementedError

    @property
    def plain_shape(self) -> tuple[int, ...]:
        """Shape of the output with channels last."""
        raise NotImplementedError

    @property
    def steps(self) -> tuple[Clamp, ...]:
        """The steps of a complete sum, in order."""
        return tuple(step for step in (self.clamp, *self.then) if step != NO_CLAMP)

    @property
    def operands(self) -> tuple[str, ...]:
        """Kinds of the steps' operands besides the sum, in order: see `Curve.operands`."""
        return tuple(kind for step in self.steps if isinstance(step, str) and step in CURVES for kind in CURVES[step].operands)

    @property
    def constants(self) -> int:
        """Number of weights, biases, and per-channel operands of steps."""
        return math.prod(self.weight_shape) + (1 + self.operands.count(CHANNEL)) * self.weight_shape[-1]

    def _operand_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors that steps read."""
        return {f"operand{number}": self.plain_shape for number in range(self.operands.count(TENSOR))}

    def _steps_name(self) -> list[str]:
        return [clamp_name(self.clamp), *map(clamp_name, self.then)]


class WindowLayer:
    """A layer that sees its input through a window."""

    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int] = (1, 1)

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns from the first to the last tap, both included."""
        return (self.kernel[0] - 1) * self.dilation[0] + 1, (self.kernel[1] - 1) * self.dilation[1] + 1

    @property
    def out_height(self) -> int:
        """Output rows."""
        return (self.height + self.padding[0] + self.padding[2] - self.reach[0]) // self.stride[0] + 1

    @property
    def out_width(self) -> int:
        """Output columns."""
        return (self.width + self.padding[1] + self.padding[3] - self.reach[1]) // self.stride[1] + 1

    @property
    def _window_name(self) -> str:
        parts = [f"k{self.kernel[0]}x{self.kernel[1]}s{self.stride[0]}x{self.stride[1]}p{'.'.join(map(str, self.padding))}"]
        return "_".join(parts + [f"d{self.dilation[0]}x{self.dilation[1]}"] * (self.dilation != (1, 1)))


#: Largest window; no network has larger ones, but a file may.
_MOST_TAPS = 256


def _inside(extent: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Along one axis, how many pairs of an output and a place of its window lie in the input, and not in the padding; at least, for a
    window that is absurdly large.
    """
    count = 0
    for tap in range(min(kernel, _MOST_TAPS)):
        place = tap * dilation - padding
        first, last = -(place // stride), (extent - 1 - place) // stride
        count += max(min(last, outputs - 1) - max(first, 0) + 1, 0)
    return count


def _pieces_name(sources: tuple[int, ...], pieces: tuple[tuple[int, int, int], ...]) -> list[str]:
    """See `Conv2d.sources`; empty where the input is one tensor."""
    cuts = "-".join(".".join(map(str, piece)) for piece in pieces)
    return [f"of{'.'.join(map(str, sources))}_cut{cuts}"] if pieces else []


def _other_sources(height: int, width: int, sources: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors after the first of which an input is composed."""
    return {f"source{number}": activation_shape("NHWC", height, width, sources[number]) for number in range(1, len(sources))}


@dataclass(frozen=True)
class Conv2d(ConvertingLayer, WindowLayer, SumLayer):
    """A 2-D convolution with bias and clamp, and optionally factors for its input and a tensor added to its output.

    Attributes:
        height, width: input size in pixels.
        in_channels, out_channels, groups: as in PyTorch; depthwise has `groups == in_channels`.
        kernel, stride: (vertical, horizontal).
        padding: (top, left, bottom, right), of zeros.
        clamp: what is applied to the output, after the residual was added.
        in_layout, out_layout: of the input and the output. Weights are HWIO.
        residual: a tensor of the output's extents, NHWC, is added.
        scaled: each channel of the input is multiplied by a factor of its own, which is another input (squeeze and excite).
        sources, pieces: where the input's channels are put together from other tensors, NHWC: the channels that each of these has, and for
            each piece (tensor, first channel, channels), in the order of the input's channels. Empty where the input is one tensor.
        then: what is applied after the clamp.
        dilation: pixels from one tap to the next, (vertical, horizontal).
    """

    height: int
    width: int
    in_channels: int
    out_channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    clamp: Clamp = NO_CLAMP
    in_layout: Layout = "NHWC"
    out_layout: Layout = "NHWC"
    residual: bool = False
    scaled: bool = False
    sources: tuple[int, ...] = ()
    pieces: tuple[tuple[int, int, int], ...] = ()
    then: tuple[Clamp, ...] = ()
    dilation: tuple[int, int] = (1, 1)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input tensor, or of the first one that it is put together from, with the batch of 1."""
        return activation_shape(self.in_layout, self.height, self.width, self.sources[0] if self.sources else self.in_channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output tensor, with the batch of 1."""
        return activation_shape(self.out_layout, self.out_height, self.out_width, self.out_channels)

    @property
    def plain_shape(self) -> tuple[int, ...]:
        """Shape of the output in NHWC."""
        return activation_shape("NHWC", self.out_height, self.out_width, self.out_channels)

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what else is read, with the batch of 1, in the order in which it is used: the other tensors that the input is put
        together from, `gate`, `residual`, and what steps read, where there are any.
        """
        others = _other_sources(self.height, self.width, self.sources)
        gate = {"gate": (1, 1, 1, self.in_channels)} if self.scaled else {}
        added = {"residual": self.plain_shape} if self.residual else {}
        return {**others, **gate, **added, **self._operand_shapes()}

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weights, HWIO."""
        return (*self.kernel, self.in_channels // self.groups, self.out_channels)

    @property
    def is_depthwise(self) -> bool:
        """One filter per channel."""
        return self.groups == self.in_channels == self.out_channels and self.groups > 1

    @property
    def is_pointwise(self) -> bool:
        """A 1×1 convolution with stride 1: a matrix product over all pixels."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and not any(self.padding) and self.groups == 1

    @property
    def kind(self) -> str:
        """The layer type as the paper's table 2 names it."""
        if self.is_depthwise:
            return f"depthwise {self.kernel[0]}x{self.kernel[1]}"
        return f"conv {self.kernel[0]}x{self.kernel[1]}"

    @property
    def macs(self) -> int:
        """Multiply-adds: D_K² · M/groups · N · D_F² (arXiv 1704.04861, section 3.1)."""
        return math.prod(self.weight_shape) * self.out_height * self.out_width

    @property
    def least_macs(self) -> int:
        """The multiply-adds without those with the padding's zeros, which a kernel may leave out."""
        rows = _inside(self.height, self.out_height, self.kernel[0], self.stride[0], self.padding[0], self.dilation[0])
        columns = _inside(self.width, self.out_width, self.kernel[1], self.stride[1], self.padding[1], self.dilation[1])
        return rows * columns * self.weight_shape[2] * self.out_channels

    @property
    def name(self) -> str:
        """Canonical name; two layers are the same kernel exactly when their names agree."""
        if self.is_depthwise:
            head, channels = "dw", f"{self.in_channels}"
        else:
            head, channels = ("pw" if self.is_pointwise else "conv"), f"{self.in_channels}x{self.out_channels}"
        parts = [head, f"{self.height}x{self.width}", channels]
        if not self.is_pointwise:
            parts.append(self._window_name)
        if self.groups > 1 and not self.is_depthwise:
            parts.append(f"g{self.groups}")
        if self.in_layout != "NHWC":
            parts.append(short_name(self.in_layout))
        if self.out_layout != "NHWC":
            parts.append(f"to_{short_name(self.out_layout)}")
        parts += _pieces_name(self.sources, self.pieces)
        parts += self._stored_name()
        if self.scaled:
            parts.append("scaled")
        if self.residual:
            parts.append("add")
        return "_".join([*parts, *self._steps_name()])


@dataclass(frozen=True)
class Dense(ConvertingLayer, SumLayer):
    """A fully connected layer with bias: (1, in_features) → (1, out_features). Weights are (in_features, out_features).

    Attributes:
        clamp, then: see `Conv2d`.
    """

    in_features: int
    out_features: int
    clamp: Clamp = NO_CLAMP
    then: tuple[Clamp, ...] = ()
    kind: ClassVar[str] = "fully connected"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(1, in_features)."""
        return (1, self.in_features)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(1, out_features)."""
        return (1, self.out_features)

    @property
    def plain_shape(self) -> tuple[int, ...]:
        """(1, out_features)."""
        return self.output_shape

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what steps read."""
        return self._operand_shapes()

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(in_features, out_features)."""
        return (self.in_features, self.out_features)

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return self.in_features * self.out_features

    @property
    def name(self) -> str:
        """Canonical name."""
        return "_".join(["dense", f"{self.in_features}x{self.out_features}", *self._stored_name(), *self._steps_name()])


@dataclass(frozen=True)
class Pool(ConvertingLayer):
    """The mean of every channel over all pixels: → (1, 1, 1, channels).

    Attributes:
        height, width, channels: input size.
        in_layout: of the input.
    """

    height: int
    width: int
    channels: int
    in_layout: Layout = "NHWC"
    kind: ClassVar[str] = "average pool"
    macs: ClassVar[int] = 0  # it has no weights to multiply by
    constants: ClassVar[int] = 0
    side_shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input tensor, with the batch of 1."""
        return activation_shape(self.in_layout, self.height, self.width, self.channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(1, 1, 1, channels)."""
        return (1, 1, 1, self.channels)

    @property
    def name(self) -> str:
        """Canonical name."""
        layout = [] if self.in_layout == "NHWC" else [short_name(self.in_layout)]
        return "_".join(["pool", f"{self.height}x{self.width}", f"{self.channels}", *layout, *self._stored_name()])


@dataclass(frozen=True)
class MaxPool(ConvertingLayer, WindowLayer):
    """The largest of every channel in a window, NHWC; padding does not count, and no window is all padding.

    Attributes:
        height, width, channels: input size.
        kernel, stride: (vertical, horizontal).
        padding: (top, left, bottom, right).
        sources, pieces: see `Conv2d`.
    """

    height: int
    width: int
    channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    sources: tuple[int, ...] = ()
    pieces: tuple[tuple[int, int, int], ...] = ()
    in_layout: ClassVar[Layout] = "NHWC"
    out_layout: ClassVar[Layout] = "NHWC"
    macs: ClassVar[int] = 0
    constants: ClassVar[int] = 0

    @property
    def in_channels(self) -> int:
        """The same as the output's."""
        return self.channels

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input tensor, or of the first one that it is put together from, with the batch of 1."""
        return activation_shape("NHWC", self.height, self.width, self.sources[0] if self.sources else self.channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output tensor, with the batch of 1."""
        return activation_shape("NHWC", self.out_height, self.out_width, self.channels)

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the other tensors that the input is put together from."""
        return _other_sources(self.height, self.width, self.sources)

    @property
    def kind(self) -> str:
        """The layer type as reports name it."""
        return f"max pool {self.kernel[0]}x{self.kernel[1]}"

    @property
    def name(self) -> str:
        """Canonical name."""
        pieces = _pieces_name(self.sources, self.pieces)
        return "_".join(["maxpool", f"{self.height}x{self.width}", f"{self.channels}", self._window_name, *pieces, *self._stored_name()])


@dataclass(frozen=True)
class Gating(ConvertingLayer):
    """Each channel of the input times a factor of its own, which is another input, NHWC: `Conv2d.scaled` by itself, for networks whose
    kernels do not multiply what they load.

    Attributes:
        height, width, channels: input size.
    """

    height: int
    width: int
    channels: int
    in_layout: ClassVar[Layout] = "NHWC"
    out_layout: ClassVar[Layout] = "NHWC"
    kind: ClassVar[str] = "gate"
    macs: ClassVar[int] = 0
    constants: ClassVar[int] = 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input tensor, with the batch of 1."""
        return activation_shape("NHWC", self.height, self.width, self.channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The same."""
        return self.input_shape

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of the factors."""
        return {"gate": (1, 1, 1, self.channels)}

    @property
    def name(self) -> str:
        """Canonical name."""
        return "_".join(["gate", f"{self.height}x{self.width}", f"{self.channels}", *self._stored_name()])


@dataclass(frozen=True)
class Resize(ConvertingLayer):
    """An image of another size, NHWC: `graph.resizing` says from which pixels.

    Attributes:
        height, width, channels: input size.
        out_height, out_width: output size in pixels.
        method: `linear`, or how a place becomes that of one pixel: see `graph.resizing.ROUNDINGS`.
        places: where an output pixel lies in the input: see `graph.resizing.PLACES`.
    """

    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    method: str
    places: str
    in_layout: ClassVar[Layout] = "NHWC"
    out_layout: ClassVar[Layout] = "NHWC"
    macs: ClassVar[int] = 0
    constants: ClassVar[int] = 0
    side_shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input tensor, with the batch of 1."""
        return activation_shape("NHWC", self.height, self.width, self.channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output tensor, with the batch of 1."""
        return activation_shape("NHWC", self.out_height, self.out_width, self.channels)

    @property
    def read_shape(self) -> tuple[int, ...]:
        """As many pixels as it needs at most."""
        taps = 2 if self.method == "linear" else 1
        return activation_shape("NHWC", min(self.height, taps * self.out_height), min(self.width, taps * self.out_width), self.channels)

    @property
    def kind(self) -> str:
        """The layer type as reports name it."""
        return "resize bilinear" if self.method == "linear" else "resize nearest"

    @property
    def name(self) -> str:
        """Canonical name."""
        parts = [f"{self.height}x{self.width}", f"to_{self.out_height}x{self.out_width}", f"{self.channels}", self.method, self.places]
        return "_".join(["resize", *parts, *self._stored_name()])


@dataclass(frozen=True)
class ChannelNorm(ConvertingLayer):
    """A pixel's channels less their mean, over their standard deviation, times a weight, plus a bias, NHWC (layer norm, arXiv 1607.06450).

    Attributes:
        height, width, channels: input size.
        epsilon: what is added to the variance.
    """

    height: int
    width: int
    channels: int
    epsilon: float
    in_layout: ClassVar[Layout] = "NHWC"
    out_layout: ClassVar[Layout] = "NHWC"
    kind: ClassVar[str] = "layer norm"
    macs: ClassVar[int] = 0
    side_shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input tensor, with the batch of 1."""
        return activation_shape("NHWC", self.height, self.width, self.channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The same."""
        return self.input_shape

    @property
    def constants(self) -> int:
        """Number of weights and biases."""
        return 2 * self.channels

    @property
    def name(self) -> str:
        """Canonical name."""
        parts = [f"{self.height}x{self.width}", f"{self.channels}", f"e{self.epsilon:g}"]
        return "_".join(["norm", *parts, *self._stored_name()])


#: The first element in a tensor, and elements from one group, head and token to the next; those of a token's head follow each other.
Place = tuple[int, int, int, int]


@dataclass(frozen=True)
class Attention(ConvertingLayer):
    """For each head and query the mean of values, weighted by the softmax of the query's products with the keys (arXiv 1706.03762).

    Attributes:
        groups: tokens that have nothing to do with each other, as those of several images.
        heads, queries, keys: how many of each group.
        depth, width: elements of a query or key, and of a value.
        scale: what products are multiplied by.
        shapes: of the tensors with queries, keys and values; these may be one.
        query_place, key_place, value_place: where they are there.
        merged: the output has a token's heads one behind the other, (groups, queries, heads · width); else it is (groups, heads, queries,
            width).
    """

    groups: int
    heads: int
    queries: int
    keys: int
    depth: int
    width: int
    scale: float
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    query_place: Place
    key_place: Place
    value_place: Place
    merged: bool
    kind: ClassVar[str] = "attention"
    constants: ClassVar[int] = 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the tensor with queries."""
        return self.shapes[0]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """See `merged`."""
        each = (self.queries, self.heads * self.width) if self.merged else (self.heads, self.queries, self.width)
        return (self.groups, *each)

    @property
    def out_place(self) -> Place:
        """Where results are in the output."""
        head, token = (self.width, self.heads * self.width) if self.merged else (self.queries * self.width, self.width)
        return (0, self.heads * self.queries * self.width, head, token)

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors with keys and values."""
        return {"key": self.shapes[1], "value": self.shapes[2]}

    @property
    def macs(self) -> int:
        """Multiply-adds of both products."""
        return self.groups * self.heads * self.queries * self.keys * (self.depth + self.width)

    @property
    def name(self) -> str:
        """Canonical name."""
        parts = [f"{self.groups}x{self.heads}x{self.queries}x{self.keys}", f"{self.depth}", f"{self.width}", f"s{self.scale:g}"]
        shapes = "-".join("x".join(map(str, shape)) for shape in self.shapes)
        places = "-".join(".".join(map(str, place)) for place in (self.query_place, self.key_place, self.value_place))
        return "_".join(["attention", *parts, f"of{shapes}", f"at{places}", *["merged"] * self.merged, *self._stored_name()])


@dataclass(frozen=True)
class Opaque:
    """Operators that no template describes, fused into one TIR function by Relax.

    Attributes:
        operator: name of the fused operators, e.g. `mean`.
        fingerprint: hash of the function's structure and of its blocks' names, 12 hexadecimal digits: a trace fits what it agrees with.
        input_shapes: shapes of the arguments, constants included.
        result_shape: shape of the one result.
    """

    operator: str
    fingerprint: str
    input_shapes: tuple[tuple[int, ...], ...]
    result_shape: tuple[int, ...]
    kind: ClassVar[str] = "other"
    macs: ClassVar[int] = 0  # the paper counts only convolutions and the classifier
    side_shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first argument; that of the result where there is none."""
        return self.input_shapes[0] if self.input_shapes else self.result_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return self.result_shape

    @property
    def constants(self) -> int:
        """Elements of the arguments after the first; they may be another kernel's output too."""
        return sum(map(math.prod, self.input_shapes[1:]))

    @property
    def name(self) -> str:
        """Canonical name."""
        return f"{self.operator}_{'x'.join(map(str, self.input_shape))}_{self.fingerprint}"


@dataclass(frozen=True)
class Rounding:
    """Numbers rounded to those that integers stand for: (limit(rint(x / step) + zero, low, high) - zero) · step, as float32.

    Kernels that write or read integers round by themselves, so that none has this layer alone.

    Attributes:
        shape: of input and output, with the batch of 1.
        step: the difference between two neighbours.
        zero: the integer that stands for 0.
        low, high: bounds, integers.
    """

    shape: tuple[int, ...]
    step: float
    zero: int
    low: int
    high: int
    kind: ClassVar[str] = "rounding"
    macs: ClassVar[int] = 0
    constants: ClassVar[int] = 0
    side_shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`shape`."""
        return self.shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """`shape`."""
        return self.shape

    @property
    def name(self) -> str:
        """Canonical name."""
        numbers = (f"{number:g}" for number in (self.step, self.zero, self.low, self.high))
        return "_".join(["rounding", "x".join(map(str, self.shape[1:])), *numbers])

    def rounded(self, values: Array) -> Array:
        """The numbers of a tensor, rounded."""
        step = np.float32(self.step)
        integers = np.clip(np.rint(values / step) + np.float32(self.zero), self.low, self.high)
        return np.asarray((integers - np.float32(self.zero)) * step, np.float32)


Layer = Conv2d | Dense | Pool | MaxPool | Gating | Resize | ChannelNorm | Attention | Opaque | Rounding


def input_shapes(layer: Layer) -> tuple[tuple[int, ...], ...]:
    """Shapes of all tensors that a layer reads, constants of an opaque one included."""
    return layer.input_shapes if isinstance(layer, Opaque) else (layer.input_shape, *layer.side_shapes.values())


@dataclass(frozen=True)
class LayerParameters:
    """Constants of one layer: weights (HWIO, (in, out), or one for each channel), a bias for each output channel, and the steps'
    operands of that kind.
    """

    weight: Array
    bias: Array
    operands: tuple[Array, ...] = ()


#: For layers without constants.
NO_PARAMETERS = LayerParameters(np.zeros(0), np.zeros(0))
