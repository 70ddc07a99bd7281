"""MobileNet v2 as a table of blocks (arXiv 1801.04381, table 2): inverted residuals with linear bottlenecks.

Names are torchvision's `mobilenet_v2`, and for checkpoints also those of timm's `mobilenetv2_100`.
"""

from __future__ import annotations

from tvmmobile.networks.models.blocks import SAME, Convolution, Linear, Part, Sequential, Sum, chain, classified, make_divisible, unit
from tvmmobile.networks.models.spec import ModelSpec

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
#: Stages of blocks: (expansion, output channels at α = 1, blocks, stride of the first).
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def body(spec: ModelSpec) -> Sequential:
    """Return the network. Channels are multiples of 8; those of the last convolution grow with α, but do not shrink with it."""
    width = make_divisible(STEM_CHANNELS * spec.alpha)
    head = make_divisible(HEAD_CHANNELS * max(1.0, spec.alpha))
    act = spec.activation
    parts: list[Part] = [unit(Convolution("features.0.0", width, 3, 2, timm="conv_stem"), "features.0.1", "features.0.2", act, timm="bn1")]
    for stage, (expansion, base, blocks, first_stride) in enumerate(STAGES):
        outputs = make_divisible(base * spec.alpha)
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            parts.append(_block(f"features.{len(parts)}.conv", f"blocks.{stage}.{block}", expansion, stride, width, outputs, act))
            width = outputs
    last = f"features.{len(parts)}"
    parts.append(unit(Convolution(f"{last}.0", head, timm="conv_head"), f"{last}.1", f"{last}.2", act, timm="bn2"))
    return classified(parts, "pool", Linear("classifier.1", spec.classes, timm="classifier"))


def _block(path: str, timm: str, expansion: int, stride: int, inputs: int, outputs: int, act: str) -> Part:
    """Return an inverted residual: expand, depthwise, and project without activation; around it a shortcut where the shapes allow one."""
    inner = inputs * expansion
    parts: list[Part] = []
    # timm names a block without expansion as one of MobileNet v1.
    names = ("conv_pw", "conv_dw", "conv_pwl") if expansion > 1 else ("conv_dw", "conv_pw")
    if expansion > 1:
        expand = Convolution(f"{path}.0.0", inner, timm=f"{timm}.conv_pw")
        parts.append(unit(expand, f"{path}.0.1", f"{path}.0.2", act, timm=f"{timm}.bn1"))
    at = f"{path}.{len(parts)}"
    depthwise = Convolution(f"{at}.0", inner, 3, stride, groups=inner, timm=f"{timm}.conv_dw")
    parts.append(unit(depthwise, f"{at}.1", f"{at}.2", act, timm=f"{timm}.bn{len(parts) + 1}"))
    number = len(parts)
    project = Convolution(f"{path}.{number}", outputs, timm=f"{timm}.{names[-1]}")
    parts.append(unit(project, f"{path}.{number + 1}", "", None, timm=f"{timm}.bn{number + 1}"))
    return Sum((SAME, chain(*parts))) if stride == 1 and inputs == outputs else chain(*parts)
