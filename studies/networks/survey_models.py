"""Writes a network of the survey as files. `survey_networks.py` calls this, in a process of its own: exporters warn a lot, and some crash.

    survey_models.py PACKAGES NAME DIR      # DIR/NAME.pt2 and DIR/NAME.onnx, and what an exporter said that wrote none in DIR/NAME.json

PACKAGES is the folder with the packages of survey.txt, or empty for a network that this file builds itself. Those of the checkout's
Python come first.
"""

from __future__ import annotations

import itertools
import json
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

OPSET = 17
#: Ends of the names of factors of residual branches.
_FACTORS = ("gamma", "gamma_xca", "layer_scale")


@dataclass(frozen=True)
class Surveyed:
    """A network that is tried as a user would.

    Attributes:
        kind: the network's purpose.
        source: the package that builds it, or `here`: this file.
        shape: shape of the input, NCHW.
    """

    kind: str
    source: str
    shape: tuple[int, ...] = (1, 3, 224, 224)


def _of(kind: str, source: str, names: str, side: int = 224) -> dict[str, Surveyed]:
    return {name: Surveyed(kind, source, (1, 3, side, side)) for name in names.split()}


_TORCHVISION_MOBILE = """
mobilenet_v2 mobilenet_v3_large mobilenet_v3_small mnasnet0_5 mnasnet1_0 shufflenet_v2_x0_5 shufflenet_v2_x1_0 squeezenet1_0 squeezenet1_1
efficientnet_b0 efficientnet_b1 regnet_x_400mf regnet_y_400mf
"""
_TORCHVISION_LARGE = "alexnet convnext_tiny densenet121 googlenet resnet18 resnet50 resnext50_32x4d vgg16"
_TIMM_MOBILE = """
mobilenetv1_100 mobilenetv2_050 mobilenetv3_small_050 mobilenetv4_conv_small mobilenet_edgetpu_v2_xs efficientnet_lite0 efficientnet_es
fbnetc_100 fbnetv3_b ghostnet_100 ghostnetv2_100 repghostnet_050 hardcorenas_a mixnet_s lcnet_050 mnasnet_small spnasnet_100
semnasnet_100 rexnet_100 mobileone_s0 repvgg_a0 repvit_m0_9 starnet_s1 dla46_c ese_vovnet19b_dw hgnetv2_b0 convnextv2_atto
inception_next_atto regnetz_b16 shvit_s1
"""
_TIMM_HYBRID_224 = "efficientformerv2_s0 efficientvit_b0 efficientvit_m0 levit_128s pit_ti_224 poolformerv2_s12 vit_tiny_patch16_224"
_TIMM_HYBRID_256 = "mobilevit_xxs mobilevit_s mobilevitv2_050 mobilenetv4_hybrid_medium edgenext_xx_small fastvit_t8"

#: All networks, in the order of the table.
NETWORKS: Mapping[str, Surveyed] = {
    **_of("mobile classification", "torchvision", _TORCHVISION_MOBILE),
    **_of("mobile classification", "timm", _TIMM_MOBILE),
    **_of("mobile classification", "timm", "tinynet_a", 192),
    **_of("mobile classification", "timm", "resnet10t", 176),
    **_of("classification", "torchvision", _TORCHVISION_LARGE),
    **_of("classification", "torchvision", "inception_v3", 299),
    **_of("hybrid", "timm", _TIMM_HYBRID_224),
    **_of("hybrid", "timm", _TIMM_HYBRID_256, 256),
    **_of("detection", "torchvision", "ssdlite320_mobilenet_v3_large", 320),
    **_of("detection", "here", "single_scale_detector", 128),
    **_of("segmentation", "torchvision", "lraspp_mobilenet_v3_large deeplabv3_mobilenet_v3_large"),
    **_of("segmentation", "here", "unet", 128),
    "espcn": Surveyed("super-resolution", "here", (1, 1, 128, 128)),
    "fsrcnn": Surveyed("super-resolution", "here", (1, 1, 96, 96)),
    "pose": Surveyed("pose", "here", (1, 3, 256, 192)),
    **_of("landmarks", "here", "landmarks", 112),
    "keyword_spotting": Surveyed("keyword spotting", "here", (1, 1, 49, 10)),
}


