"""Published figures, each with its source.

Figures of different sources are never mixed: they are separate trainings and separate counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: The MobileNets paper; its own networks, and those of others that it compares with.
PAPER = "arXiv 1704.04861"
V2_PAPER = "arXiv 1801.04381"
V3_PAPER = "arXiv 1905.02244"
SQUEEZENET_PAPER = "arXiv 1602.07360"
SHUFFLENET_V1_PAPER = "arXiv 1707.01083"
SHUFFLENET_V2_PAPER = "arXiv 1807.11164"
XCEPTION_PAPER = "arXiv 1610.02357"
#: Networks retrained by the TensorFlow authors.
SLIM = "tensorflow/models research/slim/nets/mobilenet_v1.md"
SLIM_LATER = "tensorflow/models research/slim/nets/mobilenet/README.md"
#: Networks trained by others, in PyTorch.
TORCHVISION = "pytorch/vision torchvision/models, weights IMAGENET1K_V1"
MEGVII = "megvii-model/ShuffleNet-Series ShuffleNetV1/README.md"
PYTORCHCV = "osmr/imgclsmob pytorch/README.md"
#: Columns of tables are headed with these.
LABELS = {SLIM: "slim", SLIM_LATER: "slim", TORCHVISION: "torchv.", MEGVII: "megvii", PYTORCHCV: "osmr"}
#: Every accuracy here is ImageNet's: a classifier for other classes has none of them.
IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Published:
    """One published network.

    Attributes:
        source: a paper, or a file of a repository.
        top1: ImageNet top-1 accuracy in percent; as all that follow, `None` where the source has no figure.
        macs_m: million multiply-adds, as printed.
        params_m: million parameters, as printed.
        tables: where in the source, if it is a paper.
    """

    source: str
    top1: float | None
    macs_m: float | None
    params_m: float | None
    tables: str = ""

    @property
    def label(self) -> str:
        """The source in a word, for the heading of a column."""
        return LABELS.get(self.source, "paper")


@dataclass(frozen=True)
class TypeShare:
    """One row of the paper's table 2: shares of a layer type in percent."""

    macs: float
    params: float


_Key = tuple[str, float, int]

#: The resolution rows of the MobileNets paper share one parameter count. 0.50-160 is the model it sets against AlexNet and SqueezeNet.
_PAPERS: dict[_Key, Published] = {
    ("mobilenet_v1", 1.0, 224): Published(PAPER, 70.6, 569, 4.2, "tables 4, 6 and 8"),
    ("mobilenet_v1", 0.75, 224): Published(PAPER, 68.4, 325, 2.6, "tables 5 and 6"),
    ("mobilenet_v1", 0.5, 224): Published(PAPER, 63.7, 149, 1.3, "table 6"),
    ("mobilenet_v1", 0.25, 224): Published(PAPER, 50.6, 41, 0.5, "table 6"),
    ("mobilenet_v1", 1.0, 192): Published(PAPER, 69.1, 418, 4.2, "table 7"),
    ("mobilenet_v1", 1.0, 160): Published(PAPER, 67.2, 290, 4.2, "table 7"),
    ("mobilenet_v1", 1.0, 128): Published(PAPER, 64.4, 186, 4.2, "table 7"),
    ("mobilenet_v1", 0.5, 160): Published(PAPER, 60.2, 76, 1.32, "table 9"),
    ("mobilenet_v1_full", 1.0, 224): Published(PAPER, 71.7, 4866, 29.3, "table 4"),
    ("mobilenet_v1_shallow", 1.0, 224): Published(PAPER, 65.3, 307, 2.9, "table 5"),
    ("mobilenet_v2", 1.0, 224): Published(V2_PAPER, 72.0, 300, 3.4, "table 4"),
    ("mobilenet_v2", 1.4, 224): Published(V2_PAPER, 74.7, 585, 6.9, "table 4"),
    ("mobilenet_v3_large", 1.0, 224): Published(V3_PAPER, 75.2, 219, 5.4, "table 3"),
    ("mobilenet_v3_small", 1.0, 224): Published(V3_PAPER, 67.4, 56, 2.5, "table 3"),
    ("squeezenet1_0", 1.0, 224): Published(PAPER, 57.5, 1700, 1.25, "table 9"),
    ("shufflenet_v1", 1.0, 224): Published(SHUFFLENET_V1_PAPER, 67.4, 137, None, "tables 1 and 3"),
    ("shufflenet_v1", 0.5, 224): Published(SHUFFLENET_V1_PAPER, 56.8, 38, None, "tables 2 and 3"),
    ("shufflenet_v2", 0.5, 224): Published(SHUFFLENET_V2_PAPER, 60.3, 41, 1.4, "tables 5 and 8"),
    ("shufflenet_v2", 1.0, 224): Published(SHUFFLENET_V2_PAPER, 69.4, 146, 2.3, "tables 5 and 8"),
    ("shufflenet_v2", 1.5, 224): Published(SHUFFLENET_V2_PAPER, 72.6, 299, 3.5, "tables 5 and 8"),
    ("shufflenet_v2", 2.0, 224): Published(SHUFFLENET_V2_PAPER, 74.9, 591, 7.4, "tables 5 and 8"),
    ("xception", 1.0, 299): Published(XCEPTION_PAPER, 79.0, None, 22.86, "tables 1 and 3"),
    ("googlenet", 1.0, 224): Published(PAPER, 69.8, 1550, 6.8, "table 8"),
    ("vgg16", 1.0, 224): Published(PAPER, 71.5, 15300, 138, "table 8"),
    ("alexnet", 1.0, 224): Published(PAPER, 57.2, 720, 60, "table 9"),
}

