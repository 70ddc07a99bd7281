"""Compares search strategies by the trials they need: on a board with shipped logs, and on one without records.

A run counts the trials until a schedule within 3 %, and one within 1 %, of the best known one is found. Every schedule measured is
kept in `--cache DIR`, so the script can be interrupted, run again, and costs nothing where the strategies choose alike. The best known
schedule is the fastest that any run or the shipped logs ever saw; when a run finds a faster one, all counts are made again.

    ./studies/run compare_search --cache /tmp/search --out studies/results/search.md
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from studies.harness import Options, option, study, write_json
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d, Layer
from tvmmobile.graph.tasks import Task
from tvmmobile.running.bench import Bench, started_bench
from tvmmobile.schedules import KnobSchedule, Space, template_for
from tvmmobile.system.entry_points import progress
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.files import write_text
from tvmmobile.system.markdown import markdown_table
from tvmmobile.system.workers import WorkerError, Workers
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.tuning.search.cost_model import CostModel
from tvmmobile.tuning.search.nearest import nearest_schedules
from tvmmobile.tuning.search.strategy import GuidedEvolution, HillClimbing, RandomSampling, Strategy
from tvmmobile.tuning.search.trial import TrialJob, run_trial
from tvmmobile.tuning.search.tuner import BATCH, TRIAL_TIMEOUT_S

SEEDS = range(5)
#: A schedule counts as found when it is at most this much slower than the best known; the widest margin first.
MARGINS = (0.03, 0.01)
#: A run that has not found one by then counts as this many.
MOST_TRIALS = 64
RELU6 = (0.0, 6.0)


def _depthwise(side: int, channels: int, stride: int) -> Conv2d:
    return Conv2d(side, side, channels, channels, (3, 3), (stride, stride), (1, 1, 1, 1), channels, RELU6)


def _chain(side: int, inputs: int, outputs: int) -> tuple[Layer, ...]:
    """Return a 1×1 convolution and the depthwise one that reads it."""
    return Conv2d(side, side, inputs, outputs, clamp=RELU6), _depthwise(side, outputs, 1)


#: Regions with large spaces.
KERNELS: tuple[tuple[Layer, ...], ...] = (
    (Conv2d(160, 160, 3, 24, (3, 3), (2, 2), (1, 1, 1, 1), 1, RELU6, "NCHW"),),
    (Conv2d(56, 56, 64, 128, clamp=RELU6),),
    (Conv2d(14, 14, 256, 256, clamp=RELU6),),
    (Conv2d(7, 7, 512, 1024, clamp=RELU6),),
    _chain(20, 64, 128),
    _chain(14, 112, 672),
)
#: A board with shipped records, and one treated as having none: neither its own records nor those of a similar core are read.
KNOWN, UNKNOWN = "pi4-virtual", "rk3566-virtual"


@dataclass
class Lab:
    """Measures schedules, each once."""

    database: Database
    bench: Bench
    known: dict[tuple[Task, KnobSchedule], Record] = field(default_factory=dict)
    measured: int = 0

    def __post_init__(self) -> None:
        for task in self.database.tasks():
            for record in self.database.records(task):
                if isinstance(record.schedule, KnobSchedule):
                    self.known[task, record.schedule] = record

    def measure(self, task: Task, schedules: Sequence[KnobSchedule]) -> list[Record]:
        """Return the schedules' records, in order; measures those that are missing."""
        missing = [schedule for schedule in schedules if (task, schedule) not in self.known]
        jobs = [TrialJob(task, schedule, None, self.bench.agents) for schedule in missing]
        for job, result in self.bench.workers.run(run_trial, jobs, TRIAL_TIMEOUT_S):
            if isinstance(result, WorkerError):
                record = Record(task, job.schedule, None, error=str(result))
            else:
                record = Record(task, job.schedule, result.latency_us, result.cycles, error=result.error)
            self.database.append([record])
            assert isinstance(job.schedule, KnobSchedule)
            self.known[task, job.schedule] = record
            self.measured += 1
        return [self.known[task, schedule] for schedule in schedules]

    def best_us(self, task: Task) -> float:
        """Return the fastest latency known."""
        best = self.database.best(task)
        return float("inf") if best is None or best.latency_us is None else best.latency_us


def space_of(task: Task) -> Space:
    """Return the space that the search of a task's first template chooses from."""
    template = template_for(task)
    assert template is not None
    space = template.space(task)
    assert space is not None
    return space


def make(name: str, task: Task, seed: int, shipped: Database) -> Strategy:
    """Make a strategy from its name in the table."""
    template, space = template_for(task), space_of(task)
    assert template is not None
    rng = random.Random(f"{task.name} {seed}")
    if name.startswith("random"):
        return RandomSampling(task, space, nearest_schedules(task, shipped, template) if "nearest" in name else [], rng)
    if name == "hill climbing":
        return HillClimbing(task, space, [], rng)
    model = CostModel(template.name, template.version)
    if name == "evolution, cold":
        return GuidedEvolution(task, space, [], rng, model)
    # What other kernels taught, never the kernel itself.
    for other in shipped.tasks():
        if other != task:
            model.add(shipped.records(other))
    seeds = nearest_schedules(task, shipped, template) if name == "evolution, nearest first" else []
    return GuidedEvolution(task, space, seeds, rng, model)


