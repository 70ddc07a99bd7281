"""Exported programs with other arguments than tensors one after another, other results, and operators that are random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_networks import load, network_of
from quantised import run_all
from torch import nn

from tvmmobile.graph.layers import Array
from tvmmobile.kernels.reference import relative_error
from tvmmobile.system.errors import UserError

IMAGE, SHIFT = torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 1, 1)


def attended(x: torch.Tensor, dropout: float) -> torch.Tensor:
    return nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=dropout)


class Net(nn.Module):
    """A convolution, and what `compute` makes of it and the arguments of a call."""

    def __init__(self, compute: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.compute = nn.Conv2d(3, 4, 3), compute

    def forward(self, *args: Any, **keywords: Any) -> Any:
        return self.compute(self.conv, *args, **keywords)


def _in_keywords(conv: nn.Module, image: Any, *, shift: Any, scale: float = 1.0, mask: Any = None) -> Any:
    return conv(image) * scale + shift


def _in_a_dictionary(conv: nn.Module, given: Any) -> Any:
    return conv(given["image"]) + given["others"][0]


def _of_several_kinds(conv: nn.Module, image: Any, mask: Any, with_names: bool) -> Any:
    features = conv(image)
    return {"features": features, "mask": mask, "weight": conv.weight} if with_names else (mask, features)


CASES = [
    (_in_keywords, (IMAGE,), {"shift": SHIFT, "scale": 3.0, "mask": None}, [["args_0", "shift"], ["output"]]),
    (_in_a_dictionary, ({"image": IMAGE, "others": [SHIFT]},), {}, [["args_0_image", "args_0_others_0"], ["output"]]),
    (_of_several_kinds, (IMAGE, None, True), {}, [["input"], ["features", "weight"]]),
    (_of_several_kinds, (IMAGE, None, False), {}, [["input"], ["output"]]),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("compute", "args", "keywords", "names"), CASES, ids=["keywords", "dictionary", "constants", "tuple"])
def test_arguments_and_results_of_other_kinds(
    tmp_path: Path, compute: Any, args: Any, keywords: Any, names: list[list[str]], dtype: torch.dtype
) -> None:
    """Tensors are inputs and outputs, wherever they are; everything else is a constant of the export, and `None` is not returned."""
    module = Net(compute).eval()
    given = torch.utils._pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(dtype), (args, keywords))
    torch.export.save(torch.export.export(module.to(dtype), *given), tmp_path / "net.pt2")
    imported = load(tmp_path / "net.pt2")
    assert [[port.name for port in ports] for ports in (imported.spec.takes, imported.spec.returns)] == names
    arrays = [np.random.default_rng(seed).normal(size=port.shape).astype(np.float32) for seed, port in enumerate(imported.spec.takes)]
    left = iter(arrays)
    args, keywords = torch.utils._pytree.tree_map_only(torch.Tensor, lambda _: torch.from_numpy(next(left)), (args, keywords))
    with torch.no_grad():
        returned = torch.utils._pytree.tree_leaves(module.float()(*args, **keywords))
    expected = [one.detach().numpy() for one in returned if isinstance(one, torch.Tensor)]
    assert_equal(imported.compute(arrays), expected)
    assert_equal(run_all(network_of(imported), arrays), expected)


def assert_equal(found: Any, expected: list[Array]) -> None:
    """Assert that there are as many arrays, with the same values up to rounding."""
    assert [array.shape for array in found] == [array.shape for array in expected]
    assert max(relative_error(one, other) for one, other in zip(found, expected, strict=True)) < 1e-5


def _flags(conv: nn.Module, image: Any) -> Any:
    features = conv(image)
    found = features.amax(1) > 0.5
    return {"features": features, "mask": found, "found": found.any(), "score": features.mean(), "place": features[0, :, 0, 0].argmax()}


def test_booleans_and_numbers_are_returned_as_bytes_and_vectors(tmp_path: Path) -> None:
    """As from ONNX files."""
    module = Net(_flags).eval()
    torch.export.save(torch.export.export(module, (IMAGE,)), tmp_path / "net.pt2")
    imported, image = load(tmp_path / "net.pt2"), np.random.default_rng(0).normal(size=IMAGE.shape).astype(np.float32)
    ports = [(port.name, port.shape, port.dtype) for port in imported.spec.returns]
    assert ports[1:] == [
        ("mask", (1, 6, 6), "uint8"),
        ("found", (1,), "uint8"),
        ("score", (1,), "float32"),
        ("place", (1,), "int64"),
    ]
    with torch.no_grad():
        returned = zip(module(torch.from_numpy(image)).values(), ports, strict=True)
    expected = [np.atleast_1d(value.numpy()).astype(dtype) for value, (*_, dtype) in returned]
    assert_equal(imported.compute([image]), expected)
    found = run_all(network_of(imported), [image])
    assert_equal(found, expected)
    assert [array.dtype for array in found] == [array.dtype for array in expected] and 0 < expected[1].mean() < 1


@pytest.mark.parametrize(
    ("compute", "operator"),
    [
        (lambda conv, image: nn.functional.dropout(conv(image)), r"aten\.dropout\.default \(test_calls\.py, line \d+\)"),
        (lambda conv, image: nn.functional.dropout2d(conv(image), 0.1), r"aten\.feature_dropout\.default"),
        (lambda conv, image: nn.functional.rrelu(conv(image), training=True), r"aten\.rrelu\.default"),
        (lambda conv, image: attended(conv(image), 0.3), r"aten\.scaled_dot_product_attention\.default"),
    ],
    ids=["dropout", "channels", "slopes", "attention"],
)
def test_operators_that_are_random_in_training(tmp_path: Path, compute: Any, operator: str) -> None:
    torch.export.save(torch.export.export(Net(compute).eval(), (IMAGE,)), tmp_path / "net.pt2")
    with pytest.raises(UserError, match=rf"has a random operator: {operator}.* is in training mode") as wrong:
        load(tmp_path / "net.pt2")
    assert wrong.value.remedy.startswith("Call eval() before exporting")


@pytest.mark.parametrize(
    ("compute", "operator"),
    [
        (lambda conv, image: nn.functional.gumbel_softmax(conv(image), dim=1), r"aten\.exponential_\.default \(test_calls\.py, line \d+\)"),
        (lambda conv, image: conv(image) + 0.1 * torch.randn(1, 4, 6, 6), r"aten\.randn\.default"),
        (lambda conv, image: conv(image) * torch.empty(1, 4, 1, 1).bernoulli_(0.5), r"aten\.bernoulli_\.float"),
    ],
    ids=["exponential", "noise", "dropped paths"],
)
def test_operators_that_are_always_random(tmp_path: Path, compute: Any, operator: str) -> None:
    torch.export.save(torch.export.export(Net(compute).eval(), (IMAGE,)), tmp_path / "net.pt2")
    with pytest.raises(UserError, match=rf"has a random operator: {operator}[^\n]*\.\n") as wrong:
        load(tmp_path / "net.pt2")
    assert "as an input" in wrong.value.remedy


def test_a_dropout_of_nothing_is_not_random(tmp_path: Path) -> None:
    module = Net(lambda conv, image: attended(nn.functional.dropout(conv(image), 0.0), 0.0)).eval()
    torch.export.save(torch.export.export(module, (IMAGE,)), tmp_path / "net.pt2")
    assert load(tmp_path / "net.pt2").macs


def test_fourier_transforms_are_refused_with_the_format_that_has_them(tmp_path: Path) -> None:
    module = Net(lambda conv, image: torch.fft.irfft2(torch.fft.rfft2(conv(image))))
    torch.export.save(torch.export.export(module.eval(), (IMAGE,)), tmp_path / "net.pt2")
    with pytest.raises(UserError, match=r"aten\._fft_c2r\.default") as wrong:
        load(tmp_path / "net.pt2")
    assert "torch.onnx.export" in wrong.value.remedy
    torch.onnx.export(module, (IMAGE,), tmp_path / "net.onnx", dynamo=True, verbose=False)
    imported = load(tmp_path / "net.onnx")
    image = np.random.default_rng(0).normal(0, 1, (1, 3, 8, 8)).astype(np.float32)
    assert relative_error(run_all(network_of(imported), [image])[0], module(torch.from_numpy(image)).detach().numpy()) < 1e-5


def test_branches_are_refused_by_name(tmp_path: Path) -> None:
    module = Net(lambda conv, image: torch.cond(image.sum() > 0, torch.sin, torch.cos, (conv(image),)))
    torch.export.save(torch.export.export(module.eval(), (IMAGE,)), tmp_path / "net.pt2")
    with pytest.raises(UserError, match=r"holds graphs within its graph, which are branches, .*: cond\.") as wrong:
        load(tmp_path / "net.pt2")
    assert "torch.where" in wrong.value.remedy
