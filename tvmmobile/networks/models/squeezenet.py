"""SqueezeNet 1.0 (arXiv 1602.07360, table 1) and 1.1 (github.com/forresti/SqueezeNet, `SqueezeNet_v1.1`) as tables of fire modules.

Names are torchvision's `squeezenet1_0` and `squeezenet1_1`; as there, the first convolution has no padding.
"""

from __future__ import annotations

from tvmmobile.networks.models.blocks import Activation, Chain, Concat, Conv, Flatten, GlobalPool, Part, Pool
from tvmmobile.networks.models.spec import ModelSpec

#: Fire modules: channels that they squeeze to, and those of either expanding layer. `None` is a pooling.
V1_0 = (None, (16, 64), (16, 64), (32, 128), None, (32, 128), (48, 192), (48, 192), (64, 256), None, (64, 256))
V1_1 = (None, (16, 64), (16, 64), None, (32, 128), (32, 128), None, (48, 192), (48, 192), (64, 256), (64, 256))

_Table = tuple[tuple[int, int] | None, ...]


def body_1_0(spec: ModelSpec) -> Chain:
    """SqueezeNet 1.0."""
    return _network(spec, Conv("features.0", 96, 7, 2, padding=0, bias=True), V1_0)


def body_1_1(spec: ModelSpec) -> Chain:
    """SqueezeNet 1.1: as accurate, with less than half of the multiply-adds."""
    return _network(spec, Conv("features.0", 64, 3, 2, padding=0, bias=True), V1_1)


def _network(spec: ModelSpec, stem: Conv, table: _Table) -> Chain:
    parts: list[Part] = [stem, Activation("features.1", "relu")]
    for row in table:
        path = f"features.{len(parts)}"
        parts.append(Pool(path, 3, 2, ceil=True) if row is None else _fire(path, *row))
    classifier = Conv("classifier.1", spec.classes, bias=True)
    return Chain((*parts, classifier, Activation("classifier.2", "relu"), GlobalPool("classifier.3"), Flatten("flatten")))


def _fire(path: str, squeezed: int, expanded: int) -> Chain:
    """1×1 to few channels, then 1×1 and 3×3 side by side."""
    return Chain(
        (
            Conv(f"{path}.squeeze", squeezed, bias=True),
            Activation(f"{path}.squeeze_activation", "relu"),
            Concat(
                (
                    Chain((Conv(f"{path}.expand1x1", expanded, bias=True), Activation(f"{path}.expand1x1_activation", "relu"))),
                    Chain((Conv(f"{path}.expand3x3", expanded, 3, bias=True), Activation(f"{path}.expand3x3_activation", "relu"))),
                )
            ),
        )
    )
