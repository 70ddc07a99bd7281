"""Published figures, each with its source.

Figures of different sources are never mixed: they are separate trainings and separate counts.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The MobileNets paper; figures of tables 4 to 8.
PAPER = "arXiv 1704.04861"
#: Networks retrained by the TensorFlow authors.
SLIM = "tensorflow/models research/slim/nets/mobilenet_v1.md"
#: Every accuracy here is ImageNet's: a classifier for other classes has none of them.
IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Published:
    """One published network.

    Attributes:
        source: `PAPER` or `SLIM`.
        top1: ImageNet top-1 accuracy in percent.
        macs_m: million multiply-adds, as printed.
        params_m: million parameters, as printed.
    """

    source: str
    top1: float
    macs_m: int
    params_m: float


@dataclass(frozen=True)
class TypeShare:
    """One row of the paper's table 2: shares of a layer type in percent."""

    macs: float
    params: float


#: (α, resolution) → the paper's figures for MobileNet v1: its width rows at 224 and its resolution rows at α = 1, and the
#: 0.50-160 model it sets against AlexNet and SqueezeNet. The resolution rows share one parameter count.
_PAPER_V1 = {
    (1.0, 224): (70.6, 569, 4.2),
    (0.75, 224): (68.4, 325, 2.6),
    (0.5, 224): (63.7, 149, 1.3),
    (0.25, 224): (50.6, 41, 0.5),
    (1.0, 192): (69.1, 418, 4.2),
    (1.0, 160): (67.2, 290, 4.2),
    (1.0, 128): (64.4, 186, 4.2),
    (0.5, 160): (60.2, 76, 1.32),
}

#: α → (top-1 and million multiply-adds at 224, 192, 160, 128; million parameters), from `SLIM`. Its multiply-adds differ from a
#: layer-by-layer count in places, such as 0.75 at 224 and 0.25 at 192.
_SLIM_V1 = {
    1.0: ((70.9, 70.0, 68.0, 65.2), (569, 418, 291, 186), 4.24),
    0.75: ((68.4, 67.2, 65.3, 62.1), (317, 233, 162, 104), 2.59),
    0.5: ((63.3, 61.7, 59.1, 56.3), (150, 110, 77, 49), 1.34),
    0.25: ((49.8, 47.7, 45.5, 41.5), (41, 34, 21, 14), 0.47),
}
_SLIM_SIDES = (224, 192, 160, 128)

#: Where the work of MobileNet v1 1.0 at 224 is (table 2). The paper prints 1.19 for the multiply-adds of the 3×3 convolution;
#: its column then sums to 99.29, and a count gives 1.91.
_PAPER_V1_TYPES = {
    "conv 1×1": TypeShare(94.86, 74.59),
    "depthwise 3×3": TypeShare(3.06, 1.06),
    "conv 3×3": TypeShare(1.19, 0.02),
    "fully connected": TypeShare(0.18, 24.33),
}


def paper_figures(name: str, alpha: float, resolution: int) -> Published | None:
    """The paper's figures for a variant, or None where it has none."""
    row = _PAPER_V1.get((alpha, resolution)) if name == "mobilenet_v1" else None
    return Published(PAPER, *row) if row else None


def slim_figures(name: str, alpha: float, resolution: int) -> Published | None:
    """The retrained network's figures in tensorflow/models, or None where there is none."""
    row = _SLIM_V1.get(alpha) if name == "mobilenet_v1" else None
    if row is None or resolution not in _SLIM_SIDES:
        return None
    column = _SLIM_SIDES.index(resolution)
    return Published(SLIM, row[0][column], row[1][column], row[2])


def paper_type_shares(name: str, alpha: float, resolution: int) -> dict[str, TypeShare]:
    """The paper's shares by layer type as printed; empty where it prints none."""
    return dict(_PAPER_V1_TYPES) if (name, alpha, resolution) == ("mobilenet_v1", 1.0, 224) else {}
