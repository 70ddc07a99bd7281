"""VGG-16 (arXiv 1409.1556, table 1, column D) and AlexNet as torchvision has it (arXiv 1404.5997), as tables of convolutions.

Names are torchvision's. Both end in fully connected layers that take the features of a 224 image.
"""

from __future__ import annotations

from tvmmobile.networks.models.blocks import Convolution, Flatten, Linear, Part, Pooling, chain, relu
from tvmmobile.networks.models.spec import ModelSpec

#: Output channels of 3×3 convolutions; 0 is a pooling.
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
#: (output channels, kernel, stride, padding) of convolutions; `None` is a pooling.
ALEXNET = ((64, 11, 4, 2), None, (192, 5, 1, 2), None, (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), None)
_HIDDEN = 4096


def vgg16_body(spec: ModelSpec) -> Part:
    """Return VGG-16, without batch norms."""
    parts: list[Part] = []
    for channels in VGG16:
        parts += [Pooling(f"features.{len(parts)}", 2, 2)] if channels == 0 else _conv(parts, channels, 3, 1, 1)
    return chain(*parts, Flatten("flatten"), *_classifier((0, 3, 6), spec.classes))


def alexnet_body(spec: ModelSpec) -> Part:
    """Return AlexNet in one column, without groups and without response normalisation."""
    parts: list[Part] = []
    for row in ALEXNET:
        parts += [Pooling(f"features.{len(parts)}", 3, 2)] if row is None else _conv(parts, *row)
    return chain(*parts, Flatten("flatten"), *_classifier((1, 4, 6), spec.classes))


def _conv(before: list[Part], channels: int, kernel: int, stride: int, padding: int) -> list[Part]:
    at = len(before)
    return [Convolution(f"features.{at}", channels, kernel, stride, padding=padding, bias=True), relu(f"features.{at + 1}")]


def _classifier(positions: tuple[int, int, int], classes: int) -> list[Part]:
    """Return three fully connected layers at these places of torchvision's classifier; the others are activations and dropout."""
    *hidden, last = positions
    parts: list[Part] = []
    for place in hidden:
        parts += [Linear(f"classifier.{place}", _HIDDEN), relu(f"classifier.{place + 1}")]
    return [*parts, Linear(f"classifier.{last}", classes)]
