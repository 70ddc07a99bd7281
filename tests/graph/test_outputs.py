"""Networks with several inputs and outputs, built for the host and compared with PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lowered_networks import prepare
from small_networks import accepted, kernels_of
from torch import nn

from tvmmobile.graph.bindings import results_of
from tvmmobile.graph.lowering import lower
from tvmmobile.graph.network import Network, read_network, results_from
from tvmmobile.graph.passes.rewriting import MainRewriter
from tvmmobile.networks.frontend import by_torch, decomposed, export_torch, import_program


class Taps(nn.Module):
    """Three layers in a row; returns what `taps` names of their values, in that order."""

    def __init__(self, taps: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 12, 1)])
        self.register_buffer("counts", torch.tensor([101, 7]))
        self.taps = taps

    def forward(self, image: torch.Tensor, summand: torch.Tensor, place: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = [image, summand, place]
        for layer in self.layers:
            image = layer(image)
            values.append(image)
            image = image.relu()
            values.append(image)
        values += [image[:, :8] + summand, image.argmax(1), image.flatten(1), image.mean((2, 3)) * place]
        values += [self.counts, self.counts.reshape(2, 1)]
        return tuple(values[tap] for tap in self.taps)


SHAPES = ((1, 3, 9, 9), (1, 8, 5, 5), (1,))


def inputs() -> list[np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    image, summand = (generator.normal(size=shape).astype(np.float32) for shape in SHAPES[:2])
    return [image, summand, np.array([3])]


def network_of(module: nn.Module) -> Network:
    program = export_torch(module.eval(), [torch.from_numpy(array) for array in inputs()])
    return read_network(*prepare(import_program(decomposed(program)), accepted))


def run_on_host(network: Network) -> list[np.ndarray[Any, Any]]:
    """Return the network's outputs, computed by its layers' kernels in TVM's virtual machine."""
    import tvm
    from tvm import relax

    machine = relax.VirtualMachine(relax.build(lower(network, kernels_of(network)), target="llvm"), tvm.cpu())
    found = machine["main"](*map(tvm.runtime.tensor, inputs()))
    return [tensor.numpy() for tensor in ([found] if isinstance(found, tvm.runtime.Tensor) else found)]


def assert_right(taps: tuple[int, ...]) -> Network:
    module = Taps(taps)
    network = network_of(module)
    for output, expected in zip(run_on_host(network), by_torch(module)(inputs()), strict=True):
        assert output.dtype == expected.dtype
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
    return network


@pytest.mark.parametrize("taps", [(3, 5, 7, 9), (12, 10, 4), (6, 11, 8)])
def test_any_values_may_be_returned_in_any_order(taps: tuple[int, ...]) -> None:
    assert_right(taps)


def test_what_is_returned_is_not_fused_with_what_reads_it() -> None:
    whole, tapped = (network_of(Taps(taps)) for taps in ((8,), (4, 8)))
    assert [node.alone for node in whole.nodes][:2] == [False, False]
    assert tapped.nodes[0].alone and len(results_from(tapped.module)) == 2


@pytest.mark.parametrize(
    "taps",
    [(0, 8), (8, 8), (8, 11), (2, 8, 2), (13, 8, 14)],
    ids=["an input", "twice", "and a view of it", "an input twice", "constants"],
)
def test_every_output_is_memory_of_its_own(taps: tuple[int, ...]) -> None:
    network = assert_right(taps)
    results = results_from(network.module)
    numbers = [result for result in results if isinstance(result, int)]
    assert len(set(numbers)) == len(taps) and min(numbers) >= 0


def test_a_rewriter_returns_constants_as_they_are() -> None:
    from tvm import relax

    class Same(MainRewriter):
        def value(self, _variable: Any, value: Any) -> Any:
            return value

    builder, image = relax.BlockBuilder(), relax.Var("image", relax.TensorType((1, 3), "float32"))
    with builder.function("main", [image]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.nn.relu(image))
        builder.emit_func_output(relax.Tuple([result, relax.const(np.array([101]), "int64")]))
    [_, returned] = results_of(Same(builder.get()["main"]).rewritten())
    assert returned.ty.dtype == "int64"
