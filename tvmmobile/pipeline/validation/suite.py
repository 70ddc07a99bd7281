"""The suite that validates a board. The kernels span the model's terms: the core alone, each level of the caches, weights, stores.

Each runs repeatedly, so that its sizes determine what it waits for: data that does not fit into a cache is read from the next level each
time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tvmmobile.graph.layers import Conv2d, Dense, Layer, MaxPool
from tvmmobile.networks.models.published import IMAGENET_CLASSES

_RELU6 = (0.0, 6.0)


@dataclass(frozen=True)
class SuiteNetwork:
    """A variant of MobileNet v1."""

    alpha: float
    resolution: int
    classes: int = IMAGENET_CLASSES

    @property
    def name(self) -> str:
        """The variant's name, such as `v1 0.25-128`."""
        return f"v1 {self.alpha}-{self.resolution}"


@dataclass(frozen=True)
class Suite:
    """Kernels and networks. Raise `version` with every change.

    Attributes:
        version: version of the lists.
        kernels: layers by name; each with its template's default schedule.
        networks: networks, compiled from the tuning logs as far as they have records.
    """

    version: int
    kernels: dict[str, Layer] = field(hash=False)
    networks: tuple[SuiteNetwork, ...]

    @property
    def names(self) -> list[str]:
        """Names of all points, in their order."""
        return [*self.kernels, *(network.name for network in self.networks)]


def _pointwise(side: int, channels: int, out: int) -> tuple[str, Layer]:
    return f"1x1 {side}x{side}x{channels}>{out}", Conv2d(side, side, channels, out, clamp=_RELU6)


def _depthwise(side: int, channels: int, stride: int = 1) -> tuple[str, Layer]:
    layer = Conv2d(side, side, channels, channels, (3, 3), (stride, stride), (1, 1, 1, 1), channels, _RELU6)
    return f"depthwise {side}x{side}x{channels}" + (f" /{stride}" if stride > 1 else ""), layer


def _kernels() -> Iterator[tuple[str, Layer]]:
    # The core: all data in the first or second level, and used often.
    yield from (
        _pointwise(14, 128, 128),
        _pointwise(28, 64, 64),
        _pointwise(28, 128, 128),
        _pointwise(14, 256, 256),
        _pointwise(56, 64, 64),
    )
    # Weights from memory, used ever less often; the smallest fit into every second level.
    yield from (_pointwise(14, 512, 512), _pointwise(7, 512, 512), _pointwise(7, 1024, 1024), _pointwise(4, 1024, 1024))
    yield from ((f"dense {inputs}>{outputs}", Dense(inputs, outputs)) for inputs, outputs in ((256, 256), (1024, 1000), (2048, 1000)))
    # Little work for each element: from the first level, the second, and memory.
    yield from (
        _depthwise(14, 32),
        _depthwise(28, 32),
        _depthwise(28, 128),
        _depthwise(56, 128),
        _depthwise(112, 32),
        _depthwise(112, 64, 2),
    )
    yield "max pool 112x112x64 /2", MaxPool(112, 112, 64, (3, 3), (2, 2), (0, 0, 1, 1))
    # Outputs larger than inputs: into the second level, and beyond it.
    yield from (_pointwise(28, 8, 64), _pointwise(56, 8, 64), _pointwise(56, 8, 128), _pointwise(112, 8, 64))


#: About a minute and a half on a Raspberry Pi 4.
SUITE = Suite(
    1, dict(_kernels()), tuple(SuiteNetwork(*variant) for variant in ((0.25, 128), (0.25, 224), (0.5, 160), (0.75, 192), (1.0, 224)))
)
