"""MobileNet v1 as a table of blocks (arXiv 1704.04861, table 1).

Two choices where published code differs:
- channels are `max(int(c · α), 8)`, as in tensorflow/models `research/slim/nets/mobilenet_v1.py` (`min_depth=8`); they are not rounded
  to multiples of 8;
- padding is symmetric, as in PyTorch ports, not TensorFlow's `SAME`.
The last depthwise layer has stride 1: the paper prints 2, but with a 7×7 input and a 7×7 output.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from tvmmobile.models.layers import Kind, Layer
from tvmmobile.models.spec import ModelSpec

if TYPE_CHECKING:
    import torch

NAME = "mobilenet_v1"
IMAGE_CHANNELS = 3
STEM_CHANNELS = 32
MIN_CHANNELS = 8
#: Stages of depthwise separable blocks: (blocks, stride of the first, output channels at α = 1).
STAGES = ((1, 1, 64), (2, 2, 128), (2, 2, 256), (6, 2, 512), (2, 2, 1024))


def channels(base: int, alpha: float) -> int:
    """Channels of a layer that has `base` of them at α = 1."""
    return max(int(base * alpha), MIN_CHANNELS)


def layers(spec: ModelSpec) -> tuple[Layer, ...]:
    """The 28 layers with weights, in order of execution, named as in timm's `mobilenetv1_100`."""
    stem = Layer("conv_stem", Kind.CONV, 3, 2, IMAGE_CHANNELS, channels(STEM_CHANNELS, spec.alpha), spec.resolution)
    found = [stem]
    for stage, (blocks, first_stride, base) in enumerate(STAGES):
        for block in range(blocks):
            width, side = found[-1].out_channels, found[-1].out_side
            path = f"blocks.{stage}.{block}"
            depthwise = Layer(f"{path}.conv_dw", Kind.DEPTHWISE, 3, first_stride if block == 0 else 1, width, width, side)
            found += [depthwise, Layer(f"{path}.conv_pw", Kind.POINTWISE, 1, 1, width, channels(base, spec.alpha), depthwise.out_side)]
    found.append(Layer("classifier", Kind.DENSE, 1, 1, found[-1].out_channels, spec.classes, 1, norm=False, bias=True))
    return tuple(found)


def module(spec: ModelSpec) -> torch.nn.Module:
    """The PyTorch module: NCHW `[N, 3, side, side]` float32 in, logits `[N, classes]` out; weights as PyTorch leaves them."""
    from torch import nn

    stem, *body, classifier = layers(spec)
    stages: dict[str, OrderedDict[str, Any]] = {}
    for depthwise, pointwise in zip(body[::2], body[1::2], strict=True):
        _, stage, block, _ = depthwise.name.split(".")
        unit = _conv_norm_act(depthwise, "conv_dw", 1, spec) | _conv_norm_act(pointwise, "conv_pw", 2, spec)
        stages.setdefault(stage, OrderedDict())[block] = nn.Sequential(OrderedDict(unit))
    blocks = nn.Sequential(OrderedDict((stage, nn.Sequential(units)) for stage, units in stages.items()))
    return nn.Sequential(
        OrderedDict(
            **_conv_norm_act(stem, "conv_stem", 1, spec),
            blocks=blocks,
            pool=nn.AdaptiveAvgPool2d(1),  # any side
            flatten=nn.Flatten(1),
            classifier=nn.Linear(classifier.in_channels, classifier.out_channels),
        )
    )


def _conv_norm_act(layer: Layer, name: str, number: int, spec: ModelSpec) -> dict[str, Any]:
    from torch import nn

    conv = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel, layer.stride, layer.padding, groups=layer.groups, bias=layer.bias)
    activation = nn.ReLU6() if spec.activation == "relu6" else nn.ReLU()
    return {name: conv, f"bn{number}": nn.BatchNorm2d(layer.out_channels), f"act{number}": activation}
