"""What each step towards a fast library is worth: a variant's modelled latency with that step alone left out.

    ./scripts/ablation                                   # 1.0-224 from the shipped logs, the page on stdout
    ./scripts/ablation --out docs/ablation.md            # and docs/ablation.json

Every row is a library of its own, compiled with the same schedules but for what the row says, checked against PyTorch and run on the
virtual Pi 4. What is left out is not tuned again: the rows say what a step contributes to this library, not how good the best one
without it would be. Ends with 5 if a library disagrees with PyTorch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tvmmobile import schedules
from tvmmobile.devices.protocol import DeviceProfile, Endpoint
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Array, Layer, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import Schedule
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.build import NO_CHANGES, Changes, VariantJob, build_variant
from tvmmobile.pipeline.stages import BenchJob, bench_library, network_timing
from tvmmobile.results.file import VariantResult
from tvmmobile.schedules import KnobSchedule
from tvmmobile.schedules.emit import Expr
from tvmmobile.schedules.machine import LANES, round_up
from tvmmobile.schedules.matmul import Extent, MatmulTile, Panel, pack_bias
from tvmmobile.schedules.pointwise import Pointwise
from tvmmobile.schedules.space import Knobs
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import write_text
from tvmmobile.tuning.database import Identity

DEVICE = "pi4-virtual"


class UnpackedTile(MatmulTile):
    """Reads weights as the model has them: (K, N), row by row."""

    def emit(self, row: Expr, target: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> None:
        """See `MatmulTile.emit`."""
        channels = round_up(self.c.channels, LANES)
        super().emit(row, target, rows, panel, index, part, part.start * channels + panel.channel + index * panel.width)

    def pitch(self, width: int) -> int:
        """All output channels."""
        return round_up(self.c.channels, LANES)


class UnpackedPointwise(Pointwise):
    """`Pointwise` without packed weights."""

    name = "pointwise_unpacked"
    tile = UnpackedTile

    def pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """The weights as they are."""
        weight = parameters[0].weight.reshape(-1, parameters[0].weight.shape[-1])
        padding = round_up(weight.shape[1], LANES) - weight.shape[1]
        return [np.pad(weight, ((0, 0), (0, padding))).ravel(), pack_bias(parameters[0].bias)]


def with_knobs(names: Sequence[str], **knobs: int) -> Callable[[Task, Schedule], Schedule]:
    """Sets knobs of the schedules of these templates, where they have them."""

    def change(task: Task, schedule: Schedule) -> Schedule:
        if not isinstance(schedule, KnobSchedule) or schedule.template not in names:
            return schedule
        own = {name: value for name, value in knobs.items() if name in schedule.values}
        return replace(schedule, knobs=tuple((schedule.values | own).items()))

    return change


def unpacked(task: Task, schedule: Schedule) -> Schedule:
    """`Pointwise`'s schedules with weights as the model has them."""
    if isinstance(schedule, KnobSchedule) and schedule.template == Pointwise.name:
        return replace(schedule, template=UnpackedPointwise.name)
    return schedule


def nhwc(layer: Layer, following: Layer) -> tuple[str, ...]:
    """No blocks of channels anywhere."""
    return ("NHWC",)


@dataclass(frozen=True)
class AblationRow:
    """A library of the comparison.

    Attributes:
        left_out: the step, as the table names it.
        what: what takes its place.
        against: the row whose library it is, but for this step; `None` for a row that others are compared with.
    """

    left_out: str
    what: str
    changes: Changes
    against: str | None = "nothing"


ONE_OUTPUT = with_knobs(("depthwise",), rows=1, columns=1)
UNBLOCKED = with_knobs((Pointwise.name,), k_block=0, m_block=0, n_block=0)
SMALL_TILE = with_knobs((Pointwise.name,), rows=1, columns=8)
#: Kernels of single layers, multiplied directly: the steps inside of the matrix product can be left out here alone.
DIRECT = Changes(largest_region=1, left_out=("strassen",))


def direct(change: Callable[[Task, Schedule], Schedule]) -> Changes:
    """`DIRECT` with other schedules."""
    return replace(DIRECT, reschedule=change)


ROWS = (
    AblationRow("nothing", "as tuned", NO_CHANGES, None),
    AblationRow("Strassen", "every product multiplied directly", Changes(left_out=("strassen",))),
    AblationRow("fusion", "every layer a kernel of its own", Changes(largest_region=1)),
    AblationRow("channel blocks", "NHWC between all kernels, the same knobs", Changes(layouts=nhwc)),
    AblationRow("depthwise window", "1 output at a time, in kernels of one layer", Changes(reschedule=ONE_OUTPUT)),
    AblationRow("memory plan", "every activation in memory of its own", Changes(disabled_passes=("StaticPlanBlockMemory",))),
    AblationRow("both", "every layer a kernel of its own, multiplied directly", DIRECT, None),
    AblationRow(
        "cache blocks",
        "all of K, all panels for each pixel tile",
        direct(UNBLOCKED),
        "both",
    ),
    AblationRow("packed weights", "1×1 weights as the model has them", direct(unpacked), "both"),
    AblationRow("register tile", "1 pixel × 8 channels at a time", direct(SMALL_TILE), "both"),
)


