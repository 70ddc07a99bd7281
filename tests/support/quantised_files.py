"""Networks that others have quantised, in files, and what their own runtimes compute."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from network_files import write_onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from own_networks import load
from small_networks import Residual, seeded, unit
from torch import nn

import tvmmobile
from tvmmobile.graph.layers import Array
from tvmmobile.graph.precision import INT8
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.prepared import Prepared, prepared
from tvmmobile.pipeline.request import device_of

SHAPE = (1, 3, 24, 24)
_INPUTS = 4


def residual_network() -> nn.Module:
    """MobileNet v2's kinds of layers."""
    inner = nn.Sequential(*unit(16, 24), *unit(24, 24, 3, groups=24), *unit(24, 16, activation=nn.Identity()))
    last = unit(16, 24, activation=nn.ReLU())
    return seeded(*unit(3, 16, 3, 2), Residual(inner), *last, nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(24, 10))


def noise(seed: int, shape: tuple[int, ...] = SHAPE) -> Array:
    """An input, NCHW."""
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


class _Reader(CalibrationDataReader):
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.inputs = iter([{name: noise(seed, shape)} for seed in range(_INPUTS)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.inputs, None)


def write_quantised_onnx(
    module: nn.Module, folder: Path, shape: tuple[int, ...] = SHAPE, *, operators: bool = False, unsigned: bool = False
) -> Path:
    """What ONNX Runtime makes of a module: QDQ, or `operators` on integers; weights have a scale for each output channel."""
    plain, quantised = write_onnx(module, folder / "plain.onnx", shape), folder / "quantised.onnx"
    name = onnx.load(str(plain)).graph.input[0].name
    quantize_static(
        str(plain),
        str(quantised),
        _Reader(name, shape),
        quant_format=QuantFormat.QOperator if operators else QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )
    return quantised


def write_pt2e(module: nn.Module, folder: Path, shape: tuple[int, ...] = SHAPE) -> Path:
    """What torchao's PT2E flow makes of a module, with scales for each output channel, and `torch.export` of that."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

        quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        prepared = prepare_pt2e(torch.export.export(module, (torch.zeros(shape),)).module(), quantizer)
        for seed in range(_INPUTS):
            prepared(torch.from_numpy(noise(seed, shape)))
        program = torch.export.export(convert_pt2e(prepared), (torch.zeros(shape),))
    torch.export.save(program, folder / "quantised.pt2")
    return folder / "quantised.pt2"


def run_onnxruntime(path: Path, image: Array) -> Array:
    """What ONNX Runtime computes."""
    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    output: Array = session.run(None, {session.get_inputs()[0].name: image})[0]
    return output


def in_integers(path: Path, board: str = "pi5", keep: tuple[str, ...] = ()) -> Prepared:
    """The network in a file as the planner reads it, with its integers on the host."""
    model = tvmmobile.load(path)
    assert model.quantised
    job = variant_job(model, device_of(board).profile, (), path.parent / "out", precision=INT8, keep=keep)
    return prepared(load(path), job, None)


def steps_off(output: Array, expected: Array, step: float) -> Array:
    """How far numbers are off, in steps of a scale."""
    return np.abs(output.astype(np.float64) - expected) / step


def smallest_step(values: Array) -> float:
    """The scale of a tensor of which all numbers are multiples, where two of them are neighbours."""
    return float(np.diff(np.unique(values)).min())
