"""Precisions and machines by name, and the pass that converts a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from float64 import FLOAT64
from small_networks import Residual, kernels_of, prepared, run_lowered, seeded, unit
from torch import nn

from tvmmobile.devices.board.parts import ARM, part_of
from tvmmobile.graph.layers import Opaque
from tvmmobile.graph.machine import BASELINE, machine_of
from tvmmobile.graph.network import lower
from tvmmobile.graph.precision import FLOAT32, is_precision, precision_named
from tvmmobile.kernels.reference import relative_error
from tvmmobile.system.errors import UserError


def test_precisions_are_found_by_name() -> None:
    assert precision_named("float64") is FLOAT64 and is_precision("float32") and not is_precision("bfloat16")
    with pytest.raises(UserError, match="precision 'bfloat16' is not known"):
        precision_named("bfloat16")
    assert (FLOAT32.bytes, FLOAT64.bytes) == (4, 8)


@pytest.mark.parametrize("numbers", [(0.0, 6.0), (1e-40, 2.5), (5.999999, 6.0)])
def test_bits_order_as_the_numbers_do(numbers: tuple[float, float]) -> None:
    low, high = map(FLOAT32.bits_of, numbers)
    assert low < high and np.int32(high).view(np.float32) == np.float32(numbers[1])


def test_machines_are_found_by_the_compilers_name() -> None:
    a53, a72, a76 = map(machine_of, ("cortex-a53", "cortex-a72", "cortex-a76"))
    assert (a53.in_order, a72.in_order, a72.has, a76.has) == (True, False, (), ("half", "dot"))
    assert (a72.l1d_bytes, a72.l2_bytes, a72.fma_lanes_per_cycle, a76.fma_lanes_per_cycle) == (32768, 1 << 20, 4, 8)
    assert machine_of("generic") is BASELINE and {a72.registers, a72.vector_bytes, a72.accumulators} == {32, 16, 12}


def test_cores_of_boards_have_their_machines() -> None:
    assert part_of(ARM, 0xD08).machine == machine_of("cortex-a72")
    assert part_of(ARM, 0xD82).machine.l2_bytes == 2 << 20 and part_of(0, 0).machine == BASELINE


class Halves(nn.Module):
    """Both halves of the channels, exchanged, and a column of their sum's powers, which no template takes."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first, second = image.chunk(2, 1)
        return torch.exp(torch.cat([second, first], 1) * 0.1)


def test_a_network_computes_in_it_between_a_float32_input_and_output(tmp_path: Path) -> None:
    """Kernels of templates and fused operators alike; what PyTorch computes in double precision, rounded once."""
    inner = Residual(nn.Sequential(*unit(8, 8, 3, groups=8), *unit(8, 8, activation=nn.Hardswish())))
    network = seeded(*unit(3, 8, 3, 2), inner, Halves(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(8, 5))
    shape = (1, 3, 10, 10)
    read = prepared(network, shape, precision=FLOAT64)
    functions = [node.function for node in read.nodes if isinstance(node.layer, Opaque)]
    types = [[str(parameter.ty.dtype) for parameter in function.params] for function in functions]
    assert types and all(set(inside) == {"float64"} for inside in types)
    ends = [(getattr(node.layer, "reads", ""), getattr(node.layer, "writes", "")) for node in read.nodes]
    assert ends == [("float32", ""), *[("", "")] * (len(ends) - 2), ("", "float32")]
    weights = [node.parameters.weight for node in read.nodes if node.parameters is not None and node.parameters.weight.size]
    assert len(weights) == 4 and {weight.dtype.name for weight in weights} == {"float64"}
    image = np.random.default_rng(3).normal(0.0, 1.0, shape).astype(np.float32)
    actual = run_lowered(lower(read, kernels_of(read, precision=FLOAT64)), image, tmp_path / "net.so")
    with torch.no_grad():
        single, double = network(torch.from_numpy(image)).numpy(), network.double()(torch.from_numpy(image).double()).numpy()
    # Batch norms are folded in float32, which moves the double result by as much as float32 rounds, and no more.
    assert actual.dtype == np.float32 and relative_error(actual, single) <= FLOAT64.network_tolerance >= relative_error(actual, double)
