"""Every activation that is no bound: its error over all of float32's range, in vectors and single numbers, and in every template."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from host_kernels import HALF, HOST, check_schedule, examples
from hypothesis import given
from hypothesis import strategies as st

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.curves import CURVES
from tvmmobile.graph.layers import Array, Conv2d, Dense, Layer
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import compile_kernel
from tvmmobile.running.bench import started_agents
from tvmmobile.schedules import KnobSchedule, template_named
from tvmmobile.schedules.emit.kernel import Kernel
from tvmmobile.tuning.search.trial import TrialJob, run_trial

COUNT = 1 << 16
#: Of a curve that has operands, what each of them is.
OPERAND = float(np.float32(0.3))


def values_of(curve: str, lanes: int, inputs: Array, folder: Path) -> Array:
    """Return the values that a kernel computes that does nothing else, in the inputs' precision."""
    import tvm

    task = Task((Dense(lanes, 1, curve),), str(inputs.dtype))
    kernel = Kernel(task)
    with kernel.body(data=inputs.shape, output=inputs.shape) as (data, output), kernel.loop(inputs.size // lanes) as step:
        vectors = kernel.vectors(lanes)
        operands = [vectors.number(OPERAND) for _ in CURVES[curve].operands]
        value = CURVES[curve].emit(vectors, kernel.load(data, step * lanes, lanes), *operands)
        kernel.store(output, value, step * lanes, lanes)
    path = folder / f"{task.symbol}.so"
    compile_kernel(kernel.finish(), HALF if task.dtype == "float16" else HOST, path)
    tensors = [tvm.runtime.tensor(array) for array in (inputs, np.zeros_like(inputs))]
    tvm.runtime.load_module(str(path))[task.symbol](*tensors)
    result: Array = tensors[1].numpy()
    return result


@pytest.mark.parametrize("lanes", [4, 1])
@pytest.mark.parametrize("curve", CURVES)
def test_the_error_is_as_stated(tmp_path: Path, curve: str, lanes: int) -> None:
    """Against float64: where the function bends, far out, and over all magnitudes of both signs."""
    magnitudes = np.logspace(-44, 38, COUNT // 4)
    inputs = np.concatenate([np.linspace(-9, 9, COUNT // 4), np.linspace(-120, 120, COUNT // 4), magnitudes, -magnitudes]).astype(
        np.float32
    )
    actual = values_of(curve, lanes, inputs, tmp_path).astype(np.float64)
    exact = inputs.astype(np.float64)
    wanted = CURVES[curve].exact(exact, *[OPERAND for _ in CURVES[curve].operands])
    finite = np.abs(wanted) <= np.finfo(np.float32).max
    error = (np.abs(actual - wanted) / np.maximum(1, np.maximum(np.abs(exact), np.abs(wanted))))[finite]
    assert error.max() <= CURVES[curve].max_error
    assert error.max() > CURVES[curve].max_error / 8  # what is stated is not far from what is


#: Bits of a NaN: as arithmetic makes it, negative, with one bit and with all bits of a payload.
NANS = np.array([0x7FC00000, 0xFFC00000, 0x7FC00001, 0xFFC00001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC0BEEF, 0x7F800001], np.uint32)


@pytest.mark.parametrize("lanes", [4, 1])
@pytest.mark.parametrize("curve", CURVES)
def test_infinities_and_nans(tmp_path: Path, curve: str, lanes: int) -> None:
    """A NaN remains one, whatever its bits; infinities give the limit, or PyTorch's NaN where a product has none."""
    inputs = np.concatenate([np.array([np.inf, -np.inf, 0, 0], np.float32), NANS.view(np.float32)])
    above, below, *_ = values = values_of(curve, lanes, inputs, tmp_path)
    bounded = curve in ("sigmoid", "hsigmoid", "tanh")
    assert above == (pytest.approx(1, abs=1e-6) if bounded else np.inf)
    limits = {**dict.fromkeys(("tanh", "elu"), -1), **dict.fromkeys(("prelu", "times", "plus", "gated", "scaled"), -np.inf)}
    limits |= {"square": np.inf, "hswish": np.nan}
    assert below == pytest.approx(limits.get(curve, 0), abs=1e-6, nan_ok=True)
    assert np.isfinite(values[2:4]).all() and np.isnan(values[4:]).all()


@pytest.mark.parametrize("lanes", [8, 1])
@pytest.mark.parametrize(("curve", "low", "high"), [("silu", -10.7, 9.0), ("gelu", -3.9, 4.2), ("gelu_tanh", -3.9, 4.2)])
def test_values_of_every_number_in_half_precision(tmp_path: Path, curve: str, low: float, high: float, lanes: int) -> None:
    inputs = np.arange(1 << 16).astype(np.uint16).view(np.float16)
    actual, exact = values_of(curve, lanes, inputs, tmp_path).astype(np.float64), inputs.astype(np.float64)
    finite = np.isfinite(exact)
    wanted = CURVES[curve].exact(exact[finite])
    error = np.abs(actual[finite] - wanted) / np.maximum(1, np.abs(exact[finite]))
    assert 1e-3 < error.max() <= 1.4e-3  # rounding the exact value makes 0.5e-3 of it
    assert (actual[exact > high] == exact[exact > high]).all() and (np.abs(actual[exact < low]) < 1e-4).all()
    assert (np.isnan(actual) == np.isnan(exact)).all()


LAYERS: dict[str, Layer] = {
    "pointwise": Conv2d(5, 7, 12, 10),
    "depthwise": Conv2d(6, 9, 10, 10, (3, 3), (1, 1), (1, 1, 1, 1), 10),
    "image_conv": Conv2d(12, 11, 3, 6, (3, 3), (2, 2), (1, 1, 1, 1), 1, in_layout="NCHW"),
    "conv": Conv2d(7, 6, 5, 9, (3, 3), (1, 1), (1, 1, 1, 1)),
    "dense": Dense(30, 21),
}


@examples(12)
@given(
    st.sampled_from(sorted(LAYERS)),
    st.sampled_from(sorted(CURVES)),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from((1, 3)),
    st.integers(0, 1 << 16),
)
def test_values_in_templates(tmp_path: Path, name: str, curve: str, height: int, width: int, threads: int, choice: int) -> None:
    sizes = {} if name == "dense" else {"height": height, "width": width}
    task = Task((replace(LAYERS[name], clamp=curve, **sizes),), threads=threads)
    check(task, name, choice, tmp_path)


DEPTHWISE = Conv2d(14, 15, 8, 8, (3, 3), (1, 1), (1, 1, 1, 1), 8, "silu")


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("separable", (DEPTHWISE, Conv2d(14, 15, 8, 12, clamp="tanh"))),
        ("chain", (Conv2d(14, 15, 16, 8, clamp="sigmoid"), DEPTHWISE)),
        pytest.param("strassen", (Conv2d(4, 5, 128, 128, clamp="silu"),), marks=pytest.mark.long),
    ],
)
def test_values_in_templates_of_several_products(tmp_path: Path, name: str, region: tuple[Layer, ...]) -> None:
    check(Task(region), name, -1, tmp_path)


def check(task: Task, name: str, choice: int, folder: Path) -> None:
    """One schedule of the template's."""
    template = next(found for version in range(1, 9) if (found := template_named(name, version)))
    space = template.space(task)
    assert space is not None
    check_schedule(task, space, choice, 1e-5, folder)


@pytest.mark.virtual
def test_a_long_curve_costs_what_its_instructions_do() -> None:
    """About 20 a vector on an A72, which starts one a cycle; twice as many where all sums of a tile wait in registers."""
    layer, knobs = Conv2d(28, 28, 16, 64), {"rows": 7, "columns": 8, "k_block": 0, "m_block": 0, "n_block": 8, "outer": 1, "axis": 0}
    cycles = []
    with started_agents(find_device("pi4-virtual")) as agents:
        for curve in ("silu", (0.0, 6.0)):
            task = Task((replace(layer, clamp=curve),), machine=agents.profile.machine)
            outcome = run_trial(TrialJob(task, KnobSchedule("pointwise", 2, tuple(knobs.items())), None, agents, 60.0))
            assert outcome.error is None and outcome.cycles is not None, outcome.error
            cycles.append(outcome.cycles)
    vectors = layer.out_height * layer.out_width * layer.out_channels // 4
    assert 15 < (cycles[0] - cycles[1]) / vectors < 33


def test_only_tiles_that_need_it_wait_in_memory() -> None:
    template = template_named("pointwise", 2)
    assert template is not None
    usual = {"k_block": 0, "m_block": 0, "n_block": 8, "outer": 1, "axis": 0}
    for clamp, rows, groups in (("silu", 7, 2), ("silu", 4, 0), ("hswish", 7, 0), ((0.0, 6.0), 7, 0)):
        layer = Conv2d(28, 28, 64, 64, clamp=clamp)
        text = template.emit(Task((layer,)), {**usual, "rows": rows, "columns": 8}).script()
        assert text.count("tvmmobile_barrier") == groups, (clamp, rows)
