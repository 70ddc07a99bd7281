"""Readers of networks and weights; they need PyTorch and TVM, and take milliseconds or more."""

from __future__ import annotations

import io
import tempfile
from functools import cache
from pathlib import Path

from hostile.file_readers import Prepared, at
from hostile.fuzzing import Reader


@cache
def _network(dynamic: bool = False) -> bytes:
    """A `.pt2` of a small network, perhaps for any batch."""
    import torch
    from network_files import write_pt2

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.ReLU6(), torch.nn.Flatten(1), torch.nn.Linear(64, 2))
    shape, settings = ((2, 3, 8, 8), {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}) if dynamic else ((1, 3, 8, 8), {})
    with tempfile.TemporaryDirectory(prefix="tvmmobile-fuzz-") as folder:
        return write_pt2(module.eval(), Path(folder, "made.pt2"), shape, **settings).read_bytes()


def _gate(folder: Path) -> Prepared:
    """What a `.pt2` may hold, before PyTorch loads it."""
    from tvmmobile.networks.own.files import OwnFile, Wanted
    from tvmmobile.networks.own.pt2_archive import checked_archive

    file = OwnFile(folder / "x.pt2")
    return [_network(), _network(dynamic=True)], lambda content: checked_archive(file, content, Wanted(8), "Export it.")


def _exported(folder: Path) -> Prepared:
    """A `.pt2` all the way to Relax."""
    from tvmmobile.networks.own.files import OwnFile
    from tvmmobile.networks.own.loading import load_own

    path = folder / "net.pt2"
    return [_network()], at(path, lambda: load_own(OwnFile(path), None, None, 0))


def _onnx(folder: Path) -> Prepared:
    from network_files import convolution, write_model

    from tvmmobile.networks.own.files import OwnFile
    from tvmmobile.networks.own.loading import files_of, load_own

    path = folder / "net.onnx"
    samples = [write_model(folder / "made.onnx", convolution()).read_bytes()]

    def use() -> object:
        return files_of(OwnFile(path)), load_own(OwnFile(path), None, None, 0)

    return samples, at(path, use)


def _litert(folder: Path) -> Prepared:
    import numpy as np
    from litert_files import LiteRtFile

    from tvmmobile.networks.own.files import OwnFile
    from tvmmobile.networks.own.loading import load_own

    file, path = LiteRtFile(), folder / "net.tflite"
    data, out = file.tensor((1, 8, 8, 3)), file.tensor((1, 4, 4, 4))
    weight, bias = file.tensor((4, 3, 3, 3), value=np.ones((4, 3, 3, 3))), file.tensor((4,), value=np.ones(4))
    file.operator("CONV_2D", [data, weight, bias], [out], "Conv2DOptions", strideH=2, strideW=2)
    return [file.ends([data], [out])], at(path, lambda: load_own(OwnFile(path), None, None, 0))


def _checkpoint(folder: Path) -> Prepared:
    import torch

    from tvmmobile.networks.models.checkpoints import load_own_checkpoint

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    samples = []
    for zipped in (True, False):
        stream = io.BytesIO()
        torch.save(module.state_dict(), stream, _use_new_zipfile_serialization=zipped)
        samples.append(stream.getvalue())
    path = folder / "weights.pt"
    return samples, at(path, lambda: load_own_checkpoint(module, path))


READERS = (
    Reader("checkpoint", "zip", _checkpoint, cost=10),
    Reader("pt2-gate", "zip", _gate, cost=12),
    Reader("pt2", "zip", _exported, cost=1000),
    Reader("onnx", "bytes", _onnx, cost=12),
    Reader("litert", "bytes", _litert, cost=12),
)