_SLIM_SIDES = (224, 192, 160, 128, 96)
#: α → (top-1 and million multiply-adds at 224, 192, 160, 128 and for v2 96; million parameters), from `SLIM` and `SLIM_LATER`.
#: v1's multiply-adds differ from a layer-by-layer count in places, such as 0.75 at 224 and 0.25 at 192.
_SlimTable = Mapping[float, tuple[tuple[float, ...], tuple[int, ...], float]]
_SLIM_V1: _SlimTable = {
    1.0: ((70.9, 70.0, 68.0, 65.2), (569, 418, 291, 186), 4.24),
    0.75: ((68.4, 67.2, 65.3, 62.1), (317, 233, 162, 104), 2.59),
    0.5: ((63.3, 61.7, 59.1, 56.3), (150, 110, 77, 49), 1.34),
    0.25: ((49.8, 47.7, 45.5, 41.5), (41, 34, 21, 14), 0.47),
}
_SLIM_V2: _SlimTable = {
    1.4: ((75.0,), (582,), 6.06),
    1.3: ((74.4,), (509,), 5.34),
    1.0: ((71.8, 70.7, 68.8, 65.3, 60.3), (300, 221, 154, 99, 56), 3.47),
    0.75: ((69.8, 68.7, 66.4, 63.2, 58.8), (209, 153, 107, 69, 39), 2.61),
    0.5: ((65.4, 63.9, 61.0, 57.7, 51.2), (97, 71, 50, 32, 18), 1.95),
    0.35: ((60.3, 58.2, 55.7, 50.8, 45.5), (59, 43, 30, 20, 11), 1.66),
}
_SLIM_V3: dict[_Key, Published] = {
    ("mobilenet_v3_large", 1.0, 224): Published(SLIM_LATER, 75.2, 217, 5.4),
    ("mobilenet_v3_large", 0.75, 224): Published(SLIM_LATER, 73.3, 155, 4.0),
    ("mobilenet_v3_small", 1.0, 224): Published(SLIM_LATER, 67.5, 66, 2.9),
    ("mobilenet_v3_small", 0.75, 224): Published(SLIM_LATER, 65.4, 44, 2.4),
}

#: Of other people's networks in PyTorch, as their documentation prints them.
_OTHERS: dict[_Key, Published] = {
    ("mobilenet_v2", 1.0, 224): Published(TORCHVISION, 71.9, 301, 3.50),
    ("mobilenet_v3_large", 1.0, 224): Published(TORCHVISION, 74.0, 217, 5.48),
    ("mobilenet_v3_small", 1.0, 224): Published(TORCHVISION, 67.7, 57, 2.54),
    ("squeezenet1_0", 1.0, 224): Published(TORCHVISION, 58.1, 819, 1.25),
    ("squeezenet1_1", 1.0, 224): Published(TORCHVISION, 58.2, 349, 1.24),
    ("shufflenet_v1", 0.5, 224): Published(MEGVII, 57.3, 38, 0.7),
    ("shufflenet_v1", 1.0, 224): Published(MEGVII, 67.8, 138, 1.9),
    ("shufflenet_v1", 1.5, 224): Published(MEGVII, 71.6, 292, 3.4),
    ("shufflenet_v1", 2.0, 224): Published(MEGVII, 74.1, 524, 5.4),
    ("shufflenet_v2", 0.5, 224): Published(TORCHVISION, 60.6, 40, 1.37),
    ("shufflenet_v2", 1.0, 224): Published(TORCHVISION, 69.4, 145, 2.28),
    ("shufflenet_v2", 1.5, 224): Published(TORCHVISION, 73.0, 296, 3.50),
    ("shufflenet_v2", 2.0, 224): Published(TORCHVISION, 76.2, 583, 7.39),
    ("xception", 1.0, 299): Published(PYTORCHCV, 79.0, 8404, 22.86),
    ("googlenet", 1.0, 224): Published(TORCHVISION, 69.8, 1498, 6.62),
    ("vgg16", 1.0, 224): Published(TORCHVISION, 71.6, 15470, 138.36),
    ("alexnet", 1.0, 224): Published(TORCHVISION, 56.5, 714, 61.10),
}

