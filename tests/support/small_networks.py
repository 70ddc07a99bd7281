"""Small PyTorch networks and their way through the compiler to a library for the host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import host_kernels
import numpy as np
import torch
from lowered_networks import prepare
from torch import nn

from tvmmobile.devices.protocol import MEASURED
from tvmmobile.graph.layers import Layer
from tvmmobile.graph.lowering import Lowered, lower
from tvmmobile.graph.network import Network, read_network
from tvmmobile.graph.precision import FLOAT32, Precision
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import export, make_target, pass_context
from tvmmobile.kernels.function import kernel_function
from tvmmobile.kernels.lowering import PIPELINE
from tvmmobile.kernels.reference import relative_error
from tvmmobile.networks.frontend import import_torch
from tvmmobile.networks.models.weights import seed_weights
from tvmmobile.schedules import KnobSchedule, template_for
from tvmmobile.system.toolchain import toolchain
from tvmmobile.tuning.choice import choose
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity

HOST = {**host_kernels.HOST, "num-cores": 2}


class Residual(nn.Module):
    """`x + f(x)`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + self.inner(image)


class SqueezeExcite(nn.Module):
    """`x` times factors made of its means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 8, 1), nn.ReLU(), nn.Conv2d(8, channels, 1), nn.Hardsigmoid()
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.gate(image) * image


class Lambda(nn.Module):
    """A function of a tensor as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return self.function(data)


def unit(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, activation: nn.Module | None = None, bias: bool = False
) -> list[nn.Module]:
    """Convolution, batch norm and activation, as networks have them."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU6() if activation is None else activation]


def seeded(*modules: nn.Module) -> nn.Module:
    """Return the modules in a row, in eval mode, with weights and batch-norm statistics that all matter."""
    network = nn.Sequential(*modules)
    seed_weights(network, 0, probe=(3, 48, 48))
    return network.eval()


def two_blocks() -> nn.Module:
    """Return a MobileNet v1 of one depthwise separable block behind the first convolution, with its classifier."""
    return seeded(*unit(3, 8, 3, 2), *unit(8, 8, 3, groups=8), *unit(8, 12), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(12, 5))


def accepted(layer: Layer, precision: Precision = FLOAT32) -> bool:
    """Return whether some template takes a layer."""
    return template_for(Task((layer,), precision.name)) is not None


#: By network and by what decides the result.
_prepared: WeakKeyDictionary[nn.Module, dict[Any, Network]] = WeakKeyDictionary()


def prepared(network: nn.Module, shape: tuple[int, ...], dump_dir: Path | None = None, precision: Precision = FLOAT32) -> Network:
    """The network as the planner reads it; the same as last time, if nothing has changed, because PyTorch's export takes most of a test."""
    known = _prepared.setdefault(network, {})
    key = (
        shape,
        precision,
        repr(network),
        tuple((id(parameter), parameter._version) for parameter in (*network.parameters(), *network.buffers())),
    )
    if dump_dir is None and key in known:
        return known[key]
    known[key] = _as_prepared(network, shape, dump_dir, precision)
    return known[key]


def _as_prepared(network: nn.Module, shape: tuple[int, ...], dump_dir: Path | None, precision: Precision) -> Network:
    return read_network(*prepare(import_torch(network, shape), lambda layer: accepted(layer, precision), dump_dir, precision))


def kernels_of(network: Network, choice: int = 0, threads: int = 1, precision: Precision = FLOAT32) -> tuple[Lowered, ...]:
    """Every layer as a kernel of its own: a schedule of its space (the `choice`-th, modulo its size), or the fallback's first."""
    database = Database(Identity("nowhere", MEASURED), (), None)
    kernels = []
    functions: dict[Task, Any] = {}
    for index, node in enumerate(network.nodes):
        task = Task((node.layer,), node.dtype or precision.name, threads)
        template = template_for(task)
        constants: list[Any] = []
        if template is None:
            schedule = choose(task, node.function, database, HOST).schedule
        else:
            space = template.space(task)
            assert space is not None
            schedule = list(space)[choice % len(space)]
            assert isinstance(schedule, KnobSchedule)
            constants = template.pack(task, schedule.values, (node.parameters,) if node.parameters else ())
        if task not in functions:  # a library has each kernel once
            functions[task] = kernel_function(task, schedule, node.function)
        kernels.append(Lowered(index, index, task, functions[task], tuple(constants)))
    return tuple(kernels)


def run_lowered(module: Any, image: np.ndarray[Any, Any], path: Path) -> np.ndarray[Any, Any]:
    """Build a lowered network for the host, load it from `path` and run it on one input."""
    return loaded(module, path)(image)


def loaded(module: Any, path: Path) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Return a lowered network, built for the host and loaded from `path`, as a function of its input."""
    import tvm
    from tvm import relax

    with pass_context():
        executable = relax.build(module, target=make_target(HOST), tir_pipeline=PIPELINE)
    export(executable, path, toolchain(HOST))
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())

    def run(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        result: np.ndarray[Any, Any] = machine["main"](tvm.runtime.tensor(image)).numpy()
        return result

    return run


def error_against_torch(network: nn.Module, shape: tuple[int, ...], path: Path, choice: int = 0, threads: int = 1) -> float:
    """Largest difference between PyTorch's output and the compiled network's, relative to the largest output.

    Each library needs a path of its own: a process that has loaded one goes on with that, whatever is written over it.
    """
    return error_of(prepared(network, shape), network, shape, path, choice, threads)


def error_of(read: Network, network: nn.Module, shape: tuple[int, ...], path: Path, choice: int = 0, threads: int = 1) -> float:
    """Return the same of a network that is prepared already."""
    image = np.random.default_rng(3).normal(0.0, 1.0, shape).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    actual = run_lowered(lower(read, kernels_of(read, choice, threads)), image, path)
    return relative_error(actual, expected)
