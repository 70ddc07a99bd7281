"""Measures what each step towards a fast library is worth: a variant's modelled latency with that step alone left out.

    ./studies/run ablation                                     # 1.0-224 from the shipped logs, the page on stdout
    ./studies/run ablation --out studies/results/ablation.md   # and ablation.json

Every row is a separate library, compiled with the same schedules except for the row's change, checked against PyTorch and run on the
virtual Pi 4. What is left out is not tuned again: the rows say what a step contributes to this library, not how good the best one
without it would be. Ends with 5 if a library disagrees with PyTorch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from studies.harness import Options, option, study, write_json
from tvmmobile import schedules
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Array, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import Schedule
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.build import build
from tvmmobile.pipeline.job import VariantJob, variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.planning import PlannedVariant, plan_variant
from tvmmobile.pipeline.stages.timing import BenchJob, bench_library
from tvmmobile.results.file import VariantResult
from tvmmobile.running.bench import started_agents
from tvmmobile.running.formats import VM
from tvmmobile.running.measure import Agents
from tvmmobile.schedules import KnobSchedule
from tvmmobile.schedules.emit.epilogue import pack_constants
from tvmmobile.schedules.emit.kernel import Expr
from tvmmobile.schedules.emit.matmul import Extent, MatmulTile, Panel
from tvmmobile.schedules.floats.pointwise import Pointwise
from tvmmobile.schedules.space import Knobs, round_up
from tvmmobile.system.entry_points import progress
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.files import write_text
from tvmmobile.system.markdown import markdown_table
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Record
from tvmmobile.tuning.regions import Region, candidate_regions

DEVICE = "pi4-virtual"
#: Plans a job's library.
Planner = Callable[[VariantJob], PlannedVariant]


class UnpackedTile(MatmulTile):
    """Reads weights as the model has them: (K, N), row by row."""

    def emit(self, row: Expr, target: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> None:
        """Emit a tile that reads rows of all output channels."""
        channels = round_up(self.c.channels, self.kernel.lanes)
        super().emit(row, target, rows, panel, index, part, part.start * channels + panel.channel + index * panel.width)

    def pitch(self, width: int) -> int:
        """Return the number of all output channels, rounded up to whole vectors."""
        return round_up(self.c.channels, self.kernel.lanes)


class UnpackedPointwise(Pointwise):
    """`Pointwise` without packed weights."""

    name = "pointwise_unpacked"

    def tile_type(self, group: int) -> type[MatmulTile]:
        """Return the tiles that read weights as the model has them."""
        assert group == 1
        return UnpackedTile

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return the weights without packing."""
        weight = parameters[0].weight.reshape(-1, parameters[0].weight.shape[-1])
        padding = round_up(weight.shape[1], task.lanes) - weight.shape[1]
        return [np.pad(weight, ((0, 0), (0, padding))).ravel(), *pack_constants(parameters[0], task.lanes)]


class WithoutStrassen(Database):
    """Knows no record of products multiplied by Strassen's scheme."""

    def records(self, task: Task) -> list[Record]:
        """Return a task's records without those of Strassen's algorithm."""
        return [record for record in super().records(task) if getattr(record.schedule, "template", "") != "strassen"]


def single_layers(*arguments: Any) -> list[Region]:
    """Return `candidate_regions` without those of several layers."""
    return [region for region in candidate_regions(*arguments) if region.first == region.last]


def planner(strassen: bool = True, candidates: Callable[..., list[Region]] = candidate_regions, left_out: tuple[str, ...] = ()) -> Planner:
    """Return a planner without Strassen's algorithm, with other candidates for kernels, or without some of TVM's passes."""

    def planned(job: VariantJob) -> PlannedVariant:
        database = None if strassen else WithoutStrassen(job.identity, job.logs, None)
        return replace(plan_variant(job, database, candidates), left_out=left_out)

    return planned


#: Kernels of single layers, multiplied directly: the steps inside of the matrix product can be left out here alone.
DIRECT = planner(strassen=False, candidates=single_layers)
#: No blocks of channels anywhere.
WITHOUT_BLOCKS = planner(candidates=partial(candidate_regions, layouts=lambda *_: ("NHWC",)))


def rescheduled(plan: Planner, template: str, other: str = "", **knobs: int) -> Planner:
    """Return a planner that sets these knobs in a template's schedules, or takes another template for them."""

    def changed(schedule: Schedule) -> Schedule:
        if not isinstance(schedule, KnobSchedule) or schedule.template != template:
            return schedule
        own = {name: value for name, value in knobs.items() if name in schedule.values}
        return replace(schedule, template=other or template, knobs=tuple((schedule.values | own).items()))

    def planned(job: VariantJob) -> PlannedVariant:
        found = plan(job)
        choices = {task: replace(choice, schedule=changed(choice.schedule)) for task, choice in found.choices.items()}
        return replace(found, choices=choices)

    return planned


@dataclass(frozen=True)
class AblationRow:
    """A library of the comparison.

    Attributes:
        left_out: the step, as the table names it.
        what: the code that takes its place.
        plan: plans the library without the step.
        against: the row whose library it is, but for this step; "" for a row that others are compared with.
    """

    left_out: str
    what: str
    plan: Planner = plan_variant
    against: str = "nothing"