def _unit(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> torch.nn.Module:
    """Return a convolution with batch norm and ReLU."""
    from torch import nn

    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _separable(inputs: int, outputs: int, stride: int = 1) -> torch.nn.Module:
    from torch import nn

    return nn.Sequential(_unit(inputs, inputs, 3, stride, inputs), _unit(inputs, outputs, 1))


def espcn() -> torch.nn.Module:
    """Return three times as many pixels a side (arXiv 1609.05158)."""
    from torch import nn

    layers = nn.Conv2d(1, 64, 5, 1, 2), nn.Tanh(), nn.Conv2d(64, 32, 3, 1, 1), nn.Tanh(), nn.Conv2d(32, 9, 3, 1, 1)
    return nn.Sequential(*layers, nn.PixelShuffle(3))


def fsrcnn() -> torch.nn.Module:
    """Return twice as many pixels a side, by a transposed convolution (arXiv 1608.00367)."""
    from torch import nn

    layers: list[nn.Module] = [nn.Conv2d(1, 56, 5, 1, 2), nn.PReLU(56), nn.Conv2d(56, 12, 1), nn.PReLU(12)]
    for _ in range(4):
        layers += [nn.Conv2d(12, 12, 3, 1, 1), nn.PReLU(12)]
    layers += [nn.Conv2d(12, 56, 1), nn.PReLU(56), nn.ConvTranspose2d(56, 1, 9, 2, 4, 1)]
    return nn.Sequential(*layers)


def unet() -> torch.nn.Module:
    """Return three levels with joins (arXiv 1505.04597), padded so that sizes stay."""
    import torch
    from torch import nn

    class Unet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = (16, 32, 64)
            self.down = nn.ModuleList(nn.Sequential(_unit(i, o), _unit(o, o)) for i, o in zip((3, *widths), widths, strict=False))
            self.bottom = nn.Sequential(_unit(64, 128), _unit(128, 128))
            self.rise = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, 2) for width in reversed(widths))
            self.up = nn.ModuleList(nn.Sequential(_unit(2 * width, width), _unit(width, width)) for width in reversed(widths))
            self.head = nn.Conv2d(widths[0], 2, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            levels = []
            for level in self.down:
                levels.append(image := level(image))
                image = nn.functional.max_pool2d(image, 2)
            image = self.bottom(image)
            for rise, level, kept in zip(self.rise, self.up, reversed(levels), strict=True):
                image = level(torch.cat([rise(image), kept], dim=1))
            return self.head(image)

    return Unet()


def single_scale_detector() -> torch.nn.Module:
    """Return scores and boxes of 16 × 16 places in one tensor: a backbone and a head of separable convolutions, as face detectors have."""
    from torch import nn

    widths = 16, 32, 64, 96
    layers = [_unit(3, 16, 3, 2), _separable(16, 32, 2), _separable(32, 64, 2), _separable(64, 96), _separable(widths[-1], 96)]
    return nn.Sequential(*layers, nn.Conv2d(96, 6, 1), nn.Flatten(2))


def pose() -> torch.nn.Module:
    """Return heat maps of 17 joints: a small backbone and two transposed convolutions (arXiv 1804.06208)."""
    from torch import nn

    backbone = _unit(3, 16, 3, 2), _separable(16, 32, 2), _separable(32, 64, 2), _separable(64, 128, 2), _separable(128, 256, 2)
    rise = [nn.ConvTranspose2d(256, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    rise += [nn.ConvTranspose2d(64, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*backbone, *rise, nn.Conv2d(64, 17, 1))


def landmarks() -> torch.nn.Module:
    """Return 98 points of a face: a small MobileNet whose classifier is a regression (arXiv 1902.10859)."""
    from torch import nn

    widths = 32, 64, 64, 128, 128, 128
    blocks = [_separable(i, o, 2 if i != o else 1) for i, o in itertools.pairwise(widths)]
    return nn.Sequential(_unit(3, 32, 3, 2), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 196))


def keyword_spotting() -> torch.nn.Module:
    """Return twelve words from 49 × 10 spectral coefficients (DS-CNN of arXiv 1711.07128, the small one)."""
    from torch import nn

    first = [nn.Conv2d(1, 64, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*first, *(_separable(64, 64) for _ in range(4)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12))


def build(name: str, surveyed: Surveyed) -> torch.nn.Module:
    """Return the network with one output, in eval mode, with the weights its package starts it with."""
    if surveyed.source == "timm":
        import timm

        return timm.create_model(name).eval()
    if surveyed.source == "torchvision":
        import torchvision

        # Published weights are not needed, those of backbones included.
        plain: dict[str, bool | None] = {"weights": None}
        if surveyed.kind in ("detection", "segmentation"):
            plain["weights_backbone"] = None
        if name in ("googlenet", "inception_v3"):
            plain |= {"aux_logits": False, "init_weights": False}
        return _one_output(torchvision.models.get_model(name, **plain), surveyed.kind).eval()
    return globals()[name]().eval()


def _one_output(module: torch.nn.Module, kind: str) -> torch.nn.Module:
    """Make a torchvision segmentation or detection network return one tensor, before it picks classes or boxes."""
    import torch
    from torch import nn

    class Segments(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.inner(image)["out"]

    class Detects(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = module.backbone, module.head

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            found = self.head(list(self.backbone(image).values()))
            return torch.cat([found["bbox_regression"], found["cls_logits"]], dim=2)

    return {"segmentation": Segments, "detection": Detects}[kind]() if kind in ("segmentation", "detection") else module


def give_weights(module: torch.nn.Module, shape: tuple[int, ...]) -> None:
    """Draw weights with seed 0 so that every layer matters to the output; without batch norm, layers are scaled instead.

    What starts at zero or nearly so would let converters leave out what it belongs to: factors of residual branches become a half, and
    attention's biases noise.
    """
    import torch
    from torch import nn

    from tvmmobile.networks.models.weights import seed_weights

    norms = nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm
    scaled = (
        []
        if any(isinstance(part, norms) for part in module.modules())
        else [name for name, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    )
    for name, values in module.named_parameters():
        if name.endswith(_FACTORS) or (name.endswith("weight") and not values.any()):
            values.data.fill_(0.5)
        elif name.endswith("attention_biases"):
            values.data.uniform_(-1.0, 1.0, generator=torch.Generator().manual_seed(0))
    seed_weights(module, 0, scaled, shape[1:])


def write(name: str, folder: Path) -> dict[str, str]:
    """Write a network in both formats; return what exporters said that wrote none, by format."""
    import torch

    surveyed = NETWORKS[name]
    module = build(name, surveyed)
    give_weights(module, surveyed.shape)
    image = torch.zeros(surveyed.shape)
    wanted: dict[str, Callable[[Path], Any]] = {
        "pt2": lambda path: torch.export.save(torch.export.export(module, (image,)), path),
        "onnx": lambda path: torch.onnx.export(module, (image,), str(path), dynamo=False, opset_version=OPSET),
    }
    failures = {}
    for form, export in wanted.items():
        try:
            export(folder / f"{name}.{form}")
        except Exception as error:  # whatever an exporter raises is its answer
            failures[form] = f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}"
            (folder / f"{name}.{form}").unlink(missing_ok=True)
    return failures


def without_torchvision_operators() -> None:
    """Let torchvision be imported without its C++ operators, such as box selection: they need the PyTorch that it was built for."""
    # torchvision 0.28.0 registers shapes of its operators there, which beside PyTorch's CPU build ends with "RuntimeError: operator
    # torchvision::nms does not exist".
    sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")


if __name__ == "__main__":
    _, packages, network, target = sys.argv
    if packages:
        sys.path.append(packages)
    warnings.simplefilter("ignore")
    without_torchvision_operators()
    (Path(target) / f"{network}.json").write_text(json.dumps(write(network, Path(target))), encoding="utf-8")
