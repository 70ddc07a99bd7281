"""Inputs that a file leaves open: their shapes (`--shape`) and inputs that always have one value (`--value`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from tvmmobile.networks.own.loading import load_again
from tvmmobile.pipeline.load import load as load_model
from tvmmobile.pipeline.options.network import shape_from, value_from
from tvmmobile.system.errors import UserError


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """A network of audio `[batch, samples]`, its state `[2, batch]` and its sampling rate, a number that decides between two filters."""
    random = np.random.default_rng(0)

    def branch(name: str, width: int) -> onnx.GraphProto:
        weights = helper.make_tensor(f"{name}_w", TensorProto.FLOAT, [4, 1, width], random.standard_normal(4 * width))
        filtered = helper.make_node("Conv", ["signal", f"{name}_w"], [f"{name}_c"], strides=[8])
        nodes = [filtered, helper.make_node("ReduceMax", [f"{name}_c"], [name], keepdims=0)]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [])], [weights])

    constants = [helper.make_tensor("one", TensorProto.INT64, [1], [1]), helper.make_tensor("rate", TensorProto.INT64, [], [16000])]
    nodes = [
        helper.make_node("Unsqueeze", ["waveform", "one"], ["signal"]),
        helper.make_node("Equal", ["sr", "rate"], ["wide"]),
        helper.make_node("If", ["wide"], ["found"], then_branch=branch("high", 16), else_branch=branch("low", 8)),
        helper.make_node("Add", ["found", "state"], ["next"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("waveform", TensorProto.FLOAT, ["N", "samples"]),
            ("state", TensorProto.FLOAT, [2, "N"]),
            ("sr", TensorProto.INT64, []),
        )
    ]
    graph = helper.make_graph(nodes, "audio", inputs, [helper.make_tensor_value_info("next", TensorProto.FLOAT, [2, "N"])], constants)
    path = tmp_path / "audio.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("rate", [16000, 8000])
def test_a_file_with_open_inputs(audio: Path, rate: int) -> None:
    """Dimensions of one name have one size, and the value decides which branch there is."""
    model = load_model(audio, shapes={"waveform": (1, 64)}, values={"sr": rate})
    assert [(port.name, port.shape) for port in model.spec.takes] == [("waveform", (1, 64)), ("state", (2, 1))]
    assert model.own is not None
    imported = load_again(model.own, model.spec, None, 0)
    given = [np.random.default_rng(1).standard_normal(port.shape).astype(np.float32) for port in model.spec.takes]
    session = onnxruntime.InferenceSession(str(audio), providers=["CPUExecutionProvider"])
    wanted = session.run(None, dict(zip(("waveform", "state", "sr"), (*given, np.array(rate)), strict=True)))[0]
    assert np.allclose(imported.compute(given)[0], wanted, atol=1e-6)
    other = load_model(audio, shapes={"waveform": (1, 64)}, values={"sr": 24000 - rate})
    assert other.spec != model.spec and not np.allclose(load_again(other.own or model.own, other.spec, None, 0).compute(given)[0], wanted)


def test_a_batch_of_a_named_dimension(audio: Path) -> None:
    model = load_model(audio, shapes={"waveform": (3, 64)}, values={"sr": 8000})
    assert [port.shape for port in model.spec.takes] == [(3, 64), (2, 3)]


@pytest.mark.parametrize(
    ("shapes", "values", "complaint", "remedy"),
    [
        ({}, {"sr": 8000}, "dimension 1 of the input 'waveform' is dynamic (samples), and must be a number", "`shapes` waveform=1x16000"),
        ({"waveform": (1, 64)}, {}, "the input 'sr' (of Equal) is a number without dimensions", "`values` sr=NUMBER"),
        ({"waveform": (1, 64)}, {"sr": 0.5}, "the input 'sr' is int64 and cannot be 0.5", "Give `values` such a number"),
        ({"waveform": (1, 64)}, {"rate": 1}, "has no input 'rate' for `values`", "Name one of: waveform, state, sr"),
        ({"sound": (1, 64)}, {"sr": 8000}, "", ""),
        ({"waveform": (1, 64), "state": (3, 1)}, {"sr": 8000}, "the input 'state' is [2, 1], not [3, 1]", "Change `shapes`"),
        ({"waveform": (1, 1 << 40)}, {"sr": 8000}, "the `shapes` of waveform", ""),
    ],
)
def test_what_does_not_fit(audio: Path, shapes: dict[str, tuple[int, ...]], values: dict[str, float], complaint: str, remedy: str) -> None:
    with pytest.raises(UserError) as caught:
        load_model(audio, shapes=shapes, values=values)
    assert complaint in caught.value.message and remedy in caught.value.remedy


def test_an_exported_sequence(tmp_path: Path) -> None:
    """A `.pt2` whose sequence has any length that two inputs share."""

    class Amplified(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv1d(3, 4, 3)

        def forward(self, signal: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layer(signal * gain)
            return out

    length = torch.export.Dim("length", min=4, max=1000)
    program = torch.export.export(Amplified(), (torch.zeros(1, 3, 20), torch.zeros(1, 1, 20)), dynamic_shapes=({2: length}, {2: length}))
    path = tmp_path / "net.pt2"
    torch.export.save(program, path)
    assert [port.shape for port in load_model(path, shapes={"signal": (1, 3, 33)}).spec.takes] == [(1, 3, 33), (1, 1, 33)]
    with pytest.raises(UserError, match="`values` is for ONNX files"):
        load_model(path, shapes={"signal": (1, 3, 33)}, values={"gain": 1})


def test_built_in_networks_have_no_such_inputs() -> None:
    with pytest.raises(UserError, match="`shapes` is for networks from files"):
        load_model("mobilenet_v1", shapes={"input": (1, 3, 32, 32)})


@pytest.mark.parametrize("text", ["", "a", "a=", "=1", "a=1x", "a=0", "a=-1", "a=1.5", "a=1e3"])
def test_texts_that_are_no_shape(text: str) -> None:
    with pytest.raises(UserError, match="is not an input with its dimensions"):
        shape_from(text)
    assert shape_from("serving_default:0=1x2,3") == ("serving_default:0", (1, 2, 3))


@pytest.mark.parametrize("text", ["", "a", "a=", "=1", "a=x", "a=nan", "a=inf"])
def test_texts_that_are_no_value(text: str) -> None:
    with pytest.raises(UserError, match="is not an input with a number"):
        value_from(text)
    assert value_from("a=b=-2.5") == ("a=b", -2.5)


@pytest.mark.parametrize("given", [{"example": torch.zeros(1)}, {"name": "net"}])
def test_files_say_what_objects_are_told(audio: Path, given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="example and name are for PyTorch objects"):
        load_model(audio, **given)
