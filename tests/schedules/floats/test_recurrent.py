"""Recurrent layers: values of every cell for any extents, direction and schedule, PyTorch's own layers as the reference, and networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host_kernels import check_schedule, examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import Lambda, error_against_torch, prepared
from torch import nn

from tvmmobile.graph.layers import LayerParameters, Opaque, Recurrent
from tvmmobile.graph.layers.recurrent import BACKWARD, BOTH, FORWARD, GATES, states_of
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import relative_error
from tvmmobile.schedules import template_for

PYTORCH: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "lstm": (nn.LSTM, {}),
    "gru": (nn.GRU, {}),
    "rnn_tanh": (nn.RNN, {}),
    "rnn_relu": (nn.RNN, {"nonlinearity": "relu"}),
}


DRAWN = st.tuples(
    st.sampled_from(list(GATES)),
    st.tuples(st.sampled_from((1, 2, 5)), st.sampled_from((1, 2, 3, 6)), st.sampled_from((1, 2, 4, 5, 8, 9, 16, 21))),
    st.sampled_from((FORWARD, BACKWARD, BOTH)),
    st.sampled_from((("float32", "", ""), ("float16", "", ""), ("float16", "float32", "float32"), ("float32", "float16", ""))),
    st.integers(1, 3),
    st.integers(0, 1 << 16),
    *[st.booleans()] * 2,
)


@examples(8)
@given(DRAWN)
def test_values(tmp_path: Path, drawn: tuple[Any, ...]) -> None:
    check(tmp_path, *drawn)


@pytest.mark.long
@examples(100)
@given(DRAWN)
def test_values_of_many_shapes(tmp_path: Path, drawn: tuple[Any, ...]) -> None:
    check(tmp_path, *drawn)


def check(
    folder: Path,
    cell: str,
    extents: tuple[int, int, int],
    direction: str,
    stored: tuple[str, str, str],
    threads: int,
    choice: int,
    initial: bool,
    memory: bool,
) -> None:
    """One schedule of such a layer computes what PyTorch computes."""
    dtype, reads, writes = stored
    layer = Recurrent(cell, *extents, direction, initial, memory and cell == "lstm", reads=reads, writes=writes)
    task = Task((layer,), dtype, threads, machine_of("cortex-a76"))
    template = template_for(task)
    assert template is not None and template.name == "recurrent"
    space = template.space(task)
    assert space is not None
    check_schedule(task, space, choice, 3e-5 if stored == ("float32", "", "") else 5e-3, folder)


@pytest.mark.parametrize("cell", list(PYTORCH))
def test_the_reference_is_pytorchs(cell: str) -> None:
    kind, options = PYTORCH[cell]
    steps, sequences, inputs, units = 5, 3, 6, 7
    module, random = kind(inputs, units, bidirectional=True, **options).eval(), torch.Generator().manual_seed(1)
    data, states = torch.randn(steps, sequences, inputs, generator=random), torch.randn(2, 2, sequences, units, generator=random)
    with torch.no_grad():
        outputs, ends = module(data, (states[0], states[1]) if cell == "lstm" else states[0])
        ways = ["", "_reverse"]
        rows = [data @ getattr(module, f"weight_ih_l0{way}").T + getattr(module, f"bias_ih_l0{way}") for way in ways]
        weights = np.stack([getattr(module, f"weight_hh_l0{way}").T.numpy() for way in ways])
        biases = np.stack([getattr(module, f"bias_hh_l0{way}").numpy() for way in ways])
    layer = Recurrent(cell, steps, sequences, units, BOTH, initial=True, memory=cell == "lstm")
    side = dict(zip(states_of(cell), states.numpy(), strict=False))
    found = layer.compute(torch.cat(rows, -1).numpy(), LayerParameters(weights, biases), side)
    assert relative_error(found[:steps], outputs.numpy()) <= 1e-6
    if layer.memory:
        last = found[steps].reshape(sequences, 2, units).transpose(1, 0, 2)
        assert relative_error(last, ends[1].numpy()) <= 1e-6


class Recurrence(nn.Module):
    """A recurrent layer, and with `ends` what it returns besides outputs."""

    def __init__(self, layer: nn.Module, ends: bool = False) -> None:
        super().__init__()
        self.layer, self.ends = layer, ends

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        outputs, states = self.layer(data)
        every = states if isinstance(states, tuple) else (states,)
        return torch.cat([part.flatten() for part in (outputs, *every)]) if self.ends else outputs


class Cells(nn.Module):
    """Cells of one step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.LSTMCell(8, 5), nn.GRUCell(5, 3), nn.RNNCell(3, 4, bias=False)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        hidden, memory = self.first(data)
        found: torch.Tensor = self.third(self.second(hidden + memory))
        return found


def columns(image: torch.Tensor) -> torch.Tensor:
    """Return the columns of an image of one row, as text recognisers read them."""
    return image.squeeze(2).transpose(1, 2)


@pytest.mark.parametrize(
    ("network", "shape", "names"),
    [
        pytest.param(
            nn.Sequential(nn.Conv2d(3, 8, (9, 3), 2), Lambda(columns), Recurrence(nn.LSTM(8, 6, 2, bidirectional=True, batch_first=True))),
            (1, 3, 9, 11),
            ["lstm_5x1x6_both", "lstm_5x1x6_both"],
            id="text",
        ),
        pytest.param(Recurrence(nn.LSTM(8, 6, bias=False), True), (7, 3, 8), ["lstm_7x3x6_memory"], id="memories", marks=pytest.mark.long),
        pytest.param(
            Recurrence(nn.GRU(8, 6, 2, bidirectional=True), True), (4, 2, 8), ["gru_4x2x6_both"] * 2, id="gru", marks=pytest.mark.long
        ),
        pytest.param(Recurrence(nn.LSTM(8, 6, proj_size=3)), (3, 1, 8), [], id="projections", marks=pytest.mark.long),
        pytest.param(Cells(), (1, 8), ["lstm_1x1x5_memory", "gru_1x1x3", "rnn_tanh_1x1x4"], id="cells"),
    ],
)
def test_networks(tmp_path: Path, network: nn.Module, shape: tuple[int, ...], names: list[str]) -> None:
    layers = [node.layer for node in prepared(network.eval(), shape).nodes]
    assert [layer.name for layer in layers if isinstance(layer, Recurrent)] == names
    assert names != ["lstm_5x1x6_both"] * 2 or not any(isinstance(layer, Opaque) for layer in layers)
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5
