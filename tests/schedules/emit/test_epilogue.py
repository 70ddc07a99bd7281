"""One entry of `CURVES` is all that another element-wise or per-channel step takes, through every template that computes sums."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from host_kernels import check_schedule

from tvmmobile.graph.curves import CHANNEL, CURVES, TENSOR, Curve
from tvmmobile.graph.layers import Conv2d, Dense, Layer, SumLayer
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters
from tvmmobile.kernels.serial import task_from_json, task_to_json
from tvmmobile.schedules import TEMPLATES, Template

RELU6 = (0.0, 6.0)
#: A product with another tensor, factors and summands of channels, and something of one number.
NEW = {
    "times": Curve(lambda x, other: x * other, lambda v, x, other: x * other, 1e-6, operands=(TENSOR,)),
    "affine": Curve(lambda x, factor, shift: x * factor + shift, lambda v, x, factor, shift: x * factor + shift, 1e-6, (), (CHANNEL,) * 2),
    "square": Curve(lambda x: x * x, lambda v, x: x * x, 1e-6),
}
PADDED = (1, 1, 1, 1)
DEPTHWISE = Conv2d(14, 12, 24, 24, (3, 3), (1, 1), PADDED, 24)
#: What each template computes: odd channels, groups, blocks of channels, partial sums, halves of an odd number of pixels.
REGIONS: dict[str, tuple[tuple[Layer, ...], ...]] = {
    "pointwise": (
        (Conv2d(5, 7, 17, 13),),
        (Conv2d(7, 5, 96, 64, in_layout="NCHW32c", out_layout="NCHW16c", residual=True, scaled=True),),
    ),
    "depthwise": ((Conv2d(6, 5, 7, 7, (3, 5), (2, 1), (1, 0, 0, 2), 7),), (replace(DEPTHWISE, out_layout="NCHW8c"),)),
    "image_conv": ((Conv2d(9, 8, 3, 9, (3, 3), (2, 2), PADDED, 1, in_layout="NCHW"),),),
    "dense": ((Dense(19, 13),),),
    "separable": ((DEPTHWISE, Conv2d(14, 12, 24, 22, residual=True)),),
    "strassen": ((Conv2d(5, 7, 128, 144, out_layout="NCHW16c"),),),
    "chain": (
        (Conv2d(28, 28, 3, 8, (3, 3), (2, 2), PADDED, 1, in_layout="NCHW"), Conv2d(14, 14, 8, 8, (3, 3), (1, 1), PADDED, 8)),
        (Conv2d(14, 12, 8, 24), replace(DEPTHWISE, stride=(2, 2))),
        (DEPTHWISE, Conv2d(14, 12, 24, 16), Conv2d(14, 12, 16, 16, (3, 3), (1, 1), PADDED, 16)),
    ),
    "conv": ((Conv2d(7, 8, 6, 9, (3, 3), (2, 2), PADDED, 3, residual=True),), (Conv2d(6, 6, 64, 36, (3, 3), in_layout="NCHW32c"),)),
    "sparse": ((Conv2d(5, 7, 17, 12, in_layout="NCHW", out_layout="NCHW", residual=True, sparse=(50, 2)),),),
    "sparse_clusters": ((Conv2d(5, 7, 17, 12, in_layout="NCHW", out_layout="NCHW", residual=True, sparse=(50, 2)),),),
    "plane_conv": ((Conv2d(6, 9, 7, 7, (3, 5), (2, 1), (1, 0, 0, 2), 7, in_layout="NCHW", out_layout="NCHW"),),),
    "winograd": ((Conv2d(6, 7, 32, 36, (3, 3), (1, 1), PADDED, in_layout="NCHW32c", residual=True),),),
}
SUMS = [template for template in TEMPLATES if template.name in REGIONS]


@pytest.fixture(autouse=True)
def new_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is added."""
    for name, curve in NEW.items():
        monkeypatch.setitem(CURVES, name, curve)