def measured(job: VariantJob, changes: Changes, endpoint: Endpoint, profile: DeviceProfile) -> VariantResult:
    """Build a library and run it.

    Raises:
        UserError: it cannot be built, run, or disagrees with PyTorch.
    """
    library = build_variant(job, changes)
    return bench_library(BenchJob(library, endpoint, profile, network_timing(profile, job.threads, 1, 1)))


def entry(row: AblationRow, result: VariantResult) -> dict[str, Any]:
    """A row of the JSON file."""
    counts = {"core_cycles": result.cycles, "l1d_misses": result.l1d_misses, "dram_bytes": result.dram_bytes}
    return {"left_out": row.left_out, "instead": row.what, "against": row.against, "ms": result.samples_us[0] / 1000, **counts}


def rows(job: VariantJob, threads: int) -> list[dict[str, Any]]:
    """The rows, measured one after another; with more than one thread, the last one is the whole library on so many.

    Raises:
        UserError: a library cannot be built, run, or disagrees with PyTorch.
    """
    board = find_device(DEVICE)
    found = []
    with board.started(1) as endpoint:
        for row in ROWS:
            found.append(entry(row, measured(job, row.changes, endpoint, board.profile)))
            print(f"{row.left_out}: {found[-1]['ms']:.2f} ms modelled", file=sys.stderr, flush=True)
        if threads > 1:
            last = AblationRow("one thread", f"{threads} threads", NO_CHANGES)
            found.append(entry(last, measured(replace(job, threads=threads), NO_CHANGES, endpoint, board.profile)))
    return found


def page(content: Mapping[str, Any]) -> str:
    """The page, from what the JSON file holds."""
    ms = {row["left_out"]: row["ms"] for row in content["rows"]}
    lines = ["| left out | instead | ms | change | core cycles, M | L1D misses, M | DRAM, MB |", "| --- | --- |" + " ---: |" * 5]
    for row in content["rows"]:
        usual = ms.get(row["against"])
        change = f"{row['ms'] - usual:+.2f} ms ({row['ms'] / usual - 1:+.1%})" if usual else ""
        counts = f"{row['core_cycles'] / 1e6:.1f} | {row['l1d_misses'] / 1e6:.2f} | {row['dram_bytes'] / 1e6:.1f}"
        lines.append(f"| {row['left_out']} | {row['instead']} | {row['ms']:.2f} | {change} | {counts} |")
    return f"""# What each step is worth

MobileNet v1 {content["variant"]}, float32, one thread, **modelled** on the virtual {content["board"]}
(timing model `{content["timing_model"]}`). Each row is the same library with one step left out and nothing tuned again, so it
shows what the step contributes to this library, not the best library without it. The steps inside the matrix product are left out
of direct kernels of single layers; compare those rows with "both".

`./scripts/ablation` wrote this page and [ablation.json](ablation.json); [kernels.md](kernels.md) explains the steps.

""" + "\n".join([*lines, ""])


def main() -> int:
    """Run the comparison; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alpha", type=float, default=1.0, help="width multiplier (default: 1.0)")
    parser.add_argument("--resolution", type=int, default=224, help="input side (default: 224)")
    parser.add_argument("--threads", type=int, default=4, help="for the last row, 1 for none (default: 4)")
    parser.add_argument("--logs", type=Path, default=SHIPPED_LOGS, help="tuning logs (default: the shipped ones)")
    parser.add_argument("--out", type=Path, help="write the page there, and its figures beside it as JSON")
    options = parser.parse_args()
    schedules.register(UnpackedPointwise(), asked=False)
    profile = find_device(DEVICE).profile
    try:
        spec = ModelSpec("mobilenet_v1", options.alpha, options.resolution)
        with tempfile.TemporaryDirectory(prefix="tvmmobile-ablation-") as folder:
            identity = Identity(profile.name, profile.model_hash)
            job = VariantJob(spec, None, 0, "float32", 1, identity, (options.logs,), profile.target, Path(folder))
            found = rows(job, options.threads)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    content = {"variant": f"{spec.alpha}-{spec.resolution}", "board": profile.board, "timing_model": profile.model_hash, "rows": found}
    if options.out is None:
        print(page(content), end="")
        return 0
    write_text(options.out, page(content))
    write_text(options.out.with_suffix(".json"), json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
