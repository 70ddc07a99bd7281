"""Prices a library on a device from the tuning logs alone: the sum of the latencies of its plan's kernels, from their records or the
nearest ones.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from tvmmobile.choosing.sizes import planned_sizes
from tvmmobile.networks.frontend import Imported
from tvmmobile.networks.model import Model
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.loading import files_of
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.planning import plan_variant
from tvmmobile.pipeline.variant import import_model
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.files import filling_cache, sha256_of, write_text
from tvmmobile.system.package import package_facts
from tvmmobile.tuning.database import log_paths
from tvmmobile.tuning.search.nearest import estimated_us


@dataclass(frozen=True)
class PlannedLatency:
    """A library's latency according to records.

    Attributes:
        latency_us: the sum of its kernels' records, in microseconds, and of estimates from the nearest shapes where there are none; `None`
            if nothing like a kernel was tuned.
        kernels: number of kernels in the plan.
        unmeasured: number of kernels without a record.
        memory_bytes, weight_bytes: see `PlannedSizes`.
        estimated_us: the estimated part of the latency.
    """

    latency_us: float | None
    kernels: int
    unmeasured: int
    memory_bytes: int
    weight_bytes: int
    estimated_us: float = 0.0


def planned_latency(job: VariantJob) -> PlannedLatency:
    """Plan a library; a worker's job."""
    read = _files_read(job.model)
    planned = plan_variant(job, with_reference=False, imported=None if read is None else _imported(job.model, read))
    sizes = planned_sizes(planned)
    known = [step.price.latency_us for step in planned.steps if step.price.latency_us is not None]
    guessed = [estimated_us(step.task, planned.basis) for step in planned.steps if step.price.latency_us is None]
    estimates = [one for one in guessed if one is not None]
    latency_us = math.fsum([*known, *estimates]) if len(estimates) == len(guessed) else None
    return PlannedLatency(
        latency_us, len(planned.steps), len(guessed), sizes.memory_bytes, sizes.weight_bytes, math.fsum(estimates) if latency_us else 0.0
    )


@lru_cache(maxsize=1)
def _imported(model: Model, read: tuple[str, ...]) -> Imported:
    """Import a network whose files have these hashes; once for libraries in several precisions, or for several devices, in a row."""
    return import_model(model)


def read_cached(job: VariantJob) -> PlannedLatency | None:
    """Return the latency that an earlier run found for the same library with the same records; `None` if none did."""
    path = _cached(job)
    try:
        return None if path is None else PlannedLatency(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_cached(job: VariantJob, latency: PlannedLatency) -> None:
    """Keep a latency for later runs."""
    path = _cached(job)
    if path is not None:
        with filling_cache():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(asdict(latency)))


def _cached(job: VariantJob) -> Path | None:
    """Return the file for a latency, named after all that it depends on; `None` for a network whose files could change unnoticed."""
    read = _files_read(job.model)
    if read is None:
        return None
    devices = [job.identity.device, *([] if job.twin is None else [job.twin.device])]
    logs = [path for directory in job.logs for device in devices for path in log_paths(directory, device)]
    facts = (
        *package_facts(),
        replace(job.options, image=None),  # which decides by the calibration data alone
        job.model,
        job.identity,
        job.twin,
        sorted(job.profile.target.items(), key=str),
        _stated(logs),
        *([read] if read else []),
        *([] if job.calibration is None else [job.calibration.given, job.calibration.preprocessing, _stated(job.calibration.files)]),
    )
    return cache_dir() / "latencies" / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.json"


def _stated(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Return files with their sizes and times of last change."""
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path in paths if (stat := path.stat())]


def _files_read(model: Model) -> tuple[str, ...] | None:
    """Return the hashes of the files that a network is read from; `None` for Python files, which may read others."""
    own = () if model.own is None else digests_of(model.own)
    if own is None:
        return None
    return (*own, *([] if model.checkpoint is None else [_sha256(model.checkpoint, model.checkpoint.stat().st_mtime_ns)]))


def digests_of(file: OwnFile) -> tuple[str, ...] | None:
    """Return the hashes of a network's file, and of those beside it that it reads; `None` for a Python file."""
    if file.path.suffix.lower() == ".py":
        return None
    return tuple(_sha256(path, path.stat().st_mtime_ns) for path in files_of(file))


@lru_cache(maxsize=256)
def _sha256(path: Path, changed_ns: int) -> str:
    """Return the hash of a file that was changed last at a time."""
    return sha256_of(path)
