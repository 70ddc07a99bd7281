"""ShuffleNet v1 with three groups as a table of blocks (arXiv 1707.01083, table 1, column g = 3).

Names, and the channels of the first convolution, are those of the authors' PyTorch networks (github.com/megvii-model/ShuffleNet-Series,
`ShuffleNetV1`). As in the paper, the first 1×1 convolution of the first block has no groups, because its input has few channels.
"""

from __future__ import annotations

from tvmmobile.networks.models.blocks import SAME, Concat, Convolution, Linear, Part, Pooling, Shuffle, Sum, chain, classified, relu, unit
from tvmmobile.networks.models.spec import ModelSpec

GROUPS = 3
#: α: channels of the first convolution.
STEM_CHANNELS = {0.5: 12, 1.0: 24, 1.5: 24, 2.0: 48}
#: Stages of blocks: (blocks, output channels at α = 1); the first block of each has stride 2.
STAGES = ((4, 240), (8, 480), (4, 960))


def body(spec: ModelSpec) -> Part:
    """Return the network."""
    width = STEM_CHANNELS[spec.alpha]
    parts: list[Part] = [
        unit(Convolution("first_conv.0", width, 3, 2), "first_conv.1", "first_conv.2", "relu"),
        Pooling("maxpool", 3, 2, 1),
    ]
    for blocks, base in STAGES:
        outputs = int(base * spec.alpha)
        for block in range(blocks):
            first_groups = 1 if len(parts) == 2 else GROUPS
            parts.append(_block(f"features.{len(parts) - 2}", 2 if block == 0 else 1, width, outputs, first_groups))
            width = outputs
    return classified(parts, "globalpool", Linear("classifier.0", spec.classes, bias=False))


def _block(path: str, stride: int, inputs: int, outputs: int, first_groups: int) -> Part:
    """Return grouped 1×1, depthwise, shuffle, grouped 1×1; added to the input, or beside the pooled input where it halves the side.

    The paper shuffles before the depthwise convolution, and from groups to channels in turn; the authors' networks behind it, and the
    other way round. Every group still sees as many channels of every other one, and their weights are for the latter.
    """
    inner = outputs // 4
    one, two, act = f"{path}.branch_main_1", f"{path}.branch_main_2", relu(f"{path}.act")
    channels = outputs if stride == 1 else outputs - inputs
    main = chain(
        unit(Convolution(f"{one}.0", inner, groups=first_groups), f"{one}.1", f"{one}.2", "relu"),
        unit(Convolution(f"{one}.3", inner, 3, stride, groups=inner), f"{one}.4", "", None),
        Shuffle(inner // GROUPS),
        unit(Convolution(f"{two}.0", channels, groups=GROUPS), f"{two}.1", "", None),
    )
    if stride == 1:
        return chain(Sum((main, SAME)), act)
    return chain(Concat((Pooling(f"{path}.branch_proj", 3, 2, 1, mean=True), chain(main, act))))
