"""Means in half precision have the digits of a stored number, whatever the values and how many there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from host_kernels import kernel_on_host

from tvmmobile.graph.layers import MeanPool, Pool
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.precision import FLOAT16
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_for


@pytest.mark.parametrize(
    ("layer", "value"),
    [
        pytest.param(MeanPool(6, 5, 9, (3, 3), (2, 2), (1, 1, 1, 1)), 8000.0, id="a sum beyond 65504"),
        pytest.param(MeanPool(18, 17, 8, (16, 16)), 1.1, id="sums whose steps are a tenth of what is added"),
        pytest.param(MeanPool(6, 6, 5, (3, 3), sources=(4, 3), pieces=((1, 0, 2), (0, 1, 3))), 30000.0, id="pieces"),
        pytest.param(Pool(720, 1280, 1), 1.0, id="a share with a few digits"),
        pytest.param(Pool(720, 1280, 1, "NCHW"), 1.0, id="channels first"),
    ],
)
@pytest.mark.parametrize("writes", ["", "float32"])
def test_equal_numbers_are_their_mean(layer: MeanPool | Pool, value: float, writes: str, tmp_path: Path) -> None:
    task = Task((replace(layer, writes=writes),), FLOAT16.name, machine=machine_of("cortex-a76"))
    template = template_for(task)
    assert template is not None
    space = template.space(task)
    assert space is not None
    shapes = (layer.input_shape, *layer.side_shapes.values())
    data = [np.full(shape, value, np.float16) for shape in shapes]
    found = kernel_on_host(task, space.default, tmp_path / "kernel.so")(data).astype(np.float64)
    assert np.abs(found - float(data[0].flat[0])).max() <= FLOAT16.half_step * value
