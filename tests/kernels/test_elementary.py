"""Elementary functions out of arithmetic: their errors, their limits, and libraries that call no other library for them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from assembly import TARGET
from small_networks import kernels_of, prepared, run_lowered
from torch import nn

from tvmmobile.graph.layers import Array
from tvmmobile.graph.lowering import Lowered, lower
from tvmmobile.graph.network import Network
from tvmmobile.graph.tasks import Task, symbol_of
from tvmmobile.kernels.codegen import export, make_target, pass_context
from tvmmobile.kernels.elementary import ERRORS
from tvmmobile.kernels.lowering import PIPELINE
from tvmmobile.system.toolchain import toolchain

NUMPY = {f"a{name}": getattr(np, f"arc{name}") for name in ("sin", "cos", "tan", "sinh", "cosh", "tan2")}
NUMPY |= {"tan": np.tan, "exp10": lambda x: 10.0**x, "pow": np.power, "sigmoid": lambda x: 1 / (1 + np.exp(-x))}
LIMITS = [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3e38, -3e38]
ONE = np.finfo(np.float32).tiny


def exact(name: str, *arguments: Array) -> Array:
    """In float64."""
    wide = [argument.astype(np.float64) for argument in arguments]
    if name == "erf":
        return np.asarray(torch.erf(torch.from_numpy(wide[0])).numpy())
    with np.errstate(all="ignore"):
        return np.asarray(NUMPY.get(name, getattr(np, name, None))(*wide))


def arguments_of(name: str) -> list[Array]:
    """Return arguments where the functions bend, far away from there, over all magnitudes of both signs, and at their limits."""
    if name in ("pow", "atan2", "fmod"):
        generator = np.random.default_rng(0)
        x, y = (generator.normal(size=1 << 14) * np.exp(generator.normal(size=1 << 14) * 3) for _ in range(2))
        pairs = np.array([(np.abs(a), b) if place % 2 else (a, np.round(b)) for place, (a, b) in enumerate(zip(x, y, strict=True))])
        pairs = np.concatenate([pairs, [(a, b) for a in LIMITS for b in (*LIMITS, 3.0)]]).astype(np.float32)
        if name == "fmod":
            with np.errstate(all="ignore"):
                quotients = pairs[:, 0].astype(np.float64) / pairs[:, 1]
            pairs = pairs[~(np.isfinite(quotients) & (np.abs(quotients) >= 2**29))]
        return list(np.ascontiguousarray(pairs.T))
    magnitudes = np.logspace(-44, 38, 1 << 12)
    values = np.concatenate([np.linspace(-9, 9, 1 << 13), np.linspace(-120, 120, 1 << 13), magnitudes, -magnitudes, LIMITS])
    return [(np.where(np.abs(values) <= 8192, values, 1) if name in ("sin", "cos", "tan") else values).astype(np.float32)]


Case = tuple[str, int, float | None]
CONSTANTS = (1.0, 2.0, 3.0, 13.0, 16.0, -1.0, -5.0, 0.5, 2.5)
#: Function, lanes, and a constant second argument.
CASES: list[Case] = [(name, lanes, None) for name in ERRORS for lanes in (4, 1)] + [("pow", 4, constant) for constant in CONSTANTS]
#: Of one argument, for constant powers.
POWERS = np.concatenate([np.linspace(-9, 9, 1 << 10), LIMITS]).astype(np.float32)


def arguments_in(case: Case) -> list[Array]:
    """Whole vectors."""
    arguments = arguments_of(case[0]) if case[2] is None else [POWERS]
    return [np.pad(array, (0, -array.size % 4)) for array in arguments]


def kernel_of(case: Case, chosen: bool = False) -> Any:
    """Return a function that does nothing else; if `chosen`, only where it is positive, with 1 elsewhere."""
    from tvm import tirx
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script import builder as T  # noqa: N812

    (name, lanes, constant), arguments = case, arguments_in(case)
    size, symbol = arguments[0].size, symbol_of(str(case))
    with IRBuilder() as building, T.prim_func(is_private=False, s_tir=True):
        T.func_attr({"global_symbol": symbol, "tirx.noalias": True})
        T.func_name(symbol)
        *read, written = (T.arg(f"x{place}", T.Buffer((size,), "float32")) for place in range(len(arguments) + 1))
        with T.serial(0, size // lanes) as step:
            at = T.Ramp(step * lanes, 1, lanes) if lanes > 1 else step
            values = [buffer[at] for buffer in read]
            values += [] if constant is None else [T.Broadcast(T.float32(constant), lanes)]
            value = getattr(tirx, name)(*values)
            T.buffer_store(written, T.Select(value > 0.0, value, T.float32(1.0)) if chosen else value, [at])
    return building.get()


def built(target: dict[str, str], folder: Path) -> Path:
    """Return a library of all cases."""
    import tvm

    functions = {symbol_of(str(case)): kernel_of(case) for case in CASES}
    with pass_context():
        library = tvm.tirx.build(tvm.IRModule(functions), target=make_target(target))
    export(library, folder / "elementary.so", toolchain(target))
    return folder / "elementary.so"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All cases for the host."""
    import tvm

    return tvm.runtime.load_module(str(built({"kind": "llvm"}, tmp_path_factory.mktemp("elementary"))))


