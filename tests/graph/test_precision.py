"""Precisions and machines by name, and the pass that converts a network."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from float64 import FLOAT64
from small_networks import Lambda, Residual, accepted, kernels_of, prepared, run_lowered, seeded, unit
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tvmmobile.devices.board.parts import part_of
from tvmmobile.graph.layers import Layer, LayerParameters, Opaque
from tvmmobile.graph.lowering import lower
from tvmmobile.graph.machine import BASELINE, machine_of
from tvmmobile.graph.network import names_of, read_network
from tvmmobile.graph.passes.pipeline import compose, lower_to_kernels
from tvmmobile.graph.precision import BFLOAT16, FLOAT16, FLOAT32, INT8, is_precision, precision_named
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import relative_error
from tvmmobile.kernels.simulation import layers_to_keep, run_layers
from tvmmobile.native.program import read_program
from tvmmobile.networks.frontend import import_torch
from tvmmobile.pipeline.prepared import single_term_layers
from tvmmobile.schedules import template_for
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.regions import candidate_regions


def test_precisions_are_found_by_name() -> None:
    assert precision_named("float64") is FLOAT64 and is_precision("bfloat16") and not is_precision("float8")
    with pytest.raises(UserError, match="precision 'float8' is not known"):
        precision_named("float8")
    assert (FLOAT32.bytes, FLOAT64.bytes) == (4, 8)


def test_machines_are_found_by_the_compilers_name() -> None:
    a53, a72, a76 = map(machine_of, ("cortex-a53", "cortex-a72", "cortex-a76"))
    assert (a53.in_order, a72.in_order, a72.has, a76.has) == (True, False, (), ("half", "dot"))
    assert (a72.l1d_bytes, a72.l2_bytes, a72.fma_lanes_per_cycle, a76.fma_lanes_per_cycle) == (32768, 1 << 20, 4, 8)
    assert machine_of("generic") is BASELINE and {a72.registers, a72.vector_bytes, a72.accumulators} == {32, 16, 12}


def test_integers_are_multiplied_as_fast_as_a_core_can() -> None:
    """Beside four floats a Cortex-A72 starts products of eight bytes a cycle, a Cortex-A76 beside eight of 32, one with SMMLA of 64."""
    rates = [INT8.rate_on(machine_of(name)) for name in ("cortex-a53", "cortex-a72", "cortex-a76", "cortex-a710")]
    assert rates == [2, 2, 4, 8] and FLOAT32.rate_on(machine_of("cortex-a710")) == 1


def test_cores_of_boards_have_their_machines() -> None:
    assert part_of(0x41, 0xD08).machine == machine_of("cortex-a72")
    assert part_of(0x41, 0xD82).machine.l2_bytes == 2 << 20 and part_of(0, 0).machine == BASELINE


class Halves(nn.Module):
    """Both halves of the channels, exchanged, and their magnitudes, which no template takes."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first, second = image.chunk(2, 1)
        return torch.abs(torch.cat([second, first], 1) * 0.1)


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
    assert len(weights) == 6 and {weight.dtype.name for weight in weights} == {"float64"}
    image = np.random.default_rng(3).normal(0.0, 1.0, shape).astype(np.float32)
    actual = run_lowered(lower(read, kernels_of(read, precision=FLOAT64)), image, tmp_path / "net.so")
    with torch.no_grad():
        single, double = network(torch.from_numpy(image)).numpy(), network.double()(torch.from_numpy(image).double()).numpy()
    # Batch norms are folded in float32, which moves the double result by as much as float32 rounds, and no more.
    assert actual.dtype == np.float32 and relative_error(actual, single) <= FLOAT64.network_tolerance >= relative_error(actual, double)


