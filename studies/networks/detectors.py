"""Writes ultralytics' detectors as ONNX files, as its users export them, with random weights: those in the benchmarks' table of detectors.

    ./studies/run detectors yolo26n yolov8n yolo11n DIR                  # DIR/yolo26n-640.onnx …: 640 × 640 pixels, all boxes
    ./studies/run detectors yolo26n --best --side 320 DIR                # DIR/yolo26n-320-best.onnx: its 300 best boxes, sorted

The package is kept in the cache (once, 250 MB); its licence is the AGPL, and nothing of it is in tvmmobile. No published weights are
loaded: they are drawn with seed 0, with the variances of trained ones.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from studies.harness import Options, option, study
from studies.networks.survey_models import OPSET, give_weights, without_torchvision_operators
from studies.packages import locked_packages
from tvmmobile.system.entry_points import progress

if TYPE_CHECKING:
    import torch

LOCK = Path(__file__).with_suffix(".lock")


def detector(name: str, side: int, best: bool) -> torch.nn.Module:
    """Build a detector ready for export.

    Args:
        name: name of a configuration, such as `yolo26n`.
        side: pixels of its square input.
        best: returns its 300 best boxes, which it must have a head for, instead of all.
    """
    from ultralytics.nn.tasks import DetectionModel

    module = DetectionModel(f"{name}.yaml", verbose=False)
    give_weights(module.eval(), (1, 3, side, side))
    head = module.model[-1]
    head.bias_init()
    head.end2end = best
    module = module.fuse(verbose=False).eval()
    head.export, head.format = True, "onnx"
    return module


def write(name: str, side: int, best: bool, folder: Path) -> Path:
    """Write a detector into a folder; return its file."""
    import torch

    file = folder / f"{name}-{side}{'-best' if best else ''}.onnx"
    module, image = detector(name, side, best), torch.zeros(1, 3, side, side)
    with torch.no_grad():
        module(image)  # places of the boxes become constants
        names = {"input_names": ["images"], "output_names": ["output0"]}
        torch.onnx.export(module, (image,), str(file), dynamo=False, opset_version=OPSET, **names)
    return file


@study(
    option("names", None, "ultralytics' name of a detector", nargs="+", metavar="NAME"),
    option("folder", None, "for the files", type=Path, metavar="DIR"),
    option("--side", 640, "pixels"),
    option("--best", False, "the best boxes instead of all"),
)
def main(options: Options) -> None:
    """Write the detectors."""
    options.folder.mkdir(parents=True, exist_ok=True)
    sys.path.append(str(locked_packages(LOCK, "ultralytics")))
    without_torchvision_operators()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="tvmmobile-detectors-") as settings:
        os.environ["YOLO_CONFIG_DIR"] = settings
        warnings.simplefilter("ignore")
        for name in options.names:
            progress(f"{write(name, options.side, options.best, options.folder)}")
