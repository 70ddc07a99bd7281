"""MobileNet v1 as a table of blocks (arXiv 1704.04861, table 1), and the two networks that the paper compares it with.

Two choices where published code differs:
- channels are `max(int(c · α), 8)`, as in tensorflow/models `research/slim/nets/mobilenet_v1.py` (`min_depth=8`); they are not rounded
  to multiples of 8;
- padding is symmetric, as in PyTorch ports, not TensorFlow's `SAME`.
The last depthwise layer has stride 1: the paper prints 2, but with a 7×7 input and a 7×7 output.
"""

from __future__ import annotations

from collections.abc import Callable

from tvmmobile.networks.models.blocks import Convolution, Linear, Part, Sequential, chain, classified, unit
from tvmmobile.networks.models.spec import ModelSpec

STEM_CHANNELS = 32
MIN_CHANNELS = 8
#: Stages of blocks: (blocks, stride of the first, output channels at α = 1).
STAGES = ((1, 1, 64), (2, 2, 128), (2, 2, 256), (6, 2, 512), (2, 2, 1024))
#: Without the five blocks 14×14×512 (section 4.1, table 5).
SHALLOW_STAGES = ((1, 1, 64), (2, 2, 128), (2, 2, 256), (1, 2, 512), (2, 2, 1024))

#: Makes a block: its path, stride, input and output channels, activation.
_Block = Callable[[str, int, int, int, str], Sequential]


def channels(base: int, alpha: float) -> int:
    """Return the channels of a layer that has `base` of them at α = 1."""
    return max(int(base * alpha), MIN_CHANNELS)


def _separable(path: str, stride: int, inputs: int, outputs: int, activation: str) -> Sequential:
    depthwise = Convolution(f"{path}.conv_dw", inputs, 3, stride, groups=inputs)
    pointwise = Convolution(f"{path}.conv_pw", outputs)
    return chain(unit(depthwise, f"{path}.bn1", f"{path}.act1", activation), unit(pointwise, f"{path}.bn2", f"{path}.act2", activation))


def full(path: str, stride: int, _inputs: int, outputs: int, activation: str) -> Sequential:
    """Return a 3×3 convolution, in place of a depthwise separable one (section 4.1, table 4)."""
    return unit(Convolution(f"{path}.conv", outputs, 3, stride), f"{path}.bn1", f"{path}.act1", activation)


def body(spec: ModelSpec, stages: tuple[tuple[int, int, int], ...] = STAGES, block_of: _Block = _separable) -> Sequential:
    """Return the network: 28 layers with weights, named as in timm's `mobilenetv1_100`."""
    width = channels(STEM_CHANNELS, spec.alpha)
    parts: list[Part] = [unit(Convolution("conv_stem", width, 3, 2), "bn1", "act1", spec.activation)]
    for stage, (blocks, first_stride, base) in enumerate(stages):
        outputs = channels(base, spec.alpha)
        for block in range(blocks):
            parts.append(block_of(f"blocks.{stage}.{block}", first_stride if block == 0 else 1, width, outputs, spec.activation))
            width = outputs
    return classified(parts, "pool", Linear("classifier", spec.classes))
