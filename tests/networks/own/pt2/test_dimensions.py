"""Dynamic dimensions of a `.pt2` become numbers, in every place, without PyTorch's evaluation of their text."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from network_files import write_pt2
from own_networks import image_for
from torch import nn
from torch.export import Dim

from tvmmobile.networks.own.files import OwnFile, Side
from tvmmobile.networks.own.loading import load_again, load_own
from tvmmobile.networks.own.pt2.dimensions import UnknownExtentError, evaluated
from tvmmobile.system.errors import UserError


class Net(nn.Module):
    """Computes with its input's extents."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.first(image).relu()
        image = nn.functional.interpolate(self.second(image), scale_factor=2.0)
        tokens = image.flatten(2).transpose(1, 2)
        batch, count, channels = tokens.shape
        return self.head(tokens.mean(1)), tokens.reshape(batch, count * channels) * (1.0 / count)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, OwnFile]:
    """Return a program for batches up to 16, heights from 2 · 8 to 2 · 200, and any width."""
    module, path = Net().eval(), tmp_path_factory.mktemp("dynamic") / "net.pt2"
    shapes = {"image": {0: Dim("batch", min=1, max=16), 2: 2 * Dim("half", min=8, max=200), 3: Dim.AUTO}}
    return module, OwnFile(write_pt2(module, path, (2, 3, 64, 96), dynamic_shapes=shapes))


@pytest.mark.parametrize(("side", "batch", "shape"), [((16, 20), None, (1, 3, 16, 20)), (24, 3, (3, 3, 24, 24))])
def test_any_size_and_batch(net: tuple[nn.Module, OwnFile], side: Side, batch: int | None, shape: tuple[int, ...]) -> None:
    module, file = net
    imported = load_own(file, side, None, 0, batch)
    assert imported.spec.input_shape == shape
    assert load_again(file, imported.spec, None, 0).spec == imported.spec
    image = image_for(imported)
    with torch.no_grad():
        wanted = module(torch.from_numpy(image))
    for output, expected in zip(imported.compute([image]), wanted, strict=True):
        np.testing.assert_allclose(output, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("side", "batch", "complaint"),
    [
        (None, 2, r"dimension 2 of the input 'image' is dynamic \(Mul\(Integer\(2\), s\d+\)\), and must be a number"),
        (17, None, r"dimension 2 of the input 'image' cannot be 17: it is .* with s\d+ = 17/2"),
        (16, 17, r"does not take s\d+ = 17"),
        (8, None, r"does not take s\d+ = 4"),
    ],
    ids=["unsaid", "odd", "too many", "too small"],
)
def test_what_the_file_does_not_take(net: tuple[nn.Module, OwnFile], side: Side | None, batch: int | None, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        load_own(net[1], side, None, 0, batch)
    assert "\n" not in caught.value.message and caught.value.remedy


def test_a_sequence_of_dynamic_length(tmp_path: Path) -> None:
    path = write_pt2(nn.Linear(8, 4), tmp_path / "net.pt2", (2, 10, 8), dynamic_shapes=({0: Dim("batch"), 1: Dim("length")},))
    with pytest.raises(UserError, match=r"dimension 1 of the input 'input' is dynamic \(s\d+\)") as caught:
        load_own(OwnFile(path), None, None, 0)
    assert "`shapes` for a whole input" in caught.value.remedy


@given(
    st.lists(st.tuples(st.sampled_from(["Add", "Mul", "Max", "Min"]), st.integers(-9, 9)), max_size=5),
    st.integers(1, 300),
    st.integers(1, 9),
)
def test_expressions_as_sympy_computes_them(steps: list[tuple[str, int]], value: int, divisor: int) -> None:
    import sympy
    from torch.utils._sympy import functions

    symbol = sympy.Symbol("s7", positive=True, integer=True)
    expression: Any = symbol
    for name, number in steps:
        made = getattr(functions, name) if name in ("Max", "Min") else getattr(sympy, name)
        expression = made(expression, number)
    expression = functions.FloorDiv(expression, divisor) + functions.PythonMod(expression, divisor)
    assert evaluated(sympy.srepr(expression), {"s7": Fraction(value)}) == int(expression.subs(symbol, value))


@pytest.mark.parametrize(
    "text",
    [
        *("touch()", "Integer(__import__('os'))", "Integer(2).real", "Symbol('s8')"),
        *("Pow(Integer(9), Integer(10**9))", "Mod(Integer(1), Integer(0))", "(" * 9999),
    ],
)
def test_nothing_else_is_evaluated(text: str) -> None:
    with pytest.raises(UnknownExtentError):
        evaluated(text, {})
