"""The building blocks of network descriptions: leaves such as a convolution, and ways to combine them. Needs no framework.

A description is a tree. From it come the table of layers (`layers_of`), which costs are counted from, and the PyTorch module
(`network.Network`), so that the two cannot differ. Every leaf has the path that its module has in the published PyTorch network, so that
checkpoints fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class Kind(StrEnum):
    """The kind of a layer: the channels and pixels that it combines."""

    CONV = "conv"
    DEPTHWISE = "depthwise"
    POINTWISE = "pointwise"
    GROUPED = "grouped"
    SQUEEZE = "squeeze"
    DENSE = "dense"


@dataclass(frozen=True)
class WeightLayer:
    """One layer with weights, on square images.

    Attributes:
        name: the weight's path in the PyTorch module, without `.weight`, e.g. `blocks.1.0.conv_dw`.
        kind: convolution, depthwise, pointwise (1×1), grouped convolution, squeeze-and-excite (1×1 on the pooled image), or dense (fully
            connected).
        kernel: side of the kernel, in pixels; 1 for a dense layer.
        stride: the stride in pixels.
        in_channels: input channels (features, for a dense layer).
        out_channels: output channels (features, for a dense layer).
        in_side: side of the input, in pixels; 1 for a dense layer.
        padding: pixels of zeros added on every edge.
        groups: number of the convolution's groups: one per channel if depthwise.
        norm: a batch norm follows.
        bias: the layer has a bias of its own.
    """

    name: str
    kind: Kind
    kernel: int
    stride: int
    in_channels: int
    out_channels: int
    in_side: int
    padding: int = 0
    groups: int = 1
    norm: bool = False
    bias: bool = False

    @property
    def out_side(self) -> int:
        """Side of the output, in pixels."""
        return (self.in_side + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def short_label(self) -> str:
        """Layer type and stride in few letters, e.g. `dw 3×3/2`."""
        names = {Kind.DENSE: "dense", Kind.SQUEEZE: "se", Kind.DEPTHWISE: "dw", Kind.GROUPED: f"g{self.groups}"}
        side = "" if self.kind is Kind.DENSE else f" {self.kernel}×{self.kernel}"
        return names.get(self.kind, "conv") + side + (f"/{self.stride}" if self.stride > 1 else "")

    @property
    def type_label(self) -> str:
        """The layer type in the words of the MobileNets paper's table 2, e.g. `depthwise 3×3`."""
        side = f"{self.kernel}×{self.kernel}"
        labels = {
            Kind.DENSE: "fully connected",
            Kind.SQUEEZE: "squeeze-and-excite",
            Kind.DEPTHWISE: f"depthwise {side}",
            Kind.GROUPED: f"grouped {side}",
        }
        return labels.get(self.kind, f"conv {side}")


IMAGE_CHANNELS = 3


@dataclass(frozen=True)
class Convolution:
    """A convolution.

    Attributes:
        name: path of the module.
        out: output channels.
        kernel, stride: kernel size and stride in pixels.
        groups: number of groups of input and output channels.
        padding: zeros on every edge, in pixels; `None` for as many as keep the side at stride 1.
        bias: has a bias of its own.
        timm: path of the module in timm's network, where that differs.
    """

    name: str
    out: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    padding: int | None = None
    bias: bool = False
    timm: str = ""

    @property
    def zeros(self) -> int:
        """Pixels of zeros on every edge."""
        return (self.kernel - 1) // 2 if self.padding is None else self.padding


@dataclass(frozen=True)
class BatchNorm:
    """A batch norm, right behind a convolution; `timm_eps` is the ε of timm's network, where that differs."""

    name: str
    eps: float = 1e-5
    timm: str = ""
    timm_eps: float | None = None


@dataclass(frozen=True)
class Linear:
    """A fully connected layer; `timm_conv`: timm has a 1×1 convolution with the same weights in its place."""

    name: str
    out: int
    bias: bool = True
    timm: str = ""
    timm_conv: bool = False


@dataclass(frozen=True)
class ActivationFunction:
    """`relu`, `relu6`, `hardswish` or `hardsigmoid`."""

    name: str
    function: str


@dataclass(frozen=True)
class Pooling:
    """Largest or mean value of windows.

    Attributes:
        name: path of the module.
        mean: true for the mean, including zeros of the padding; false for the maximum.
        kernel, stride, padding: kernel size, stride and padding in pixels.
        ceil: true if windows that reach over the edge count.
    """

    name: str
    kernel: int
    stride: int
    padding: int = 0
    mean: bool = False
    ceil: bool = False


@dataclass(frozen=True)
class GlobalPool:
    """The mean of every channel."""

    name: str


@dataclass(frozen=True)
class Flatten:
    """Channels and pixels as features."""

    name: str


Leaf = Convolution | BatchNorm | Linear | ActivationFunction | Pooling | GlobalPool | Flatten


