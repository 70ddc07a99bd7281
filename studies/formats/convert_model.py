"""Converts a model with one converter. `export_models.py` calls this, in a process of its own: converters talk, and some crash.

    convert_model.py PACKAGES litert MODULE 1,3,224,224 model.tflite
    convert_model.py PACKAGES mnn model.onnx model.mnn

PACKAGES is the folder with the packages of converters.txt. Those of the checkout's Python come first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


def to_litert(module: str, shape: str, output: str) -> None:
    """Convert a PyTorch module (written by `torch.save`) or an exported program (`.pt2`) to LiteRT; images become NHWC."""
    import litert_torch
    import torch

    exported = module.endswith(".pt2")
    network = torch.export.load(module).module() if exported else torch.load(module, weights_only=False).eval()  # written by the caller
    image = torch.zeros([int(extent) for extent in shape.split(",")])
    if image.dim() == 4:
        network, image = litert_torch.to_channel_last_io(network, args=[0]), image.permute(0, 2, 3, 1).contiguous()
    litert_torch.convert(network, (image,)).export(output)


def to_mnn(model: str, output: str) -> None:
    """Convert an ONNX model to MNN.

    The wheel's own `mnnconvert` calls the same function, but then installs a package to report what it did to its makers.
    """
    import _tools

    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", model, "--MNNModel", output, "--bizCode", "tvmmobile"])


if __name__ == "__main__":
    _, packages, converter, *arguments = sys.argv
    sys.path.append(packages)
    converters: dict[str, Callable[..., None]] = {"litert": to_litert, "mnn": to_mnn}
    converters[converter](*arguments)