def test_layers_that_stay_in_float32(tmp_path: Path) -> None:
    """Their own inputs are stored so, by the kernels that write them; they convert an input that has another reader too."""
    shape, inner = (1, 3, 10, 10), [*unit(8, 8, 3, groups=8), *unit(8, 8, activation=nn.Identity())]
    network = seeded(*unit(3, 8, 3, 2), *unit(8, 8), Residual(nn.Sequential(*inner)), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    composed = compose(import_torch(network, shape), accepted)
    names = names_of(read_network(*lower_to_kernels(composed)))
    read = read_network(*lower_to_kernels(composed, FLOAT64, dict.fromkeys((names[1], names[3]), FLOAT32)))
    ends = [(node.dtype, getattr(node.layer, "reads", ""), getattr(node.layer, "writes", "")) for node in read.nodes if node.dtype]
    assert ends == [
        ("float64", "float32", "float32"),  # read by the second alone
        ("float32", "", "float64"),  # read by the third, and added by the fourth
        ("float64", "", "float32"),
        ("float32", "", "float64"),
        ("float64", "", "float32"),
    ]
    tasks = [region.task for region in candidate_regions(read, lambda task: template_for(task) is not None, Task)]
    assert {task.dtype for task in tasks if len(task.region) == 1} == {"float32", "float64"}
    assert all(len(task.region) == 1 for task in tasks)  # no kernel computes in two precisions
    image = np.random.default_rng(3).normal(0.0, 1.0, shape).astype(np.float32)
    actual = run_lowered(lower(read, kernels_of(read, precision=FLOAT64)), image, tmp_path / "net.so")
    with torch.no_grad():
        assert relative_error(actual, network(torch.from_numpy(image)).numpy()) <= FLOAT64.network_tolerance


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        pytest.param(lambda x: (x + 1).mean(1) * 2, (1, 4096, 8), id="mean"),
        pytest.param(lambda x: (x + 1).mean((1, 2), keepdim=True) * 2, (3, 70, 60), id="mean of two axes"),
        pytest.param(lambda x: nn.functional.adaptive_avg_pool2d(x + 1, 3) * 2, (1, 3, 200, 200), id="adaptive pool"),
        pytest.param(lambda x: (x + 1).var(1) * 2, (1, 4096, 8), id="variance"),
        pytest.param(lambda x: nn.functional.avg_pool2d(x + 1, 32) * 2, (1, 3, 64, 96), id="large windows"),
        pytest.param(lambda x: nn.functional.avg_pool2d(x + 1, 17, 8, 8) * 2, (1, 3, 40, 40), id="large windows that count padding"),
    ],
)
def test_many_numbers_are_added_up_with_more_digits(
    function: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...], tmp_path: Path
) -> None:
    """This also holds for operators that no template takes: half precision has eleven binary digits, and its largest number is 65504."""
    network = Lambda(function).eval()
    read = prepared(network, shape, precision=FLOAT16)
    image = np.random.default_rng(3).normal(20.0, 0.5, shape).astype(np.float32)
    actual = run_lowered(lower(read, kernels_of(read, precision=FLOAT16)), image, tmp_path / "net.so")
    with torch.no_grad():
        expected = network(torch.from_numpy((image.astype(np.float16) + np.float16(1)).astype(np.float32) - 1)).numpy()
    assert relative_error(actual, expected) <= 2 * FLOAT16.half_step


@pytest.mark.parametrize(
    ("function", "scale"),
    [
        pytest.param(lambda x: F.conv2d(torch.log(x.relu() + 1e-9), torch.ones(2, 3, 1, 1)), 1, id="a constant that would be 0"),
        pytest.param(lambda x: F.max_pool2d(x + (x <= 0) * -1e9, 2), 1, id="a constant that would be infinite"),
        pytest.param(lambda x: F.conv2d(F.normalize(x.transpose(2, 3)), torch.ones(2, 3, 1, 1)), 400, id="squares beyond the range"),
        pytest.param(lambda x: F.conv2d(F.normalize(x.transpose(2, 3)), torch.ones(2, 3, 1, 1)), 1e-4, id="squares that would be 0"),
        pytest.param(lambda x: F.conv2d((x.relu() ** 3).mean((2, 3), True) ** (1 / 3), torch.ones(2, 3, 1, 1)), 60, id="mean of cubes"),
    ],
)
def test_steps_whose_values_are_beyond_its_range(function: Callable[[torch.Tensor], torch.Tensor], scale: float, tmp_path: Path) -> None:
    """Behind sums and with such constants, steps compute in float32; what the network takes and returns is within the range."""
    network, shape = Lambda(function).eval(), (1, 3, 4, 6)
    read = prepared(network, shape, precision=FLOAT16)
    image = scale * np.random.default_rng(3).normal(0.0, 1.0, shape).astype(np.float32)
    actual = run_lowered(lower(read, kernels_of(read, precision=FLOAT16)), image, tmp_path / "net.so")
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    kept = np.abs(expected) < FLOAT16.limits.max
    assert kept.sum() > expected.size / 2 and relative_error(actual[kept], expected[kept]) <= 4 * FLOAT16.half_step