@dataclass(frozen=True)
class Sequential:
    """Parts one after another; none of them: the input as it is."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Sum:
    """The sum of branches that take the same input."""

    branches: tuple[Part, ...]


@dataclass(frozen=True)
class Concat:
    """The channels of branches that take the same input, one after another."""

    branches: tuple[Part, ...]


@dataclass(frozen=True)
class Gate:
    """The input times the output of `branch`, a factor for each channel (squeeze-and-excite, arXiv 1709.01507)."""

    branch: Part


@dataclass(frozen=True)
class KeepHalf:
    """The first `half` channels unchanged, then the output of `branch` for the other `half` (ShuffleNet v2, arXiv 1807.11164)."""

    half: int
    branch: Part


@dataclass(frozen=True)
class Shuffle:
    """The channels of `groups` groups taken in turn (ShuffleNet, arXiv 1707.01083)."""

    groups: int


Part = Leaf | Sequential | Sum | Concat | Gate | KeepHalf | Shuffle
#: The input as it is.
SAME = Sequential(())


@dataclass(frozen=True)
class Shape:
    """Channels, and the side of the image in pixels; features have side 1."""

    channels: int
    side: int


@dataclass(frozen=True)
class PlacedLeaf:
    """A leaf, the shape of its input, and whether it is inside a `Gate`."""

    leaf: Leaf
    given: Shape
    gated: bool


def chain(*parts: Part) -> Sequential:
    """Return these parts one after another."""
    return Sequential(parts)


def relu(name: str) -> ActivationFunction:
    """Return a ReLU of that name."""
    return ActivationFunction(name, "relu")


def classified(parts: Iterable[Part], pool: str, classifier: Linear) -> Sequential:
    """Return parts, then the mean of every channel, called `pool`, and a fully connected layer."""
    return chain(*parts, GlobalPool(pool), Flatten("flatten"), classifier)


def unit(
    conv: Convolution, norm: str, activation: str, function: str | None, *, eps: float = 1e-5, timm: str = "", timm_eps: float | None = None
) -> Sequential:
    """Return a convolution with its batch norm, called `norm`, and activation, called `activation`, if it has one."""
    parts: tuple[Part, ...] = (conv, BatchNorm(norm, eps, timm, timm_eps))
    return Sequential((*parts, ActivationFunction(activation, function)) if function else parts)


def make_divisible(channels: float) -> int:
    """Return rounded channels: the multiple of 8 nearest to `channels`, at least one of it, and at least 90 % of `channels`.

    As in tensorflow/models `research/slim/nets/mobilenet/mobilenet.py` (`_make_divisible`), torchvision and timm.
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def placed(body: Part, side: int) -> list[PlacedLeaf]:
    """Return every leaf in order of execution, for images of that side."""
    found: list[PlacedLeaf] = []
    _place(body, Shape(IMAGE_CHANNELS, side), False, found)
    return found


def layers_of(body: Part, side: int) -> tuple[WeightLayer, ...]:
    """Return the layers with weights in order of execution, for images of that side."""
    found: list[WeightLayer] = []
    for place in placed(body, side):
        match place.leaf:
            case Convolution():
                found.append(_conv_layer(place.leaf, place.given, place.gated))
            case Linear(name, out, bias):
                found.append(WeightLayer(name, Kind.DENSE, 1, 1, place.given.channels, out, 1, bias=bias))
            case BatchNorm():
                found[-1] = replace(found[-1], norm=True)
            case _:
                pass
    return tuple(found)


def _conv_layer(conv: Convolution, given: Shape, gated: bool) -> WeightLayer:
    if gated:
        kind = Kind.SQUEEZE
    elif conv.groups > 1:
        kind = Kind.DEPTHWISE if conv.groups == given.channels == conv.out else Kind.GROUPED
    else:
        kind = Kind.POINTWISE if conv.kernel == 1 else Kind.CONV
    return WeightLayer(
        conv.name, kind, conv.kernel, conv.stride, given.channels, conv.out, given.side, conv.zeros, conv.groups, norm=False, bias=conv.bias
    )


def _place(part: Part, given: Shape, gated: bool, found: list[PlacedLeaf]) -> Shape:
    """Append the leaves of `part`; the shape of its output."""
    match part:
        case Sequential(parts):
            for inner in parts:
                given = _place(inner, given, gated, found)
            return given
        case Sum(branches):
            (shape,) = {_place(branch, given, gated, found) for branch in branches}
            return shape
        case Concat(branches):
            shapes = [_place(branch, given, gated, found) for branch in branches]
            (side,) = {shape.side for shape in shapes}
            return Shape(sum(shape.channels for shape in shapes), side)
        case Gate(branch):
            _place(branch, given, True, found)
            return given
        case KeepHalf(half, branch):
            shape = _place(branch, replace(given, channels=half), gated, found)
            return replace(shape, channels=half + shape.channels)
        case Shuffle():
            return given
        case leaf:
            found.append(PlacedLeaf(leaf, given, gated))
            return _shape_after(leaf, given)


def _shape_after(leaf: Leaf, given: Shape) -> Shape:
    match leaf:
        case Convolution():
            return Shape(leaf.out, (given.side + 2 * leaf.zeros - leaf.kernel) // leaf.stride + 1)
        case Pooling():
            return replace(given, side=_pooled_side(leaf, given.side))
        case GlobalPool():
            return replace(given, side=1)
        case Flatten():
            return Shape(given.channels * given.side**2, 1)
        case Linear():
            return Shape(leaf.out, 1)
        case BatchNorm() | ActivationFunction():
            return given


def _pooled_side(pool: Pooling, side: int) -> int:
    room = side + 2 * pool.padding - pool.kernel
    if not pool.ceil:
        return room // pool.stride + 1
    windows = -(-room // pool.stride) + 1
    # As in PyTorch: the last window starts inside the image or its left padding.
    return windows - 1 if (windows - 1) * pool.stride >= side + pool.padding else windows
