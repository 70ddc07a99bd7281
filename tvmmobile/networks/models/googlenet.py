"""GoogLeNet as a table of inception modules (arXiv 1409.4842, table 1), without the heads that serve training alone.

This is torchvision's `googlenet`, with its names, batch norms, and 3×3 convolutions where the paper has 5×5. torchvision's own weights
expect images normalised with a mean and a deviation of 0.5 (its `transform_input`).
"""

from __future__ import annotations

from tvmmobile.networks.models.blocks import Concat, Convolution, Linear, Part, Pooling, Sequential, chain, classified, unit
from tvmmobile.networks.models.spec import ModelSpec

EPS = 1e-3
#: Inception modules: channels of 1×1, of 3×3 after a reduction, of the one that was 5×5 after a reduction, and behind the pooling.
#: A number is a pooling's window.
TABLE: tuple[tuple[str, int | tuple[int, ...]], ...] = (
    ("inception3a", (64, 96, 128, 16, 32, 32)),
    ("inception3b", (128, 128, 192, 32, 96, 64)),
    ("maxpool3", 3),
    ("inception4a", (192, 96, 208, 16, 48, 64)),
    ("inception4b", (160, 112, 224, 24, 64, 64)),
    ("inception4c", (128, 128, 256, 24, 64, 64)),
    ("inception4d", (112, 144, 288, 32, 64, 64)),
    ("inception4e", (256, 160, 320, 32, 128, 128)),
    ("maxpool4", 2),
    ("inception5a", (256, 160, 320, 32, 128, 128)),
    ("inception5b", (384, 192, 384, 48, 128, 128)),
)


def body(spec: ModelSpec) -> Sequential:
    """Return the network."""
    parts: list[Part] = [
        _unit("conv1", 64, 7, 2),
        Pooling("maxpool1", 3, 2, ceil=True),
        _unit("conv2", 64),
        _unit("conv3", 192, 3),
        Pooling("maxpool2", 3, 2, ceil=True),
    ]
    parts += [Pooling(path, row, 2, ceil=True) if isinstance(row, int) else _inception(path, *row) for path, row in TABLE]
    return classified(parts, "avgpool", Linear("fc", spec.classes))


def _unit(path: str, out: int, kernel: int = 1, stride: int = 1) -> Sequential:
    return unit(Convolution(f"{path}.conv", out, kernel, stride), f"{path}.bn", f"{path}.act", "relu", eps=EPS)


def _inception(path: str, one: int, reduced_three: int, three: int, reduced_five: int, five: int, pooled: int) -> Concat:
    return Concat(
        (
            _unit(f"{path}.branch1", one),
            chain(_unit(f"{path}.branch2.0", reduced_three), _unit(f"{path}.branch2.1", three, 3)),
            chain(_unit(f"{path}.branch3.0", reduced_five), _unit(f"{path}.branch3.1", five, 3)),
            chain(Pooling(f"{path}.branch4.0", 3, 1, 1, ceil=True), _unit(f"{path}.branch4.1", pooled)),
        )
    )