def _norms(x: torch.Tensor) -> torch.Tensor:
    """Return the norms that ConvNeXt V2's global response normalisation divides by their mean (arXiv 2301.00808)."""
    return torch.norm(x, p=2, dim=(2, 3), keepdim=True)


@pytest.mark.parametrize(
    ("function", "types"),
    [
        pytest.param(lambda x: (x.clamp(min=1e-6) ** 3).mean((2, 3)) ** (1 / 3), {"cast_power": "float32", "pool": "float32"}, id="cubes"),
        pytest.param(lambda x: (x * x * x).mean((2, 3)), {"_square": "float32", "_times": "float32", "pool": "float32"}, id="products"),
        pytest.param(lambda x: (x.relu() ** 2).mean((2, 3)).sqrt(), {"pw.*square": "float32", "pool": "float32"}, id="squares in a layer"),
        pytest.param(lambda x: x + x * _norms(x), {"_square": "float32", "pool": "float32", "_gated": "float16"}, id="norms"),
        pytest.param(lambda x: (x + torch.tensor([-1e9, 0.0])).softmax(3) @ x, {"softmax": "float32", "product": "float16"}, id="a mask"),
        pytest.param(lambda x: 1 / x.clamp(min=1e-9), {"pw": "float32", "divide": "float32"}, id="a bound that would be 0"),
        pytest.param(lambda x: x.clamp(min=1e-9), {"pw": "float16"}, id="such a bound in an output"),
        pytest.param(lambda x: (x + 1).mean((2, 3)), {"pw": "float16", "pool": "float16"}, id="a mean of anything else"),
    ],
)
def test_layers_whose_values_are_beyond_its_range(function: Callable[[torch.Tensor], torch.Tensor], types: dict[str, str]) -> None:
    """They compute in float32 where steps are their readers, or sums the readers of their powers, whatever the values here."""
    core = machine_of("cortex-a76")

    def accepts(layer: Layer) -> bool:
        return template_for(Task((layer,), FLOAT16.name, machine=core)) is not None

    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), Lambda(function)).eval()
    read = read_network(*lower_to_kernels(compose(import_torch(network, (1, 3, 2, 2)), accepts), FLOAT16))
    found = [(node.layer.name, node.dtype or str(node.function.params[-1].ty.dtype)) for node in read.nodes]
    for part, dtype in types.items():
        assert {own for name, own in found if re.search(part, name)} == {dtype}, (part, found)


