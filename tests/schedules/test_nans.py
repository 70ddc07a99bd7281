"""A NaN in any operand reaches every output that PyTorch's reaches, through every template and activation, and so do infinities."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from host_kernels import examples, kernel_on_host
from hypothesis import given
from hypothesis import strategies as st
from template_regions import REGIONS, RELU6

from tvmmobile.graph.curves import CURVES
from tvmmobile.graph.layers import Array, Attention, Clamp, Conv2d, Dense, Layer, Product, Softmax
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.precision import FLOAT16, FLOAT32, Precision
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters
from tvmmobile.schedules import KnobSchedule, Template, template_named

RELU: Clamp = (0.0, None)
STEPS: tuple[Clamp, ...] = ((None, None), RELU, RELU6, (-1.0, 1.0), *CURVES)
#: Bits of NaNs: what arithmetic gives on Arm and on x86, and negative ones with all bits of a payload.
NANS = {2: (0x7E00, 0xFE00, 0xFFFF), 4: (0x7FC00000, 0xFFC00000, 0xFFFFFFFF)}
#: Their products with zero are PyTorch's NaN; here they are the limit.
LIMITS = {"silu", "gelu", "gelu_tanh"}
#: Other outputs may be NaN too: by transforms of several pixels or channels and weights that are zero, and where PyTorch's attention loses
#: a NaN of a query.
SPREADING = ("strassen", "winograd", "conv", "resize", "attention")
OTHERS: dict[str, tuple[tuple[Layer, ...], ...]] = {
    "attention": (
        (Attention(1, 2, 9, 7, 8, 8, 0.3, ((2, 9, 8), (2, 7, 8), (2, 7, 8)), (0, 0, 72, 8), (0, 0, 56, 8), (0, 0, 56, 8), True),),
    ),
    "batched_product": ((Product((2, 3), 7, 9, 10, (True, True)),),),
    "softmax": ((Softmax((5, 3), 21),), (Softmax((2,), 7, (5,)),), (Softmax((5, 3), 21, logarithm=True),)),
}


def leaves_zeros_out(region: tuple[Layer, ...]) -> bool:
    """Return whether some weights are not multiplied, so that a NaN may not reach the output as in PyTorch: see `floats/test_sparse.py`."""
    return any(isinstance(layer, Conv2d) and (layer.sparse or layer.windows) for layer in region)


FULL = {name: tuple(region for region in regions if not leaves_zeros_out(region)) for name, regions in REGIONS.items()}
EVERY = {name: regions for name, regions in FULL.items() if regions} | OTHERS

_NUMBER = itertools.count()


def planted(arrays: Sequence[Array], every: bool) -> Iterator[tuple[list[Array], bool]]:
    """Yield the arrays with a NaN or an infinity in the first, a middle or the last place of one of them; whether it is a NaN."""
    for number, array in enumerate(arrays):
        bits, infinities = f"u{array.itemsize}", np.array([np.inf, -np.inf], array.dtype)
        nans = np.array(NANS[array.itemsize], bits)
        for turn, place in enumerate((0, array.size // 2, array.size - 1)):
            for is_nan, values in ((True, nans), (False, infinities.view(bits))):
                for value in values if every else values[turn % len(values) :][:1]:
                    changed = array.copy()
                    changed.view(bits).reshape(-1)[place] = value
                    yield [*arrays[:number], changed, *arrays[number + 1 :]], is_nan


def check(task: Task, template: Template, choice: int, folder: Path, every: bool = False) -> None:
    """One schedule of the template's, with everything that `planted` plants."""
    space = template.space(task)
    assert space is not None
    schedules = list(space.unpruned())
    schedule = schedules[choice % len(schedules)]
    run, parameters = kernel_on_host(task, schedule, folder / f"kernel{next(_NUMBER)}.so"), make_parameters(task)
    for data, is_nan in planted(make_inputs(task), every):
        with np.errstate(invalid="ignore", over="ignore"):
            expected = expected_output(task, data, parameters)
        agrees(run(data), expected, is_nan, task, schedule)


def agrees(actual: Array, expected: Array, is_nan: bool, task: Task, schedule: KnobSchedule) -> None:
    """NaN where NaN is expected, infinities where these are, else the numbers within the tolerance."""
    wanted, found, where = np.isnan(expected), np.isnan(actual), f"{task.name} {schedule}"
    steps = {step for layer in task.region if isinstance(layer, Conv2d | Dense) for step in layer.steps}
    if is_nan or not steps & LIMITS:
        assert (found >= wanted).all(), f"{where}: {int((wanted & ~found).sum())} of {int(wanted.sum())} NaNs are lost"
    if schedule.template not in SPREADING:
        assert (found <= wanted).all(), f"{where}: {int((found & ~wanted).sum())} NaNs too many"
    infinite, finite = np.isinf(expected) & ~found, np.isfinite(expected) & ~found
    assert (actual[infinite] == expected[infinite]).all(), where
    assert np.isfinite(actual[finite]).all(), where
    # Sums within a region are larger than an output that is cut to ±1.
    scale = max(2.0, float(np.abs(expected[finite]).max(initial=0.0)))
    assert np.abs(actual[finite] - expected[finite]).max(initial=0.0) <= task.tolerance * scale, where


def stepped(region: tuple[Layer, ...], step: Clamp) -> tuple[Layer, ...]:
    """Return the region with this step behind its last layer, if it is one that has steps."""
    return (*region[:-1], replace(region[-1], clamp=step)) if isinstance(region[-1], Conv2d | Dense) else region


def named(template: str) -> Template:
    """Return the current version."""
    return next(found for version in range(1, 9) if (found := template_named(template, version)))


@pytest.mark.parametrize("template", EVERY)
def test_every_template_keeps_nans(tmp_path: Path, template: str) -> None:
    """Layers have a ReLU or a ReLU6, where a NaN could become a bound."""
    number = list(EVERY).index(template)
    region = stepped(EVERY[template][template == "chain"], (RELU, RELU6)[number % 2])
    check(Task(region, threads=1 + number % 2), named(template), 1009, tmp_path)


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_every_activation_keeps_nans(tmp_path: Path, step: Clamp) -> None:
    """In turn behind different layers."""
    template = ("pointwise", "depthwise", "image_conv", "dense")[STEPS.index(step) % 4]
    check(Task(stepped(EVERY[template][0], step)), named(template), 7, tmp_path)


@pytest.mark.parametrize("template", ["pointwise", "depthwise", "max_pool", "softmax"])
def test_half_precision_keeps_nans(tmp_path: Path, template: str) -> None:
    check(Task(EVERY[template][0], FLOAT16.name, machine=machine_of("cortex-a76")), named(template), 1009, tmp_path)


@pytest.mark.long
@examples(600)
@given(
    st.sampled_from([(name, region) for name, regions in EVERY.items() for region in regions]),
    st.sampled_from(STEPS),
    st.sampled_from((FLOAT32, FLOAT16)),
    st.sampled_from((1, 2)),
    st.integers(0, 1 << 16),
)
def test_any_combination_keeps_nans(
    tmp_path: Path, case: tuple[str, tuple[Layer, ...]], step: Clamp, precision: Precision, threads: int, choice: int
) -> None:
    """Every value in every place of every operand."""
    name, region = case
    task = Task(stepped(region, step), precision.name, threads, machine_of("cortex-a76"))
    if named(name).space(task) is not None:
        check(task, named(name), choice, tmp_path, every=True)
