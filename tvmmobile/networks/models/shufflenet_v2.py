"""ShuffleNet v2 as a table of blocks (arXiv 1807.11164, table 5). Names are torchvision's `shufflenet_v2_x1_0`."""

from __future__ import annotations

from tvmmobile.networks.models.blocks import Concat, Convolution, KeepHalf, Linear, Part, Pooling, Shuffle, chain, classified, unit
from tvmmobile.networks.models.spec import ModelSpec

STEM_CHANNELS = 24
#: α: channels of the three stages, and of the last convolution.
CHANNELS = {0.5: (48, 96, 192, 1024), 1.0: (116, 232, 464, 1024), 1.5: (176, 352, 704, 1024), 2.0: (244, 488, 976, 2048)}
#: Blocks of the three stages; the first of each has stride 2.
BLOCKS = (4, 8, 4)


def body(spec: ModelSpec) -> Part:
    """Return the network."""
    *stages, head = CHANNELS[spec.alpha]
    width = STEM_CHANNELS
    parts: list[Part] = [unit(Convolution("conv1.0", width, 3, 2), "conv1.1", "conv1.2", "relu"), Pooling("maxpool", 3, 2, 1)]
    for number, (blocks, outputs) in enumerate(zip(BLOCKS, stages, strict=True), start=2):
        parts.append(_halving(f"stage{number}.0", width, outputs // 2))
        for block in range(1, blocks):
            parts.append(chain(KeepHalf(outputs // 2, _branch(f"stage{number}.{block}.branch2", 1, outputs // 2)), Shuffle(2)))
        width = outputs
    last = unit(Convolution("conv5.0", head), "conv5.1", "conv5.2", "relu")
    return classified((*parts, last), "pool", Linear("fc", spec.classes))


def _halving(path: str, inputs: int, half: int) -> Part:
    """Return the block that halves the side: two branches of all channels, each with half of the output's."""
    left = f"{path}.branch1"
    depthwise = unit(Convolution(f"{left}.0", inputs, 3, 2, groups=inputs), f"{left}.1", "", None)
    pointwise = unit(Convolution(f"{left}.2", half), f"{left}.3", f"{left}.4", "relu")
    return chain(Concat((chain(depthwise, pointwise), _branch(f"{path}.branch2", 2, half))), Shuffle(2))


def _branch(path: str, stride: int, half: int) -> Part:
    return chain(
        unit(Convolution(f"{path}.0", half), f"{path}.1", f"{path}.2", "relu"),
        unit(Convolution(f"{path}.3", half, 3, stride, groups=half), f"{path}.4", "", None),
        unit(Convolution(f"{path}.5", half), f"{path}.6", f"{path}.7", "relu"),
    )
