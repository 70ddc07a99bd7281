"""Writes torchvision's SSDLite with its selection of boxes as an ONNX file: `ssdlite.py PACKAGES FILE`.

A process of its own: the wheel's operators in C++ need the PyTorch that it was built for, and are defined here instead.
"""

from __future__ import annotations

import sys
import types
import warnings

import torch
from torch import nn


def suppressed(boxes: torch.Tensor, scores: torch.Tensor, overlap: float) -> torch.Tensor:
    """For the exporter's run; what it finds is not in the file."""
    return scores.argsort(descending=True)


def has_operators() -> None:
    """torchvision's check, which the exporter compiles."""
    return


def main() -> None:
    _, packages, target = sys.argv
    sys.path.append(packages)
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", suppressed, "CPU")
    sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")
    import torchvision
    from torchvision.ops import _register_onnx_ops, boxes

    boxes._assert_has_ops = has_operators
    assert _register_onnx_ops
    settings = {"num_classes": 6, "score_thresh": 0.4, "nms_thresh": 0.4, "detections_per_img": 200, "topk_candidates": 40}
    torch.manual_seed(0)
    module = torchvision.models.get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None, **settings).eval()
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
        elif isinstance(part, nn.BatchNorm2d):
            part.momentum = None
            part.reset_running_stats()
            part.train()
    with torch.no_grad():
        module.backbone(torch.rand(4, 3, 320, 320) * 2 - 1)
    module.eval()
    for part in module.head.classification_head.module_list:
        part[-1].weight.data *= 0.3  # scores that differ

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found = self.inner([image[0]])[0]
            return found["boxes"], found["scores"], found["labels"]

    names = ["boxes", "scores", "labels"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Detector(), (torch.rand(1, 3, 320, 320),), target, dynamo=False, opset_version=17, output_names=names)


if __name__ == "__main__":
    main()
