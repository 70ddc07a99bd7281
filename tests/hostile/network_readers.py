"""Readers of networks and weights; they need PyTorch and TVM, and take milliseconds or more."""

from __future__ import annotations

import io
from pathlib import Path

from hostile.file_readers import Prepared, at
from hostile.fuzzing import Reader
from hostile.network_samples import litert_models, onnx_models, pt2

#: Of the processor's time for as many operators as a network may have.
_IMPORT_S = 10.0


def _gate(folder: Path) -> Prepared:
    """The gate checks a `.pt2` before PyTorch loads it."""
    from tvmmobile.networks.own.files import OwnFile, RequestedShape
    from tvmmobile.networks.own.pt2.archive import checked_archive

    file = OwnFile(folder / "x.pt2")
    return [pt2(), pt2("dynamic"), pt2("varied")], lambda content: checked_archive(file, content, RequestedShape(8), "Export it.")


def _exported(folder: Path) -> Prepared:
    """A `.pt2` all the way to Relax."""
    from tvmmobile.networks.own.files import OwnFile
    from tvmmobile.networks.own.loading import load_own

    path = folder / "net.pt2"
    return [pt2(), pt2("varied")], at(path, lambda: load_own(OwnFile(path), None, None, 0))


def _onnx(folder: Path) -> Prepared:
    """An ONNX file all the way to Relax."""
    from tvmmobile.networks.own.files import OwnFile
    from tvmmobile.networks.own.loading import files_of, load_own

    path = folder / "net.onnx"

    def use() -> object:
        return files_of(OwnFile(path)), load_own(OwnFile(path), None, None, 0)

    return onnx_models(folder), at(path, use)


def _litert(folder: Path) -> Prepared:
    """A LiteRT file all the way to Relax."""
    from tvmmobile.networks.own.files import OwnFile
    from tvmmobile.networks.own.loading import load_own

    path = folder / "net.tflite"
    return litert_models(), at(path, lambda: load_own(OwnFile(path), None, None, 0))


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
    Reader("pt2", "zip", _exported, cost=1000, deadline_s=_IMPORT_S),
    Reader("onnx", "bytes", _onnx, cost=12),
    Reader("litert", "bytes", _litert, cost=12),
    Reader("onnx parts", "onnx", _onnx, cost=60, deadline_s=_IMPORT_S),
    Reader("litert parts", "litert", _litert, cost=60, deadline_s=_IMPORT_S),
    Reader("pt2-gate parts", "pt2", _gate, cost=12),
    Reader("pt2 parts", "pt2", _exported, cost=1000, deadline_s=_IMPORT_S),
)
