"""Xception as a table of blocks (arXiv 1610.02357, figure 5).

Names are those of timm's `legacy_xception`. There is no activation or batch norm between a depthwise convolution and its pointwise
convolution.
"""

from __future__ import annotations

from tvmmobile.networks.models.blocks import SAME, Convolution, Linear, Part, Pooling, Sequential, Sum, chain, classified, relu, unit
from tvmmobile.networks.models.spec import ModelSpec

#: Blocks: output channels of their separable convolutions, and stride; the last convolution's are those of the block.
BLOCKS = (((128, 128), 2), ((256, 256), 2), ((728, 728), 2), *[((728, 728, 728), 1)] * 8, ((728, 1024), 2))
_STEM = 64


def body(spec: ModelSpec) -> Sequential:
    """Return the network."""
    parts: list[Part] = [
        unit(Convolution("conv1", 32, 3, 2, padding=0), "bn1", "act1", "relu"),
        unit(Convolution("conv2", _STEM, 3, padding=0), "bn2", "act2", "relu"),
    ]
    width = _STEM
    for number, (outputs, stride) in enumerate(BLOCKS, start=1):
        parts.append(_block(f"block{number}", width, outputs, stride, activated=number == 1))
        width = outputs[-1]
    parts += [_separable("conv3", width, 1536, "bn3"), relu("act3"), _separable("conv4", 1536, 2048, "bn4"), relu("act4")]
    return classified(parts, "global_pool", Linear("fc", spec.classes))


def _block(path: str, inputs: int, outputs: tuple[int, ...], stride: int, *, activated: bool) -> Sum:
    """Return separable convolutions, each behind an activation (unless the input comes from one), and a shortcut around them."""
    parts: list[Part] = []
    width = inputs
    for number, channels in enumerate(outputs):
        if number or not activated:
            parts.append(relu(f"{path}.rep.{_position(number, activated) - 1}"))
        at = _position(number, activated)
        parts.append(_separable(f"{path}.rep.{at}", width, channels, f"{path}.rep.{at + 1}"))
        width = channels
    if stride == 1:
        return Sum((chain(*parts), SAME))
    parts.append(Pooling(f"{path}.rep.{_position(len(outputs), activated) - 1}", 3, stride, 1))
    return Sum((chain(*parts), unit(Convolution(f"{path}.skip", width, 1, stride), f"{path}.skipbn", "", None)))


def _position(number: int, activated: bool) -> int:
    """Return the index in a block of its separable convolution of that number; activation, convolution and batch norm count."""
    return 3 * number + (0 if activated else 1)


def _separable(path: str, inputs: int, outputs: int, norm: str) -> Sequential:
    depthwise = Convolution(f"{path}.conv1", inputs, 3, groups=inputs)
    return chain(depthwise, unit(Convolution(f"{path}.pointwise", outputs), norm, "", None))
