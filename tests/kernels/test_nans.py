"""NaNs and infinities in kernels that no template makes, and in the code for AArch64."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from assembly import assembly_of
from lowered_networks import prepare
from small_networks import Lambda, kernels_of, loaded
from template_regions import RELU6
from torch.nn import functional

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Array, Conv2d, Layer, MaxPool, Softmax
from tvmmobile.graph.lowering import lower
from tvmmobile.graph.network import read_network
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import compile_kernel
from tvmmobile.kernels.function import kernel_function, packed_constants
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters
from tvmmobile.networks.frontend import import_torch
from tvmmobile.running.bench import started_agents
from tvmmobile.schedules import template_for

Function = Callable[[torch.Tensor], torch.Tensor]
ELEMENTWISE: tuple[Function, ...] = (
    *(functional.relu6, functional.hardsigmoid, functional.leaky_relu, functional.silu, torch.tanh, lambda x: torch.minimum(x, x.flip(-1))),
)
MORE_ELEMENTWISE: tuple[Function, ...] = (
    *(torch.relu, functional.hardtanh, functional.hardswish, torch.abs, torch.sigmoid, functional.elu, lambda x: x.clamp(min=-0.5)),
    *(lambda x: x.clamp(max=0.5), lambda x: torch.maximum(x.flip(-1), x), torch.exp, torch.log, functional.softplus, functional.mish),
    *(torch.erf, torch.sqrt, functional.logsigmoid, functional.selu, functional.celu, torch.rsqrt, torch.sin, torch.log1p, torch.round),
    *(functional.hardshrink, lambda x: functional.threshold(x, 0.1, 20.0), torch.expm1, torch.atan, torch.sinh),
    *(lambda x: x**3, lambda x: x.clamp(-1, 2) * 3, torch.reciprocal, torch.square),
)
#: From an image with two channels of 8 × 8 pixels.
REDUCING: tuple[Function, ...] = (lambda x: functional.max_pool2d(x, 2, 2, ceil_mode=True), lambda x: x.softmax(3), lambda x: x.amin(3))
MORE_REDUCING: tuple[Function, ...] = (
    *(lambda x: x.amax((2, 3)), lambda x: x.log_softmax(1), lambda x: functional.avg_pool2d(x, 3, 2, 1), lambda x: x.mean(3)),
    *(lambda x: x.sum(2), lambda x: functional.layer_norm(x, (8,)), lambda x: functional.max_pool2d(x, (3, 2), 2)),
)
NANS = np.array([0x7FC00000, 0xFFC00000, 0xFFFFFFFF], np.uint32).view(np.float32)


def check_fallback(functions: tuple[Function, ...], images: list[Array], folder: Path) -> None:
    """Check that all of them return PyTorch's results; no template takes any."""
    network = Lambda(lambda x: torch.cat([function(x).flatten(1) for function in functions], 1)).eval()
    read = read_network(*prepare(import_torch(network, images[0].shape), lambda _: False))
    run = loaded(lower(read, kernels_of(read)), folder / "library.so")
    for image in images:
        with torch.no_grad():
            np.testing.assert_allclose(run(image), network(torch.from_numpy(image)).numpy(), 1e-5, 1e-5)


@pytest.mark.parametrize("functions", [ELEMENTWISE, pytest.param(MORE_ELEMENTWISE, marks=pytest.mark.long)], ids=["usual", "more"])
def test_elementwise_operators_of_the_fallback(tmp_path: Path, functions: tuple[Function, ...]) -> None:
    image = np.linspace(-4, 4, 19, dtype=np.float32)
    image[:8] = np.concatenate([NANS, [np.inf, -np.inf, 0, 1, -1]])
    check_fallback(functions, [image[None]], tmp_path)


@pytest.mark.parametrize("functions", [REDUCING, pytest.param(MORE_REDUCING, marks=pytest.mark.long)], ids=["usual", "more"])
def test_reducing_operators_of_the_fallback(tmp_path: Path, functions: tuple[Function, ...]) -> None:
    """With one such number in the corner, in the middle of one channel and at an edge of the other; and with nothing but minus infinity."""
    images = [np.full((1, 2, 8, 8), -np.inf, np.float32)]
    for value in (*NANS, np.inf, -np.inf):
        image = np.random.default_rng(1).normal(0.0, 1.0, (1, 2, 8, 8)).astype(np.float32)
        image[0, 0, 0, 0] = image[0, 0, 4, 3] = image[0, 1, 7, 5] = value
        images.append(image)
    check_fallback(functions, images, tmp_path)


LAYERS: dict[str, Layer] = {
    "pointwise": Conv2d(6, 7, 16, 12, clamp=RELU6),
    "depthwise": Conv2d(6, 9, 12, 12, (3, 3), (1, 1), (1, 1, 1, 1), 12, (0.0, None)),
    "hsigmoid": Conv2d(6, 7, 16, 12, clamp="hsigmoid"),
    "silu": Conv2d(6, 7, 16, 12, clamp="silu"),
    "sigmoid": Conv2d(6, 7, 16, 12, clamp="sigmoid"),
    "max_pool": MaxPool(9, 8, 8, (3, 3), (2, 2), (1, 1, 1, 1)),
    "softmax": Softmax((5,), 21),
}


@pytest.mark.parametrize("mcpu", ["cortex-a72", "cortex-a53"])
@pytest.mark.parametrize("name", LAYERS)
def test_maxima_on_arm_propagate(name: str, mcpu: str) -> None:
    """FMAX and FMIN, none of the instructions that lose a NaN: FMAXNM, FMINNM, and comparisons with selections."""
    task = Task((LAYERS[name],))
    template = template_for(task)
    assert template is not None
    space = template.space(task)
    assert space is not None
    text = assembly_of(task, space.default.values, template, mcpu)
    assert re.search(r"\tfmaxv?\t", text)
    assert not re.search(r"\t(f(max|min)nm|fcm|fcsel|bif|bit|bsl)", text)


@pytest.mark.virtual
@pytest.mark.parametrize(("device", "dtype"), [("pi4-virtual", "float32"), ("pi5-virtual", "float16")])
def test_kernels_on_arm_keep_nans(tmp_path: Path, device: str, dtype: str) -> None:
    """NaNs and infinities in one image, as PyTorch has them."""
    with started_agents(find_device(device)) as agents:
        for name, layer in LAYERS.items():
            task = Task((layer,), dtype, machine=agents.profile.machine)
            template = template_for(task)
            assert template is not None
            space = template.space(task)
            assert space is not None
            data, parameters = make_inputs(task), make_parameters(task)
            places = data[0].reshape(-1)
            places[[0, places.size // 2]] = NANS[1:]
            if name != "silu":  # of minus infinity PyTorch makes a NaN
                places[[5, -1]] = np.inf, -np.inf
            schedule, output = space.default, np.zeros(layer.output_shape, task.storage[1].numpy)
            compile_kernel(kernel_function(task, schedule, None), agents.profile.target, tmp_path / f"{name}.so")
            arrays = [*data, *packed_constants(task, schedule, parameters), output]
            run = agents.measure_kernel(tmp_path / f"{name}.so", task.symbol, arrays, 20.0, agents.kernel_timing(1))
            expected = expected_output(task, data, parameters)
            assert np.isnan(expected).any()
            np.testing.assert_allclose(run.outputs[0], expected, task.tolerance, task.tolerance * 10, err_msg=name)