def test_input_and_output_in_the_networks_precision(tmp_path: Path) -> None:
    """Nothing is converted then; programs can query the types."""
    network, shape = seeded(*unit(3, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(8, 5)), (1, 3, 10, 10)
    read = read_network(*lower_to_kernels(compose(import_torch(network, shape), accepted), FLOAT64, outside=FLOAT64))
    assert not any(getattr(node.layer, "reads", "") or getattr(node.layer, "writes", "") for node in read.nodes) and len(read.nodes) == 3
    lowered = lower(read, kernels_of(read, precision=FLOAT64))
    program = read_program(lowered)
    assert {program.values[number].dtype for number in (*program.inputs, *program.outputs)} == {"float64"}
    image = np.random.default_rng(3).normal(0.0, 1.0, shape)
    actual = run_lowered(lowered, image, tmp_path / "net.so")
    with torch.no_grad():
        expected = network.double()(torch.from_numpy(image)).numpy()
    assert actual.dtype == np.float64 and relative_error(actual, expected) <= FLOAT64.network_tolerance


def test_layers_that_half_precision_is_too_small_or_too_coarse_for() -> None:
    """Too large numbers in what is read, in sums that a clamp cuts off, and in results; and weights that are next to nothing."""
    network = seeded(*unit(3, 8, 3, 2), *unit(8, 8), *unit(8, 8), *unit(8, 8), Halves(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    image = np.random.default_rng(3).normal(0.0, 1.0, (1, 3, 10, 10)).astype(np.float32)
    read = prepared(network, image.shape)
    outputs = {run.node: output for run, output in run_layers(read, [image])}
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    assert relative_error(outputs[len(read.nodes) - 1].reshape(expected.shape), expected) <= 1e-5
    assert layers_to_keep(read, [[image]], FLOAT16) == ()
    few = layers_to_keep(read, [[image]], FLOAT16, 4.5e-4)
    assert [kept.node for kept in few] == list(outputs)[: len(few)] and 0 < len(few) < len(outputs)
    assert "for an error of about 0.0" in few[0].why and layers_to_keep(read, [[image]], FLOAT16, 0.5) == ()
    assert [kept.node for kept in layers_to_keep(read, [[image]], FLOAT16, 1e-12)] == list(outputs)
    scaled = [
        replace(node, parameters=_times(node.parameters, factor)) for node, factor in zip(read.nodes, (1, 1e6, 1e-9, 1), strict=False)
    ]
    found = layers_to_keep(replace(read, nodes=(*scaled, *read.nodes[4:])), [[image]], FLOAT16)
    assert [(kept.node, kept.why.partition(" ")[0]) for kept in found] == [(1, "values"), (2, "an")]


@pytest.mark.parametrize("kernel", [1, 3])
def test_winograd_sums_inputs(kernel: int) -> None:
    """Eleven times 30,000 is beyond half precision's range; a 1×1 convolution does not add them."""
    last = nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(16, 5)
    network = seeded(*unit(3, 16, 3, activation=nn.ReLU()), *unit(16, 16, kernel, activation=nn.ReLU()), *last)
    image = np.random.default_rng(3).normal(0.0, 1.0, (1, 3, 8, 8)).astype(np.float32)
    read = prepared(network, image.shape)
    largest = next(output for _, output in run_layers(read, [image])).max()
    nodes = [
        replace(node, parameters=_times(node.parameters, factor)) for node, factor in zip(read.nodes, (3e4 / largest, 1e-3), strict=False)
    ]
    found = layers_to_keep(replace(read, nodes=(*nodes, *read.nodes[2:])), [[image]], FLOAT16)
    assert [(kept.node, kept.why) for kept in found] == [(1, "values up to 3.3e+05 in Winograd's algorithm")] * (kernel == 3)


def _times(parameters: LayerParameters | None, factor: float) -> LayerParameters:
    assert parameters is not None
    return replace(parameters, weight=parameters.weight * np.float32(factor), bias=parameters.bias * np.float32(factor))


def test_bfloat16_beside_half_precision() -> None:
    """A depthwise layer and the first convolution are in half precision, with what only they read; other operators compute in float32."""
    core = machine_of("neoverse-n2")
    last = [nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(8, 5)]
    network = seeded(*unit(3, 8, 3, 2), *unit(8, 8, 3, groups=8), *unit(8, 8), Halves(), *last)

    def accepts(layer: Layer) -> bool:
        return template_for(Task((layer,), BFLOAT16.name, machine=core)) is not None

    composed = compose(import_torch(network, (1, 3, 10, 10)), accepts)
    wide = read_network(*lower_to_kernels(composed))
    single = single_term_layers(wide, [(np.random.default_rng(3).normal(0.0, 1.0, (1, 3, 10, 10)).astype(np.float32),)], BFLOAT16)
    assert single == [0, 1, 3]  # the last is a product with a number for each channel
    read = read_network(*lower_to_kernels(composed, BFLOAT16, dict.fromkeys((names_of(wide)[node] for node in single), FLOAT16)))
    ends = [(node.dtype, getattr(node.layer, "reads", ""), getattr(node.layer, "writes", "")) for node in read.nodes if node.dtype]
    assert ends[:3] == [("float16", "float32", ""), ("float16", "", "bfloat16"), ("bfloat16", "", "float16")] and ends[-1][2] == "float32"
    functions = [node.function for node in read.nodes if isinstance(node.layer, Opaque)]
    types = [[str(parameter.ty.dtype) for parameter in function.params] for function in functions]
    assert (
        types
        and "bfloat16" in types[0]
        and not any("alloc_buffer" in line and "bfloat16" in line for line in str(functions[0]).splitlines())
    )
    weights = [node.parameters.weight.dtype.name for node in read.nodes if node.parameters is not None and node.parameters.weight.size]
    assert weights == ["float16", "float16", "float32", "float16", "float32"]
