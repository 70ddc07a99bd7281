"""What one layer of a network is, without any framework."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a layer combines channels and pixels."""

    CONV = "conv"
    DEPTHWISE = "depthwise"
    POINTWISE = "pointwise"
    DENSE = "dense"


@dataclass(frozen=True)
class Layer:
    """One layer with weights, on square images.

    Attributes:
        name: the weight's path in the PyTorch module, without `.weight`, e.g. `blocks.1.0.conv_dw`.
        kind: convolution, depthwise, pointwise (1×1) or dense (fully connected).
        kernel: side of the kernel, in pixels; 1 for a dense layer.
        stride: in pixels.
        in_channels: input channels (features, for a dense layer).
        out_channels: output channels (features, for a dense layer).
        in_side: side of the input, in pixels; 1 for a dense layer.
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
    norm: bool = True
    bias: bool = False

    @property
    def padding(self) -> int:
        """Pixels added on every edge: symmetric, so that stride 1 keeps the side."""
        return (self.kernel - 1) // 2

    @property
    def out_side(self) -> int:
        """Side of the output, in pixels."""
        return (self.in_side + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def groups(self) -> int:
        """Groups of the convolution: one per channel if depthwise, else 1."""
        return self.in_channels if self.kind is Kind.DEPTHWISE else 1

    @property
    def type_label(self) -> str:
        """The layer type in the words of the paper's table 2, e.g. `depthwise 3×3`."""
        side = f"{self.kernel}×{self.kernel}"
        return {Kind.DENSE: "fully connected", Kind.DEPTHWISE: f"depthwise {side}"}.get(self.kind, f"conv {side}")
