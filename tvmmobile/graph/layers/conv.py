"""Convolutions: dense, grouped, depthwise and 1×1."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.expressions import TO_LAST, permutation_source, shape_of
from tvmmobile.graph.integers import IntegerParameters
from tvmmobile.graph.layers.gating import gated_operands
from tvmmobile.graph.layers.integer import exact_floats
from tvmmobile.graph.layers.kind import Form, Parts
from tvmmobile.graph.layers.sum_forms import sum_forms
from tvmmobile.graph.layers.sums import NO_CLAMP, Clamp, SumLayer
from tvmmobile.graph.layers.window import WindowLayer, pairs_inside
from tvmmobile.graph.layouts import Layout, activation_shape, from_nhwc, short_name, to_nchw
from tvmmobile.graph.needs import SHAPE
from tvmmobile.graph.parameters import Array, LayerParameters
from tvmmobile.graph.precision import Precision

#: The taps of a kernel that are used: (first row, end row, first column, end column).
TapWindow = tuple[int, int, int, int]


@dataclass(frozen=True)
class Conv2d(WindowLayer, SumLayer):
    """A 2-D convolution with bias and clamp, and optionally factors for its input and a tensor added to its output.

    Attributes:
        height, width: input size in pixels.
        in_channels, out_channels, groups: number of channels and groups, as in PyTorch; depthwise has `groups == in_channels`.
        kernel, stride: (vertical, horizontal).
        padding: (top, left, bottom, right), of zeros.
        clamp: applied to the output after the residual was added.
        in_layout, out_layout: layouts of the input and the output. Weights are HWIO.
        residual: a tensor of the output's extents, NHWC, is added.
        scaled: each channel of the input is multiplied by its own factor, from another input (squeeze and excite).
        sources, pieces: the number of channels of each tensor, if the input's channels come from several NHWC tensors; and for each piece
            (tensor, first channel, channels), in the order of the input's channels. Empty if the input is one tensor.
        then: applied after the clamp.
        dilation: pixels from one tap to the next, (vertical, horizontal).
        windows: the taps that equal parts of the output's channels have, one part after another. All other weights are zeros. Empty if all
            channels have all taps. Only where there is one group.
        added: number of channels of another NHWC tensor that the residual, or the only step's tensor, is a slice of, and the slice's first
            channel. Empty if it is a tensor of the output's extents.
        sparse: upper limit on the number of non-zero blocks, each one input channel by a few adjacent output channels; and the number of
            output channels per block. Empty if the layer is dense.
        weights: see `SumLayer`.
    """

    height: int = field(metadata=SHAPE)
    width: int = field(metadata=SHAPE)
    in_channels: int = field(metadata=SHAPE)
    out_channels: int = field(metadata=SHAPE)
    kernel: tuple[int, int] = field(default=(1, 1), metadata=SHAPE)
    stride: tuple[int, int] = field(default=(1, 1), metadata=SHAPE)
    padding: tuple[int, int, int, int] = field(default=(0, 0, 0, 0), metadata=SHAPE)
    groups: int = field(default=1, metadata=SHAPE)
    clamp: Clamp = NO_CLAMP
    in_layout: Layout = "NHWC"
    out_layout: Layout = "NHWC"
    residual: bool = False
    scaled: bool = False
    sources: tuple[int, ...] = ()
    pieces: tuple[tuple[int, int, int], ...] = ()
    then: tuple[Clamp, ...] = ()
    dilation: tuple[int, int] = (1, 1)
    windows: tuple[TapWindow, ...] = ()
    added: tuple[int, ...] = ()
    sparse: tuple[int, ...] = ()
    weights: str = ""
    extents = ("out_height", "out_width", "in_channels", "out_channels")
    unlike: ClassVar[Mapping[str, float]] = {**WindowLayer.unlike, **SumLayer.unlike, "in_layout": 1.0, "out_layout": 1.0, "scaled": 1.0}
    computes_batches = reads_blocks = True

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input tensor, or of the first of several, with the batch of 1."""
        return activation_shape(self.in_layout, self.height, self.width, self.sources[0] if self.sources else self.in_channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return activation_shape(self.out_layout, self.out_height, self.out_width, self.out_channels)

    @property
    def plain_shape(self) -> tuple[int, ...]:
        """Shape of the output in NHWC."""
        return activation_shape("NHWC", self.out_height, self.out_width, self.out_channels)

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all other inputs, with the batch of 1, in the order in which they are used: the other tensors that the input comes
        from, `gate`, `residual`, and the steps' tensors, if there are any.
        """
        gate = {"gate": (1, 1, 1, self.in_channels)} if self.scaled else {}
        added = {"residual": self._added_shape} if self.residual else {}
        steps = {name: self._added_shape if shape == self.plain_shape else shape for name, shape in super().side_shapes.items()}
        shapes = {**self._source_shapes, **gate, **added, **steps}
        return {**shapes, [*shapes][-1]: (*self.plain_shape[:-1], self.added[0])} if self.added else shapes

    @property
    def least_read(self) -> dict[str, tuple[int, ...]]:
        found = super().least_read
        return {**found, [*found][-1]: self.plain_shape} if self.added else found

    @property
    def channels_first(self) -> bool:
        """True if input and output are NCHW; added tensors are then NCHW, otherwise NHWC."""
        return self.in_layout == self.out_layout == "NCHW"

    @property
    def _added_shape(self) -> tuple[int, ...]:
        """Shape of tensors that are added to the output."""
        return self.output_shape if self.channels_first else self.plain_shape

    @property
    def constants(self) -> int:
        """Number of stored weights, biases, and per-channel operands of steps."""
        return super().constants - (math.prod(self.weight_shape) - math.prod(self.sparse) if self.sparse else 0)

    @property
    def writes_blocks(self) -> bool:
        return self.out_layout == "NHWC"

    def with_layouts(self, before: Layout, after: Layout) -> Conv2d:
        others: dict[str, Any] = {name: layout for name, layout in (("in_layout", before), ("out_layout", after)) if layout != "NHWC"}
        return replace(self, **others) if others else self

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weights, HWIO."""
        return (*self.kernel, self.in_channels // self.groups, self.out_channels)

    @property
    def part_windows(self) -> tuple[TapWindow, ...]:
        """`windows`; a single window with all taps if that is empty."""
        return self.windows or ((0, self.kernel[0], 0, self.kernel[1]),)

    @property
    def part_channels(self) -> int:
        """Output channels that have the same taps."""
        return self.out_channels // len(self.part_windows)

    @property
    def is_depthwise(self) -> bool:
        """One filter per channel."""
        return self.groups == self.in_channels == self.out_channels and self.groups > 1

    @property
    def is_pointwise(self) -> bool:
        """A 1×1 convolution with stride 1: a matrix product over all pixels."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and not any(self.padding) and self.groups == 1

    @property
    def summed_channels(self) -> int:
        return self.in_channels // self.groups

    @property
    def kind(self) -> str:
        """The layer type as the paper's table 2 names it."""
        if self.is_depthwise:
            return f"depthwise {self.kernel[0]}x{self.kernel[1]}"
        return f"conv {self.kernel[0]}x{self.kernel[1]}"

    @property
    def macs(self) -> int:
        """Multiply-adds: D_K² · M/groups · N · D_F² (arXiv 1704.04861, section 3.1), but zeros outside `windows` or in `sparse` weights."""
        if self.sparse:
            return math.prod(self.sparse) * self.out_height * self.out_width
        taps = sum((bottom - top) * (right - left) for top, bottom, left, right in self.part_windows)
        return taps * self.part_channels * (self.in_channels // self.groups) * self.out_height * self.out_width

    @property
    def least_macs(self) -> int:
        """Multiply-adds without those on padding, which a kernel may skip."""
        if self.sparse:
            return self.macs
        extents, outputs = (self.height, self.width), (self.out_height, self.out_width)

        def pairs(axis: int, first: int, end: int) -> int:
            step = self.dilation[axis]
            return pairs_inside(extents[axis], outputs[axis], end - first, self.stride[axis], self.padding[axis] - first * step, step)

        inside = sum(pairs(0, top, bottom) * pairs(1, left, right) for top, bottom, left, right in self.part_windows)
        return inside * self.part_channels * (self.in_channels // self.groups)

    @property
    def name(self) -> str:
        if self.is_depthwise:
            head, channels = "dw", f"{self.in_channels}"
        else:
            head, channels = ("pw" if self.is_pointwise else "conv"), f"{self.in_channels}x{self.out_channels}"
        parts = [head, f"{self.height}x{self.width}", channels]
        if not self.is_pointwise:
            parts.append(self._window_name)
        if self.groups > 1 and not self.is_depthwise:
            parts.append(f"g{self.groups}")
        if self.windows:
            parts.append(f"taps{'-'.join('.'.join(map(str, window)) for window in self.windows)}")
        if self.sparse:
            parts.append(f"sparse{'x'.join(map(str, self.sparse))}")
        if self.in_layout != "NHWC":
            parts.append(short_name(self.in_layout))
        if self.out_layout != "NHWC":
            parts.append(f"to_{short_name(self.out_layout)}")
        parts += [*self._pieces_name, *self._stored_name(), *self._weights_name()]
        if self.scaled:
            parts.append("scaled")
        if self.residual:
            parts.append("add")
        parts += self._steps_name()
        if self.added:
            parts.append(f"added{'.'.join(map(str, self.added))}")
        return "_".join(parts)

    @classmethod
    def forms(cls) -> list[Form]:
        """Return the forms of a convolution, its bias and its neighbours."""
        orders = "sum, residual", "residual, sum", "product, bias"
        places = itertools.product(("permuted", "scaled", ""), orders)
        return [form for before, order in places for form in sum_forms("nn.conv2d", before, order, cls._of)]

    @classmethod
    def _of(cls, found: Parts, clamp: Clamp) -> Conv2d | None:
        """Return the parts' convolution."""
        attrs = found["product"].attrs
        if (attrs.data_layout, attrs.kernel_layout) != ("NHWC", "HWIO") or ("scaled" in found and not gated_operands(found)):
            return None
        if "permute" in found and permutation_source(found["permute"], TO_LAST) is None:
            return None
        height, width, channels = shape_of(found["product"].args[0])[1:]
        kernel = shape_of(found["weight"])[:2]
        top, left, bottom, right = (int(extent) for extent in attrs.padding)
        stride = tuple(int(extent) for extent in attrs.strides)
        layout: Layout = "NCHW" if "permute" in found else "NHWC"
        window = (kernel[0], kernel[1]), (stride[0], stride[1]), (top, left, bottom, right)
        # With a single tap it makes no difference.
        steps = [int(step) if taps > 1 else 1 for step, taps in zip(attrs.dilation, kernel, strict=True)]
        outside: Any = {"residual": "residual" in found, "scaled": "scaled" in found, "dilation": (steps[0], steps[1])}
        return cls(height, width, channels, shape_of(found["product"])[3], *window, int(attrs.groups), clamp, layout, **outside)

    def random_parameters(self, generator: np.random.Generator, dtype: np.dtype[Any]) -> LayerParameters:
        """Draw weights, with zeros outside the windows, or with as many zeros as a sparse layer has."""
        drawn = super().random_parameters(generator, dtype)
        if self.sparse:
            return replace(drawn, weight=self._thinned(drawn.weight, generator))
        inside = np.zeros(self.weight_shape, bool)
        for part, (top, bottom, left, right) in enumerate(self.part_windows):
            inside[top:bottom, left:right, :, part * self.part_channels : (part + 1) * self.part_channels] = True
        return replace(drawn, weight=np.where(inside, drawn.weight, dtype.type(0)))

    def _thinned(self, weight: Array, generator: np.random.Generator) -> Array:
        """Zero all but the layer's number of weights, and scale these up so that sums keep their size."""
        count, together = self.sparse
        groups = np.zeros(math.prod(weight.shape) // together, bool)
        groups[generator.permutation(groups.size)[:count]] = True
        share = np.sqrt(max(count, 1) / groups.size)
        thinned: Array = np.where(groups.repeat(together).reshape(weight.shape), weight / weight.dtype.type(share), weight.dtype.type(0))
        return thinned

    def sums(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        import torch

        side = self._channels_last(side)
        image = self._image(data, side, self.in_layout)
        if self.scaled:
            image = image * torch.from_numpy(to_nchw(side["gate"]))
        weight, bias = torch.from_numpy(constants.weight).permute(3, 2, 0, 1), torch.from_numpy(constants.bias)
        products = torch.nn.functional.conv2d(image, weight, bias, self.stride, 0, self.dilation, self.groups)
        sums: Array = products.permute(0, 2, 3, 1).numpy()
        return sums + side["residual"] if "residual" in side else sums

    def finished(self, sums: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        return from_nhwc(self._stepped(sums, constants, self._channels_last(side)), self.out_layout)

    def _channels_last(self, side: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the other inputs with images in NHWC and, for a slice of another tensor, the slice alone."""
        if self.channels_first:
            images = {name for name, shape in self.side_shapes.items() if shape == self.output_shape}
            side = {name: _to_nhwc(array) if name in images else array for name, array in side.items()}
        if self.added:
            last, first = [*side][-1], self.added[1]
            side = {**side, last: side[last][..., first : first + self.out_channels]}
        return side

    def composed_as(self, precision: Precision) -> Precision | None:
        """Return the precision in which a template must take the layer; integer networks have gates in separate layers."""
        return None if self.scaled and precision.is_integer else super().composed_as(precision)

    @property
    def apart_in_integers(self) -> bool:
        """True if steps read other tensors or the input joins several: integers of one scale are joined unchanged."""
        return bool(self.sources) or super().apart_in_integers

    def has_integer_form(self, curves: Collection[str]) -> bool:
        return not self.sources and super().has_integer_form(curves)

    def integer_products(self, data: npt.NDArray[np.int8], parameters: IntegerParameters) -> Array:
        import torch

        assert self.in_layout in ("NHWC", "NCHW")
        floats = exact_floats(parameters.weight, self.is_pointwise or self.is_depthwise)
        weight = torch.from_numpy(parameters.weight.astype(floats))
        if self.is_pointwise and self.in_layout == "NHWC":
            return np.asarray(torch.from_numpy(data.astype(floats)) @ weight[0, 0])  # NumPy would multiply line by line
        image = _to_nhwc(data) if self.in_layout == "NCHW" else data
        top, left, bottom, right = self.padding
        padded = np.pad(image, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=parameters.zero_in).astype(floats)
        channels_first, filters = torch.from_numpy(padded).permute(0, 3, 1, 2), weight.permute(3, 2, 0, 1)
        sums = torch.nn.functional.conv2d(channels_first, filters, None, self.stride, 0, self.dilation, self.groups)
        return np.ascontiguousarray(sums.permute(0, 2, 3, 1).numpy())

    @property
    def gives_factors(self) -> bool:
        return not self.residual

    def takes_factors(self, channels: int) -> bool:
        return not self.pieces and self.in_layout == "NHWC" and (self.groups == 1 or self.is_depthwise)


def _to_nhwc(image: Array) -> Array:
    """Copy an NCHW image to NHWC."""
    return np.ascontiguousarray(image.transpose(0, 2, 3, 1))
