"""Multiply-adds and parameters, layer by layer, counted from the table of layers (no framework needed).

With D_F the side of the *output*, D_K the kernel's side, M and N the input and output channels (arXiv 1704.04861, section 3.1; the
counts of padded border pixels are included, as there):
- standard convolution: D_K² · M · N · D_F² multiply-adds (equation 2), D_K² · M · N weights;
- depthwise: D_K² · M · D_F² (equation 4), D_K² · M weights;
- pointwise (1×1): M · N · D_F² (second term of equation 5), M · N weights;
- grouped convolution with G groups: 1/G of both numbers of a standard convolution;
- fully connected: M · N of both.
The 1×1 convolutions of squeeze-and-excite are counted, for an image of one pixel; activations, pooling and sums are not.
α scales M and N, ρ scales D_F (section 3.3 and 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass

from tvmmobile.networks.models.blocks import WeightLayer
from tvmmobile.networks.models.registry import family
from tvmmobile.networks.models.spec import ModelSpec


@dataclass(frozen=True)
class LayerCost:
    """The cost of one layer for one image.

    Attributes:
        layer: the layer.
        macs: multiply-adds; bias, batch norm and activation are not counted.
        weights: the kernel's weights alone, as in the paper's table 2.
        parameters: all trainable values: weights, bias, and batch norm's γ and β.
    """

    layer: WeightLayer
    macs: int
    weights: int
    parameters: int


@dataclass(frozen=True)
class TypeCost:
    """The cost of all layers of one type, e.g. `conv 1×1`, and its share of the network's, in percent."""

    label: str
    layers: int
    macs: int
    weights: int
    macs_percent: float
    weights_percent: float


@dataclass(frozen=True)
class ModelCost:
    """The cost of a variant for one image, layer by layer in order of execution."""

    spec: ModelSpec
    layers: tuple[LayerCost, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds of the network."""
        return sum(cost.macs for cost in self.layers)

    @property
    def weights(self) -> int:
        """Weights alone, without biases and batch norms."""
        return sum(cost.weights for cost in self.layers)

    @property
    def parameters(self) -> int:
        """Number of trainable values."""
        return sum(cost.parameters for cost in self.layers)

    def by_type(self) -> tuple[TypeCost, ...]:
        """Return costs by layer type, most multiply-adds first."""
        labels = dict.fromkeys(cost.layer.type_label for cost in self.layers)
        return tuple(sorted(map(self._of_type, labels), key=lambda cost: -cost.macs))

    def _of_type(self, label: str) -> TypeCost:
        members = [cost for cost in self.layers if cost.layer.type_label == label]
        macs, weights = sum(cost.macs for cost in members), sum(cost.weights for cost in members)
        return TypeCost(label, len(members), macs, weights, 100 * macs / self.macs, 100 * weights / self.weights)


def count_layer(layer: WeightLayer) -> LayerCost:
    """Return the cost of one layer, by the formulas at the top of this file."""
    weights = layer.kernel**2 * layer.in_channels // layer.groups * layer.out_channels
    extra = (2 * layer.norm + layer.bias) * layer.out_channels
    return LayerCost(layer, weights * layer.out_side**2, weights, weights + extra)


def count(spec: ModelSpec) -> ModelCost:
    """Return the cost of a variant; raise `UserError` if its family is not known."""
    return ModelCost(spec, tuple(count_layer(layer) for layer in family(spec.name).layers(spec)))
