"""Caches the candidate kernels of libraries, so that a later command can price them without importing the networks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tvmmobile.graph.machine import Machine
from tvmmobile.graph.network import Wiring
from tvmmobile.kernels.serial import task_from_json, task_to_json
from tvmmobile.networks.model import Model
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.loading import files_of
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.system.files import sha256_of, write_text
from tvmmobile.system.package import cached_file
from tvmmobile.tuning.regions import Region, VariantTasks


def read_tasks(job: VariantJob) -> VariantTasks | None:
    """Return the candidate kernels that `keep_tasks` cached, without TIR; `None` if none are cached for this library."""
    path = _file(job)
    try:
        return None if path is None else _tasks(json.loads(path.read_text(encoding="utf-8")), job.profile.machine)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def keep_tasks(job: VariantJob, tasks: VariantTasks) -> None:
    """Cache the candidate kernels of a job's library, unless its network's files could change unnoticed."""
    path = _file(job)
    if path is not None:
        distinct = list(dict.fromkeys(region.task for region in tasks.regions))
        numbers = {task: number for number, task in enumerate(distinct)}
        value = {
            "nodes": tasks.nodes,
            "tasks": [task_to_json(task) for task in distinct],
            "regions": [(one.first, one.last, numbers[one.task], one.before, one.after) for one in tasks.regions],
            "wiring": asdict(tasks.wiring),
        }
        with suppress(OSError):  # where the disk is full, a later command plans again
            write_text(path, json.dumps(value, separators=(",", ":")))


def _tasks(value: Mapping[str, Any], machine: Machine) -> VariantTasks:
    distinct = [replace(task_from_json(one), machine=machine) for one in value["tasks"]]
    regions = tuple(Region(first, last, distinct[number], before, after) for first, last, number, before, after in value["regions"])
    wiring = Wiring(tuple(map(tuple, value["wiring"]["sources"])), tuple(value["wiring"]["results"]))
    return VariantTasks(value["nodes"], regions, {}, wiring=wiring)


def _file(job: VariantJob) -> Path | None:
    """Return the file for a library, named after all that its kernels depend on; `None` for a network whose files could change unnoticed.

    The choice of layers by latency depends on more than that.
    """
    read = _files_read(job.model)
    if read is None or job.options.max_drop is not None:
        return None
    facts = (
        replace(job.options, image=None),  # which decides by the calibration data alone
        job.model,
        job.identity,
        sorted(job.profile.target.items(), key=str),
        *([read] if read else []),
        *([] if job.calibration is None else [job.calibration.given, job.calibration.preprocessing, _stated(job.calibration.files)]),
    )
    return cached_file("kernels", facts, ".json")


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
    """Return the hash of a file, given its modification time."""
    return sha256_of(path)
