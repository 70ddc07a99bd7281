"""SqueezeNet 1.0 (arXiv 1602.07360, table 1) and 1.1 (github.com/forresti/SqueezeNet, `SqueezeNet_v1.1`) as tables of fire modules.

Names are torchvision's `squeezenet1_0` and `squeezenet1_1`; as there, the first convolution has no padding.
"""

from __future__ import annotations

from tvmmobile.networks.models.blocks import Concat, Convolution, Flatten, GlobalPool, Part, Pooling, chain, relu
from tvmmobile.networks.models.spec import ModelSpec

#: Fire modules: channels that they squeeze to, and those of either expanding layer. `None` is a pooling.
V1_0 = (None, (16, 64), (16, 64), (32, 128), None, (32, 128), (48, 192), (48, 192), (64, 256), None, (64, 256))
V1_1 = (None, (16, 64), (16, 64), None, (32, 128), (32, 128), None, (48, 192), (48, 192), (64, 256), (64, 256))

_Table = tuple[tuple[int, int] | None, ...]


def body(spec: ModelSpec, channels: int, kernel: int, table: _Table) -> Part:
    """Return SqueezeNet with this first convolution; 1.1 is as accurate as 1.0, with less than half of the multiply-adds."""
    parts: list[Part] = [Convolution("features.0", channels, kernel, 2, padding=0, bias=True), relu("features.1")]
    for row in table:
        path = f"features.{len(parts)}"
        parts.append(Pooling(path, 3, 2, ceil=True) if row is None else _fire(path, *row))
    classifier = Convolution("classifier.1", spec.classes, bias=True)
    return chain(*parts, classifier, relu("classifier.2"), GlobalPool("classifier.3"), Flatten("flatten"))


def _fire(path: str, squeezed: int, expanded: int) -> Part:
    """Return 1×1 to few channels, then 1×1 and 3×3 side by side."""
    expansions = Concat((chain(*_activated(f"{path}.expand1x1", expanded)), chain(*_activated(f"{path}.expand3x3", expanded, 3))))
    return chain(*_activated(f"{path}.squeeze", squeezed), expansions)


def _activated(path: str, out: int, kernel: int = 1) -> tuple[Part, Part]:
    return Convolution(path, out, kernel, bias=True), relu(f"{path}_activation")
