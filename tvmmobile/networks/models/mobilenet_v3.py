"""MobileNet v3 Large and Small as tables of blocks (arXiv 1905.02244, tables 1 and 2).

Names are torchvision's `mobilenet_v3_large` and `mobilenet_v3_small`, and for checkpoints also those of timm's `mobilenetv3_large_100` and
`mobilenetv3_small_100`. The two have different ε of the batch norms, and timm's head is a convolution of the pooled image.

At α other than 1, where the two differ, channels are those of the published networks (tensorflow/models `research/slim/nets/mobilenet`,
and timm): a block expands its rounded input by a factor, and the layer before the classifier does not shrink with α.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvmmobile.networks.models.blocks import (
    SAME,
    ActivationFunction,
    Convolution,
    Flatten,
    Gate,
    GlobalPool,
    Linear,
    Part,
    Sum,
    chain,
    make_divisible,
    unit,
)
from tvmmobile.networks.models.spec import ModelSpec

STEM_CHANNELS = 16
#: Below it, timm's networks keep the first convolution as it is.
STEM_ALPHA = 0.75
EPS, TIMM_EPS = 1e-3, 1e-5
RELU, SWISH = "relu", "hardswish"


@dataclass(frozen=True)
class InvertedResidual:
    """One block: side of the depthwise kernel, expansion, output channels at α = 1, squeeze-and-excite, activation, stride."""

    kernel: int
    expansion: float
    base: int
    gate: bool
    activation: str
    stride: int


#: In stages of the same side, as timm numbers them.
LARGE = (
    (InvertedResidual(3, 1, 16, False, RELU, 1),),
    (InvertedResidual(3, 4, 24, False, RELU, 2), InvertedResidual(3, 3, 24, False, RELU, 1)),
    (InvertedResidual(5, 3, 40, True, RELU, 2), *[InvertedResidual(5, 3, 40, True, RELU, 1)] * 2),
    (
        InvertedResidual(3, 6, 80, False, SWISH, 2),
        InvertedResidual(3, 2.5, 80, False, SWISH, 1),
        *[InvertedResidual(3, 2.3, 80, False, SWISH, 1)] * 2,
    ),
    (InvertedResidual(3, 6, 112, True, SWISH, 1),) * 2,
    (InvertedResidual(5, 6, 160, True, SWISH, 2), *[InvertedResidual(5, 6, 160, True, SWISH, 1)] * 2),
)
SMALL = (
    (InvertedResidual(3, 1, 16, True, RELU, 2),),
    (InvertedResidual(3, 4.5, 24, False, RELU, 2), InvertedResidual(3, 3.67, 24, False, RELU, 1)),
    (InvertedResidual(5, 4, 40, True, SWISH, 2), *[InvertedResidual(5, 6, 40, True, SWISH, 1)] * 2),
    (InvertedResidual(5, 3, 48, True, SWISH, 1),) * 2,
    (InvertedResidual(5, 6, 96, True, SWISH, 2), *[InvertedResidual(5, 6, 96, True, SWISH, 1)] * 2),
)
LARGE_HEAD, SMALL_HEAD = 1280, 1024


def body(spec: ModelSpec, stages: tuple[tuple[InvertedResidual, ...], ...], head: int) -> Part:
    """Return MobileNet v3 with these stages, and this many features before the classifier."""
    alpha = spec.alpha
    width = STEM_CHANNELS if alpha < STEM_ALPHA else make_divisible(STEM_CHANNELS * alpha)
    parts: list[Part] = [_unit(Convolution("features.0.0", width, 3, 2, timm="conv_stem"), "features.0", SWISH, "bn1")]
    for stage, blocks in enumerate(stages):
        for number, block in enumerate(blocks):
            outputs = make_divisible(block.base * alpha)
            parts.append(_block(block, f"features.{len(parts)}.block", f"blocks.{stage}.{number}", width, outputs))
            width = outputs
    last, timm = f"features.{len(parts)}", f"blocks.{len(stages)}.0"
    # Six times the last block's output at any α, and a multiple of 8 with it.
    parts.append(_unit(Convolution(f"{last}.0", 6 * width, timm=f"{timm}.conv"), last, SWISH, f"{timm}.bn1"))
    before = Linear("classifier.0", make_divisible(head * max(1.0, alpha)), timm="conv_head", timm_conv=True)
    classifier = Linear("classifier.3", spec.classes, timm="classifier")
    return chain(*parts, GlobalPool("avgpool"), Flatten("flatten"), before, ActivationFunction("classifier.1", SWISH), classifier)


def _block(block: InvertedResidual, path: str, timm: str, inputs: int, outputs: int) -> Part:
    """Return an inverted residual, with squeeze-and-excite behind the depthwise convolution where the block has it."""
    inner = make_divisible(inputs * block.expansion)
    parts: list[Part] = []
    expands = block.expansion != 1
    if expands:
        parts.append(_unit(Convolution(f"{path}.0.0", inner, timm=f"{timm}.conv_pw"), f"{path}.0", block.activation, f"{timm}.bn1"))
    at = f"{path}.{len(parts)}"
    depthwise = Convolution(f"{at}.0", inner, block.kernel, block.stride, groups=inner, timm=f"{timm}.conv_dw")
    parts.append(_unit(depthwise, at, block.activation, f"{timm}.bn{1 + expands}"))
    if block.gate:
        parts.append(_gate(f"{path}.{len(parts)}", f"{timm}.se", inner))
    at = f"{path}.{len(parts)}"
    project = Convolution(f"{at}.0", outputs, timm=f"{timm}.{'conv_pwl' if expands else 'conv_pw'}")
    parts.append(_unit(project, at, None, f"{timm}.bn{2 + expands}"))
    return Sum((chain(*parts), SAME)) if block.stride == 1 and inputs == outputs else chain(*parts)


def _unit(conv: Convolution, path: str, activation: str | None, timm: str) -> Part:
    return unit(conv, f"{path}.1", f"{path}.2", activation, eps=EPS, timm=timm, timm_eps=TIMM_EPS)


def _gate(path: str, timm: str, channels: int) -> Gate:
    """Return a factor for each channel, between 0 and 1, from the means of all of them."""
    reduce = Convolution(f"{path}.fc1", make_divisible(channels // 4), bias=True, timm=f"{timm}.conv_reduce")
    expand = Convolution(f"{path}.fc2", channels, bias=True, timm=f"{timm}.conv_expand")
    squeezed, factor = ActivationFunction(f"{path}.activation", RELU), ActivationFunction(f"{path}.scale_activation", "hardsigmoid")
    return Gate(chain(GlobalPool(f"{path}.avgpool"), reduce, squeezed, expand, factor))