def with_steps(region: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return the layers with steps of every kind, in other orders."""
    orders = (("prelu", ("times", "affine", (None, 5.0))), (RELU6, ("times", "prelu", "gated")), ("affine", ("square",)))
    steps = [dict(zip(("clamp", "then"), order, strict=True)) for order in orders]
    return tuple(replace(layer, **steps[place]) for place, layer in enumerate(region) if isinstance(layer, SumLayer))


def test_every_template_of_sums_is_tried() -> None:
    """They are the templates that take a clamp. One has the epilogue of `plane_conv` and takes no steps that read tensors, and one
    that of `pointwise`, on cores with SDOT.
    """
    assert {template.name for template in TEMPLATES} - REGIONS.keys() == {
        "sparse_separable",
        "digits",
        "plane_mean",
        "pool",
        "max_pool",
        "mean_pool",
        "resize",
        "channel_norm",
        "group_norm",
        "attention",
        "batched_product",
        "recurrent",
        "softmax",
    }


CASES = [pytest.param(name, number, id=f"{name}-{number}") for name, regions in REGIONS.items() for number in range(len(regions))]


def check(name: str, number: int, choices: tuple[int, ...], folder: Path) -> None:
    """Schedules of a template for one of its regions."""
    task = Task(with_steps(REGIONS[name][number]), threads=1 + number % 2)
    space = next(template for template in SUMS if template.name == name).space(task)
    assert space is not None
    for choice in choices:
        check_schedule(task, space, choice, 2e-5, folder)


@pytest.mark.parametrize(("name", "number"), CASES)
def test_values(tmp_path: Path, name: str, number: int) -> None:
    """Tiles are the smallest ones, which compile fastest."""
    check(name, number, (0,), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(("name", "number"), CASES)
def test_values_of_other_schedules(tmp_path: Path, name: str, number: int) -> None:
    check(name, number, (1, 1009, -1), tmp_path)


@pytest.mark.parametrize("template", SUMS, ids=lambda template: template.name)
def test_what_nobody_knows_is_refused(template: Template) -> None:
    for place, layer in enumerate(region := with_steps(REGIONS[template.name][0])):
        for unknown in (replace(layer, clamp="zeal"), replace(layer, then=(RELU6, "zeal"))):
            task = Task((*region[:place], unknown, *region[place + 1 :]))
            assert task.needs & {"clamp=zeal", "then=zeal"} and template.space(task) is None


def test_what_is_compared_with() -> None:
    """Written out once, so that the reference does not only agree with the kernels."""
    layer = Conv2d(3, 4, 6, 5, clamp="prelu", then=("times", "affine", (0.0, 6.0)), residual=True, out_layout="NCHW")
    task = Task((layer,))
    (data, residual, other), (own,) = make_inputs(task), make_parameters(task)
    slope, factor, shift = own.operands
    sums = data.reshape(12, 6) @ own.weight.reshape(6, 5) + own.bias + residual.reshape(12, 5)
    values = np.clip(np.where(sums > 0, sums, slope * sums) * other.reshape(12, 5) * factor + shift, 0, 6)
    np.testing.assert_allclose(expected_output(task, [data, residual, other], (own,)), values.T.reshape(1, 5, 3, 4), rtol=1e-4, atol=1e-5)
    assert (values == 0).any() and (values == 6).any()


def test_names_sizes_and_json() -> None:
    layer = Conv2d(14, 14, 8, 16, clamp="prelu", then=("times", (0.0, None)), residual=True)
    task = Task((layer, Dense(4, 4, then=("times",))))
    assert task.name == "pw_14x14_8x16_add_prelu_times_relu+dense_4x4_linear_times_float32_t1"
    assert task.side_shapes == {"residual0": (1, 14, 14, 16), "operand0_0": (1, 14, 14, 16), "operand0_1": (1, 4)}
    assert layer.constants == 8 * 16 + 2 * 16
    assert task.needs == {"clamp=prelu", "then=times", "then", "residual", "layers"}
    assert task_from_json(task_to_json(task)) == task
    assert "then" not in task_to_json(Task((replace(layer, then=()),)))["region"][0]