ROWS = (
    AblationRow("nothing", "as tuned", against=""),
    AblationRow("Strassen", "every product multiplied directly", planner(strassen=False)),
    AblationRow("fusion", "every layer a kernel of its own", planner(candidates=single_layers)),
    AblationRow("channel blocks", "NHWC between all kernels, the same knobs", WITHOUT_BLOCKS),
    AblationRow(
        "depthwise window", "1 output at a time, in kernels of one layer", rescheduled(plan_variant, "depthwise", rows=1, columns=1)
    ),
    AblationRow("memory plan", "every activation in memory of its own", planner(left_out=("StaticPlanBlockMemory",))),
    AblationRow("both", "every layer a kernel of its own, multiplied directly", DIRECT, ""),
    AblationRow(
        "cache blocks",
        "all of K, all panels for each pixel tile",
        rescheduled(DIRECT, "pointwise", k_block=0, m_block=0, n_block=0),
        "both",
    ),
    AblationRow("packed weights", "1×1 weights as the model has them", rescheduled(DIRECT, "pointwise", "pointwise_unpacked"), "both"),
    AblationRow("register tile", "1 pixel × 8 channels at a time", rescheduled(DIRECT, "pointwise", rows=1, columns=8), "both"),
)


def measured(job: VariantJob, plan: Planner, agents: Agents) -> VariantResult:
    """Build a library and run it."""
    return bench_library(BenchJob(build(job, plan).library, agents, agents.network_timing(job.options.threads, 1, 1)))


def entry(row: AblationRow, result: VariantResult) -> dict[str, Any]:
    """Return a row of the JSON file."""
    counts = {"core_cycles": result.cycles, "l1d_misses": result.l1d_misses, "dram_bytes": result.dram_bytes}
    return {"left_out": row.left_out, "instead": row.what, "against": row.against or None, "ms": result.samples_us[0] / 1000, **counts}


def rows(job: VariantJob, threads: int) -> list[dict[str, Any]]:
    """Measure the rows one after another; with several threads, the last row is the whole library on all of them."""
    board = find_device(DEVICE)
    found = []
    with started_agents(board) as agents:
        for row in ROWS:
            found.append(entry(row, measured(job, row.plan, agents)))
            progress(f"{row.left_out}: {found[-1]['ms']:.2f} ms modelled")
        if threads > 1:
            last = AblationRow("one thread", f"{threads} threads")
            found.append(entry(last, measured(replace(job, options=replace(job.options, threads=threads)), last.plan, agents)))
    return found


def page(content: Mapping[str, Any]) -> str:
    """Return the page with the content of the JSON file."""
    ms = {row["left_out"]: row["ms"] for row in content["rows"]}
    rows = []
    for row in content["rows"]:
        usual = ms.get(row["against"])
        change = f"{row['ms'] - usual:+.2f} ms ({row['ms'] / usual - 1:+.1%})" if usual else ""
        counts = f"{row['core_cycles'] / 1e6:.1f}", f"{row['l1d_misses'] / 1e6:.2f}", f"{row['dram_bytes'] / 1e6:.1f}"
        rows.append((row["left_out"], row["instead"], f"{row['ms']:.2f}", change, *counts))
    headings = "left out", "instead", "ms", "change", "core cycles, M", "L1D misses, M", "DRAM, MB"
    return f"""# What each step is worth

MobileNet v1 {content["variant"]}, float32, one thread, **modelled** on the virtual {content["board"]}
(timing model `{content["timing_model"]}`) on {content["date"]}, with the shipped logs of that day. Each row is the
same library with one step left out and nothing tuned again, so it shows what the step contributes to this library, not how fast the best
library without it would be. Steps within the matrix product are left out of direct kernels of single layers; compare those with "both".

`./studies/run ablation` wrote this page and [ablation.json](ablation.json); [kernels.md](../../docs/kernels.md) explains the steps.

""" + "\n".join([*markdown_table(headings, rows, 2), ""])


@study(
    option("--alpha", 1.0, "width multiplier"),
    option("--resolution", 224, "input side"),
    option("--threads", 4, "for the last row, 1 for none"),
    option("--logs", SHIPPED_LOGS, "tuning logs (default: the shipped ones)"),
    option("--out", None, "write the page there, and its figures beside it as JSON", type=Path),
)
def main(options: Options) -> None:
    """Run the comparison."""
    schedules.register(UnpackedPointwise())
    profile = find_device(DEVICE).profile
    spec = ModelSpec("mobilenet_v1", options.alpha, options.resolution)
    with tempfile.TemporaryDirectory(prefix="tvmmobile-ablation-") as folder:
        found = rows(variant_job(Model(spec), profile, (options.logs,), Path(folder), LibraryOptions(format=VM)), options.threads)
    where = {"variant": f"{spec.alpha}-{spec.resolution}", "board": profile.board, "timing_model": profile.origin.model}
    content = where | {"date": datetime.now(UTC).date().isoformat(), "rows": found}
    if options.out is None:
        print(page(content), end="")
    else:
        write_text(options.out, page(content))
        write_json(options.out.with_suffix(".json"), content, ensure_ascii=False)
