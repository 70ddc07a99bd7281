"""Prices of layers in either precision, from the shipped logs of the virtual Pi 5."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.tasks import Task
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.precision_costs import _Prices
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.tuning.database import Database


@pytest.fixture(scope="module")
def prices() -> _Prices:
    job = variant_job(Model(ModelSpec("mobilenet_v3_small", 1.0, 224)), find_device("pi5").profile, (SHIPPED_LOGS,), Path())
    return _Prices(job, Database(job.identity, job.logs, None))


def task_named(prices: _Prices, name: str) -> Task:
    return next(task for task in prices.database.described() if task.name == name)


@pytest.mark.parametrize("name", ["dense_576x1024_hswish", "dense_960x1280_hswish"])
def test_a_layer_that_stores_integers_waits_for_its_weights(name: str, prices: _Prices) -> None:
    """MobileNet v3's heads have megabytes of them: three quarters of their latency is misses."""
    task = task_named(prices, f"{name}_float32_t1")
    assert prices.core_us(task) < 0.3 * prices.latency_us(task)
    assert prices.rounding_us(task, task) == pytest.approx(prices.latency_us(task), rel=0.02)


def test_a_layer_that_stores_integers_does_not_wait_for_its_output(prices: _Prices) -> None:
    """Two fifths of this layer's latency is misses; rounding takes less."""
    task = task_named(prices, "pw_112x112_8x16_relu6_float32_t1")
    assert prices.core_us(task) < 0.6 * prices.latency_us(task) and prices.rounding_us(task, task) < 0.9 * prices.latency_us(task)
