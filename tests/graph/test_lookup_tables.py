"""Steps between int8 numbers that become lookups in a table of 256 bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quantised_files import in_integers, run_onnxruntime, smallest_step, steps_off, write_quantised_onnx
from small_networks import seeded, unit
from torch import nn

import tvmmobile
from tvmmobile.graph.layers import Array, Conv2d, Opaque
from tvmmobile.graph.passes.legalized import legalize
from tvmmobile.graph.passes.lookup_tables import lookup_tables

EVERY = np.arange(-128, 128, dtype=np.int8)
#: From the builder and numbers to others.
Steps = Callable[[Any, Any], Any]


def quantised(builder: Any, numbers: Any, scale: float = 0.02, zero: int = -20) -> Any:
    from tvm import relax

    op, number = relax.op, lambda value: relax.const(np.array([value], np.float32))
    moved = builder.emit(op.add(builder.emit(op.round(builder.emit(op.divide(numbers, number(scale))))), number(zero)))
    above = builder.emit(op.maximum(moved, relax.const(-128.0)))
    return builder.emit(op.astype(builder.emit(op.minimum(above, relax.const(127.0))), "int8"))


def dequantised(builder: Any, integers: Any, scale: float = 0.03, zero: int = 5) -> Any:
    from tvm import relax

    op, wide = relax.op, builder.emit(relax.op.astype(integers, "float32"))
    return builder.emit(op.multiply(builder.emit(op.subtract(wide, relax.const(np.array([zero], np.float32)))), relax.const(scale)))


def silu(builder: Any, numbers: Any) -> Any:
    """As ONNX Runtime quantises it: the sigmoid is rounded, too."""
    from tvm import relax

    gate = dequantised(builder, quantised(builder, builder.emit(relax.op.sigmoid(numbers)), 1 / 256, -128), 1 / 256, -128)
    return builder.emit(relax.op.multiply(numbers, gate))


def unary(name: str) -> Steps:
    def steps(builder: Any, numbers: Any) -> Any:
        from tvm import relax

        wide = builder.emit(relax.op.add(numbers, relax.const(0.25)))
        return builder.emit(relax.op.multiply(builder.emit(getattr(relax.op, name)(wide)), numbers))

    return steps


def network(steps: Steps, extra: Callable[[Any, Any], Any] | None = None) -> Any:
    """Return a module that takes every int8 number; its output is int8, followed by what `extra` makes of the real numbers."""
    from tvm import relax

    given, builder = relax.Var("x", relax.TensorType([len(EVERY)], "int8")), relax.BlockBuilder()
    with builder.function("main", [given]):
        with builder.dataflow():
            real = dequantised(builder, given)
            result = builder.emit_output(quantised(builder, steps(builder, real)))
            others = [] if extra is None else [builder.emit_output(extra(builder, real))]
        builder.emit_func_output(relax.Tuple([result, *others]))
    return builder.get()


def outputs_of(module: Any) -> list[Array]:
    import tvm
    from tvm import relax

    machine = relax.VirtualMachine(relax.build(legalize(module), target="llvm"), tvm.cpu())
    outputs = machine["main"](tvm.runtime.tensor(EVERY))
    return [output.numpy() for output in ([outputs] if hasattr(outputs, "numpy") else outputs)]


STEPS: dict[str, Steps] = {"silu": silu, **{name: unary(name) for name in ("exp", "tanh", "erf", "sigmoid", "abs", "square")}}


@pytest.mark.parametrize("name", STEPS)
def test_every_number_is_looked_up(name: str) -> None:
    module = network(STEPS[name])
    shorter = lookup_tables(lambda layer: True, {})(module)
    assert shorter.script().count("R.take(") == 1
    assert "round" not in shorter.script()
    (found,), (expected,) = outputs_of(shorter), outputs_of(module)
    # Functions are approximated otherwise elsewhere, so that a tie, which is rare, may be rounded otherwise.
    off = np.abs(found.astype(int) - expected)
    assert off.max() <= 1 and (off > 0).sum() <= 1
    assert len(np.unique(found)) > 10


def test_real_numbers_that_something_else_reads_stay() -> None:
    from tvm import relax

    module = network(silu, lambda builder, real: builder.emit(relax.op.negative(real)))
    shorter = lookup_tables(lambda layer: True, {})(module)
    assert shorter.script().count("R.take(") == 1 and "R.negative" in shorter.script()
    (found, real), (expected, expected_real) = outputs_of(shorter), outputs_of(module)
    np.testing.assert_array_equal(real, expected_real)
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("steps", ["few", "by place", "moved"])
def test_steps_that_are_no_function_of_one_number_or_few_stay(steps: str) -> None:
    from tvm import relax

    def few(_builder: Any, numbers: Any) -> Any:
        return numbers

    def by_place(builder: Any, numbers: Any) -> Any:
        factors = relax.const(np.linspace(0, 1, len(EVERY), dtype=np.float32))
        return silu(builder, builder.emit(relax.op.multiply(numbers, factors)))

    def moved(builder: Any, numbers: Any) -> Any:
        return silu(builder, builder.emit(relax.op.flip(numbers, 0)))

    module = network({"few": few, "by place": by_place, "moved": moved}[steps])
    shorter = lookup_tables(lambda layer: True, {})(module)
    assert "R.take" not in shorter.script()
    np.testing.assert_array_equal(outputs_of(shorter)[0], outputs_of(module)[0])


class Gelu(nn.Module):
    """Computes a GELU by several operators, each of which a file quantises."""

    def forward(self, x: Any) -> Any:
        return x * 0.5 * (1 + (x * 0.7071).erf())


@pytest.mark.virtual
@pytest.mark.parametrize("activation", [nn.SiLU, nn.Hardswish, Gelu, nn.Tanh])
@pytest.mark.parametrize("unsigned", [False, True])
def test_activations_that_a_file_quantises(tmp_path: Path, activation: type[nn.Module], unsigned: bool) -> None:
    module = seeded(*unit(3, 16, 3, 2, activation=activation()), *unit(16, 24, activation=activation()), *unit(24, 8))
    path = write_quantised_onnx(module, tmp_path, unsigned=unsigned)
    layers = [node.layer for node in in_integers(path).network.nodes]
    assert [layer.looks_up for layer in layers if isinstance(layer, Conv2d)] == [True, True, False]
    assert {layer.operator for layer in layers if isinstance(layer, Opaque)} == {"transpose", "cast_subtract_multiply"}
    library = tvmmobile.compile(tvmmobile.load(path), "pi5", dtype="int8", out=tmp_path / "out", logs=tmp_path)
    (image,), _ = library.reference()
    expected = run_onnxruntime(path, image)
    off = steps_off(library.run(image, "pi5"), expected, smallest_step(expected))
    assert off.max() < 2.01 and (off > 0.5).mean() < 0.05


class Branches(nn.Module):
    """Reads a convolution's results twice, and those of a second one in float32 as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(32, 16, 1)

    def forward(self, image: Any) -> Any:
        found = self.first(image)
        activated = nn.functional.silu(self.second(torch.cat([nn.functional.silu(found), found], 1)))
        return activated + torch.cos(activated)


@pytest.mark.virtual
def test_results_with_several_readers_are_looked_up_by_a_kernel(tmp_path: Path) -> None:
    module = seeded(Branches(), *unit(16, 8))
    path = write_quantised_onnx(module, tmp_path)
    layers = [node.layer for node in in_integers(path).network.nodes]
    assert [layer.looks_up for layer in layers if isinstance(layer, Conv2d)] == [False, True, False, False]
    assert any("lookup" in layer.operator for layer in layers if isinstance(layer, Opaque))
    library = tvmmobile.compile(tvmmobile.load(path), "pi5", dtype="int8", out=tmp_path / "out", logs=tmp_path)
    (image,), _ = library.reference()
    expected = run_onnxruntime(path, image)
    off = steps_off(library.run(image, "pi5"), expected, smallest_step(expected))
    assert off.max() < 2.01 and (off > 0.5).mean() < 0.05