def test_a_condition_may_choose_a_function(library: Any, tmp_path: Path) -> None:
    """TVM copies the function's arithmetic to where it is chosen, under other names."""
    import tvm

    cases: list[Case] = [(name, 1, None) for name in ERRORS]
    target = {"kind": "llvm"}
    with pass_context():
        module = tvm.IRModule({symbol_of(str(case)): kernel_of(case, chosen=True) for case in cases})
        export(tvm.tirx.build(module, target=make_target(target), pipeline=PIPELINE), tmp_path / "chosen.so", toolchain(target))
    chosen = tvm.runtime.load_module(str(tmp_path / "chosen.so"))
    for case in cases:
        arguments = arguments_in(case)
        plain, found = ([tvm.runtime.tensor(array) for array in (*arguments, np.empty_like(arguments[0]))] for _ in range(2))
        library[symbol_of(str(case))](*plain)
        chosen[symbol_of(str(case))](*found)
        values = plain[-1].numpy()
        np.testing.assert_array_equal(found[-1].numpy(), np.where(values > 0, values, 1), str(case))


def undefined(library: Path) -> set[str]:
    """Symbols that a library wants from others."""
    listed = subprocess.run(
        ["aarch64-linux-gnu-nm", "-D", "--undefined-only", str(library)], capture_output=True, text=True, check=True
    ).stdout
    return {line.split()[-1] for line in listed.splitlines()}


def errors(name: str, actual: Array, expected: Array) -> Array:
    """Return the errors of normal numbers; check the results that overflow, are no numbers, or have few digits."""
    with np.errstate(all="ignore"):
        rounded = expected.astype(np.float32)
        normal = np.isfinite(rounded) & (np.abs(rounded) >= ONE)
        np.testing.assert_allclose(actual[~normal], rounded[~normal], rtol=0, atol=float(ONE), equal_nan=True)
        difference = np.abs(actual.astype(np.float64) - expected)[normal]
        return difference if name in ("sin", "cos") else difference / np.abs(expected[normal])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_error_is_as_stated(library: Any, case: Case) -> None:
    """In vectors and single numbers; infinities and NaNs are as in C."""
    import tvm

    (name, _, constant), arguments = case, arguments_in(case)
    tensors = [tvm.runtime.tensor(array) for array in (*arguments, np.empty_like(arguments[0]))]
    library[symbol_of(str(case))](*tensors)
    given = arguments if constant is None else [*arguments, np.full_like(arguments[0], constant)]
    found = errors(name, tensors[-1].numpy(), exact(name, *given)).max()
    assert found <= ERRORS[name]
    assert constant is not None or found >= ERRORS[name] / 16  # what is stated is not far from what is


def test_none_calls_a_library(tmp_path: Path) -> None:
    assert undefined(built(TARGET, tmp_path)) == {"TVMFFIErrorSetRaisedFromCStrParts"}


class Fallback(nn.Module):
    """Functions where no layer that a template takes comes before them."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        flat = image.flatten(1)
        curved = nn.functional.gelu(flat) + nn.functional.gelu(flat * 0.5, approximate="tanh") + torch.erf(flat) + torch.tanh(flat)
        powers = torch.exp(flat * 0.1) + torch.log(flat.abs() + 0.1) + torch.sigmoid(flat) + nn.functional.softplus(flat)
        above = curved - torch.logsumexp(curved, 1, keepdim=True)
        root = (flat.abs() + 0.1) ** 0.5
        scaled = torch.where(root > 1, 1 / (root + 1e-7), 1.0)
        return torch.cat([above, powers, torch.sin(flat), torch.cos(flat), (flat.abs() + 1) ** 1.7, scaled], 1)


SHAPE = (1, 3, 5, 7)


def check(kernels: tuple[Lowered, ...], network: nn.Module, read: Network, folder: Path) -> None:
    """Agrees with PyTorch on the host; a board's library asks for TVM's one function alone."""
    from tvm import relax

    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    module = lower(read, kernels)
    np.testing.assert_allclose(run_lowered(module, image, folder / "host.so"), expected, rtol=1e-6, atol=1e-6)
    with pass_context():
        library = relax.build(module, target=make_target(TARGET))
    export(library, folder / "board.so", toolchain(TARGET))
    assert undefined(folder / "board.so") == {"TVMFFIErrorSetRaisedFromCStrParts"}


def test_no_library_calls_another(tmp_path: Path) -> None:
    """The loops are as Relax writes them."""
    read = prepared(network := Fallback(), SHAPE)
    tasks = [Task((node.layer,)) for node in read.nodes]
    assert all(node.function is not None for node in read.nodes)
    symbols = [node.function.with_attr("global_symbol", task.symbol) for node, task in zip(read.nodes, tasks, strict=True)]
    check(tuple(Lowered(place, place, *of, ()) for place, of in enumerate(zip(tasks, symbols, strict=True))), network, read, tmp_path)


@pytest.mark.long
def test_nor_does_one_of_scheduled_kernels(tmp_path: Path) -> None:
    """In vectors, as the fallback has them."""
    read = prepared(network := nn.Sequential(nn.Conv2d(3, 3, 1), Fallback()), SHAPE)
    check(kernels_of(read), network, read, tmp_path)