_NEW = ("random", "hill climbing", "evolution, cold")
#: By board.
STRATEGIES = {KNOWN: (*_NEW, "evolution, other kernels", "random, nearest first", "evolution, nearest first"), UNKNOWN: _NEW}


def trials_needed(name: str, task: Task, seed: int, lab: Lab, shipped: Database) -> list[int]:
    """Count the trials until one is within each margin of the best known."""
    strategy = make(name, task, seed, shipped)
    spent = 0
    needed: list[int] = []
    while spent < MOST_TRIALS:
        batch = strategy.propose(min(BATCH, MOST_TRIALS - spent))
        if not batch:
            break
        records = lab.measure(task, batch)
        for record in records:
            spent += 1
            while record.latency_us is not None and record.latency_us <= (1 + MARGINS[len(needed)]) * lab.best_us(task):
                needed.append(spent)
                if len(needed) == len(MARGINS):
                    return needed
        strategy.observe(records)
        if isinstance(strategy, GuidedEvolution):
            strategy.model.add(records)
    return needed + [MOST_TRIALS] * (len(MARGINS) - len(needed))


def compare(board: str, cache: Path, workers: Workers) -> dict[str, Any]:
    """Measure a board's figures for the page: trials by kernel and strategy, per seed a number for each margin; and each kernel's space."""
    device = find_device(board)
    identity, machine = Identity.of(device.profile), device.profile.machine
    shipped = Database(identity, [SHIPPED_LOGS] if board == KNOWN else [], None)
    table: dict[str, dict[str, list[list[int]]]] = {}
    spaces: dict[str, int] = {}
    with started_bench(device, workers) as bench:
        lab = Lab(Database(identity, [SHIPPED_LOGS], cache), bench)
        for region in KERNELS:
            task = Task(region, machine=machine)
            spaces[task.name] = len(list(space_of(task)))
            while True:
                before = lab.best_us(task)
                for name in STRATEGIES[board]:
                    table.setdefault(task.name, {})[name] = [trials_needed(name, task, seed, lab, shipped) for seed in SEEDS]
                if lab.best_us(task) == before:
                    break
            progress(f"{board}, {task.name}: best {lab.best_us(task):.1f} us modelled, {lab.measured} measured so far")
    return {"timing_model": identity.origin.model, "spaces": spaces, "trials": table}


def page(content: Mapping[str, Any]) -> str:
    """Return the page: tables for each board and margin, from the JSON file."""
    models = ", ".join(f"`{found['timing_model']}` of {board}" for board, found in content["boards"].items())
    lines = [
        "# Trials a strategy needs",
        "",
        f"Trials until a schedule close to the best known one is found: the mean over {content['seeds']} seeds; a run that finds none",
        f"counts as {content['most_trials']}. Modelled (timing models {models}) on {content['date']}.",
        "`./studies/run compare_search` wrote this page and [search.json](search.json).",
        "",
        "`random`, `hill climbing` and `evolution, cold` start without records. The others know the shipped records of other kernels but",
        "not of the kernel itself, as `tune` does for a new shape: `evolution` trains its cost model with them, and `nearest first` begins",
        "with the best schedules of the nearest shapes. `tune` uses the last column's strategy. *Space*: schedules to choose from.",
    ]
    if KNOWN in content["boards"]:
        trials, numbers = content["boards"][KNOWN]["trials"].values(), range(len(content["margins"]))
        rows = [
            [name, *(f"{statistics.mean(seed[number] for row in trials for seed in row[name]):.1f}" for number in numbers)]
            for name in ("random, nearest first", "evolution, nearest first")
        ]
        titles = ("after the same first schedules", *(f"within {margin:.0%}" for margin in content["margins"]))
        lines += ["", "## What the cost model is worth", "", *markdown_table(titles, rows)]
    for board, found in content["boards"].items():
        known = "with its shipped records" if board == KNOWN else "without records"
        for number, margin in enumerate(content["margins"]):
            means = {
                kernel: [statistics.mean(seed[number] for seed in row[name]) for name in STRATEGIES[board]]
                for kernel, row in found["trials"].items()
            }
            rows = [[kernel, str(found["spaces"][kernel]), *(f"{mean:.1f}" for mean in row)] for kernel, row in means.items()]
            totals = [statistics.mean(column) for column in zip(*means.values(), strict=True)]
            rows.append(["**mean**", "", *(f"**{total:.1f}**" for total in totals)])
            heading = f"## {board}, {known}: within {margin:.0%}"
            lines += ["", heading, "", *markdown_table(("kernel", "space", *STRATEGIES[board]), rows)]
    return "\n".join(lines) + "\n"


@study(
    option("--cache", None, "directory for what is measured", type=Path, required=True),
    option("--out", None, "Markdown file to write; the trials go beside it as JSON", type=Path),
    option("--board", None, "only this board (may be given more than once)", action="append", choices=STRATEGIES),
)
def main(options: Options) -> None:
    """Run the comparison."""
    with Workers(2) as workers:
        boards = {board: compare(board, options.cache, workers) for board in options.board or STRATEGIES}
    content: dict[str, Any] = {"seeds": len(SEEDS), "most_trials": MOST_TRIALS, "margins": MARGINS}
    content |= {"date": datetime.now(UTC).date().isoformat(), "boards": boards}
    print(page(content))
    if options.out:
        write_text(options.out, page(content))
        write_json(options.out.with_suffix(".json"), content, indent=None)