#: What to know of a source where its figures stand.
REMARKS = {SLIM: "retrained networks; multiply-adds differ from a count in places", SLIM_LATER: "parameters without batch norm"}
#: Where a count differs from what is printed, and why.
NOTES: Mapping[str, str] = {
    "mobilenet_v1": "the paper's 1.32 M parameters of 0.5-160 are without batch norm.",
    "mobilenet_v1_full": "a count gives 1 M more than the paper prints.",
    "mobilenet_v2": "for 1.4 the paper prints 585 M and 6.9 M; slim, and a count without batch norm, give 582 M and 6.06 M.",
    "mobilenet_v3_large": "the paper prints 219 M multiply-adds, slim 217 M; a count gives 216.6 M.",
    "mobilenet_v3_small": "slim's 66 M and 2.9 M, and 2.4 M at 0.75, are those of the paper's first version. This is the network of its "
    "later ones, with 1024 channels before the classifier.",
    "squeezenet1_0": "the MobileNets paper prints 1700 M multiply-adds, twice of what a count gives: 819 M at 224 as in torchvision, "
    "833 M at 227, and 861 M with the padding that the last convolution of the authors' Caffe network has.",
    "squeezenet1_1": "published by the authors without a paper, on github.com/forresti/SqueezeNet.",
    "shufflenet_v1": "with three groups. Its paper prints no parameters.",
    "shufflenet_v2": "the paper's multiply-adds are 1 % above a count, which gives torchvision's.",
    "xception": "the paper prints no multiply-adds; those of osmr are 0.6 % above a count, for they include other operators.",
    "googlenet": "this is torchvision's network, with batch norms in place of biases, and with 3×3 where the paper has 5×5. With 5×5 a "
    "count gives 1583 M multiply-adds and 7.0 M parameters.",
    "vgg16": "the MobileNets paper prints three digits, 1 % below a count.",
    "alexnet": "this is torchvision's network, in one column (arXiv 1404.5997); 720 M and 60 M are those of the one in two columns "
    "(Krizhevsky, Sutskever and Hinton, 2012).",
}

#: Where the work of MobileNet v1 1.0 at 224 is (table 2). The paper prints 1.19 for the multiply-adds of the 3×3 convolution;
#: its column then sums to 99.29, and a count gives 1.91.
_PAPER_V1_TYPES = {
    "conv 1×1": TypeShare(94.86, 74.59),
    "depthwise 3×3": TypeShare(3.06, 1.06),
    "conv 3×3": TypeShare(1.19, 0.02),
    "fully connected": TypeShare(0.18, 24.33),
}


def figures(name: str, alpha: float, resolution: int) -> tuple[Published, ...]:
    """Everything published about a variant: the paper's figures first, then those of slim, then those of others."""
    key = (name, alpha, resolution)
    found = (paper_figures(*key), slim_figures(*key), _OTHERS.get(key))
    return tuple(one for one in found if one)


def paper_figures(name: str, alpha: float, resolution: int) -> Published | None:
    """A paper's figures for a variant, or None where it has none."""
    return _PAPERS.get((name, alpha, resolution))


def slim_figures(name: str, alpha: float, resolution: int) -> Published | None:
    """The figures in tensorflow/models for a variant that its authors trained, or None where there is none."""
    tables = {"mobilenet_v1": (_SLIM_V1, SLIM), "mobilenet_v2": (_SLIM_V2, SLIM_LATER)}
    if name not in tables:
        return _SLIM_V3.get((name, alpha, resolution))
    table, source = tables[name]
    if alpha not in table:
        return None
    top1, macs_m, params_m = table[alpha]
    if resolution not in _SLIM_SIDES[: len(top1)]:
        return None
    column = _SLIM_SIDES.index(resolution)
    return Published(source, top1[column], macs_m[column], params_m)


def paper_type_shares(name: str, alpha: float, resolution: int) -> dict[str, TypeShare]:
    """The paper's shares by layer type as printed; empty where it prints none."""
    return dict(_PAPER_V1_TYPES) if (name, alpha, resolution) == ("mobilenet_v1", 1.0, 224) else {}
