"""What one layer of a network is, without any framework."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a layer combines channels and pixels."""

    CONV = "conv"
    DEPTHWISE = "depthwise"
    POINTWISE = "pointwise"
    GROUPED = "grouped"
    SQUEEZE = "squeeze"
    DENSE = "dense"


@dataclass(frozen=True)
class Layer:
    """One layer with weights, on square images.

    Attributes:
        name: the weight's path in the PyTorch module, without `.weight`, e.g. `blocks.1.0.conv_dw`.
        kind: convolution, depthwise, pointwise (1×1), convolution in groups, one of a squeeze-and-excite (1×1, of the pooled image), or
            dense (fully connected).
        kernel: side of the kernel, in pixels; 1 for a dense layer.
        stride: in pixels.
        in_channels: input channels (features, for a dense layer).
        out_channels: output channels (features, for a dense layer).
        in_side: side of the input, in pixels; 1 for a dense layer.
        padding: pixels of zeros added on every edge.
        groups: of the convolution: one per channel if depthwise.
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
