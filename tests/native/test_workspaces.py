"""The workspace of every built-in network is close to what lives in it at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvmmobile.devices.registry import find_device
from tvmmobile.native.library import laid_out
from tvmmobile.networks.models.traits import TRAITS
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.load import variants
from tvmmobile.pipeline.planning import plan_variant
from tvmmobile.system.environment import SHIPPED_LOGS


@pytest.mark.long
@pytest.mark.parametrize("family", TRAITS)
def test_a_workspace_is_within_a_tenth_of_its_bound(family: str, tmp_path: Path) -> None:
    """Networks have the shipped schedules; kernels need memory of their own even with one thread."""
    profile = find_device("pi4-virtual").profile
    job = variant_job(variants(family, (), ())[-1], profile, [SHIPPED_LOGS], tmp_path)
    module, _ = plan_variant(job).lowered()
    *_, layout = laid_out(module, job.profile.target, job.options.threads)
    assert 0 < layout.least_bytes <= layout.workspace_bytes <= 1.1 * layout.least_bytes
