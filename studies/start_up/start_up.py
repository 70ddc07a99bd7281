"""Counts what our libraries and others execute, and the memory they hold, from before a network is loaded to its first result.

    ./studies/run start_up                       # the virtual Pi 4: start-up of 0.25-128, memory of 0.25-128 and 1.0-224
    ./studies/run start_up --out studies/results   # start-up.md and .json
    ./studies/run start_up --only ncnn,ours-c

Programs, wheels, networks and finished runs are those of bench_peers and are kept in its cache. From nothing it takes about half an hour of
one core. Ends with 5 if a system disagrees with PyTorch, with 1 if one cannot run; then nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from studies.harness import Options, option, study
from studies.peers.bench_peers import ReadyBoard, context_of, our_library, prepare
from studies.peers.models import exported, model_files
from studies.peers.runs import PeerRun
from studies.peers.systems import OURS_C, System, chosen_systems
from studies.start_up.page import StartReport, page, to_text
from studies.start_up.starts import PLAIN, MemoryUse, StartUp, memory_use, plain_program, start_up
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.system.doctor import require
from tvmmobile.system.entry_points import progress as say
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.files import check_writable, write_text

STEM = "start-up"
SYSTEMS = "ncnn,mnn,litert,onnxruntime,ours,ours-c"
STARTED = ModelSpec(alpha=0.25, resolution=128)
HELD = (STARTED, ModelSpec(alpha=1.0, resolution=224))


def jobs_of(place: ReadyBoard, spec: ModelSpec, system: System, logs: Path) -> Iterator[tuple[str, PeerRun, int | None]]:
    """Return a system's runs of a network: key, run, and the bytes of a C library's weights and workspace; it runs in a C program too."""
    model = Model(spec)
    library = our_library(place, 1, model, system, logs)
    files = model_files(system, place.board, exported(model, say), library)
    job = PeerRun(place.board, place.name, system, files, place.sysroots[system.key], 1)
    if library is None or system.key != OURS_C:
        yield system.key, job, None
        return
    called = library.manifest()["c"]
    needed_bytes = called["weight_bytes"] + called["workspace_bytes"]
    yield system.key, job, needed_bytes
    yield PLAIN, plain_program(job, called["prefix"]), needed_bytes


def report_of(place: ReadyBoard, systems: Sequence[System], logs: Path) -> StartReport:
    """Run everything."""
    starts: list[StartUp] = []
    memory: list[MemoryUse] = []
    for spec in HELD:
        variant = f"{spec.alpha}-{spec.resolution}"
        for system in systems:
            for key, job, needed_bytes in jobs_of(place, spec, system, logs):
                if spec == STARTED:
                    starts.append(start_up(key, variant, job))
                    say(f"{variant}, {key}: {starts[-1].instructions / 1e6:.2f} M instructions to the first result")
                memory.append(memory_use(key, variant, job, needed_bytes))
                say(f"{variant}, {key}: {memory[-1].pages.most_bytes / 1e6:.2f} MB")
    context = context_of([place], systems, logs, FLOAT32.name)
    titles = dict(context.titles) | ({PLAIN: f"{context.titles[OURS_C]} in C"} if OURS_C in context.titles else {})
    return StartReport(replace(context, titles=titles), tuple(starts), tuple(memory))


@study(
    option("--board", "pi4", "virtual board", metavar="NAME"),
    option("--only", SYSTEMS, f"of {SYSTEMS},iree (default: all but iree)", metavar="SYSTEMS"),
    option("--logs", SHIPPED_LOGS, "our tuning logs (default: the shipped ones)", metavar="DIR"),
    option("--out", Path("out/start-up"), "for the results", metavar="DIR"),
)
def main(options: Options) -> None:
    """Count everything, and write the page and its figures."""
    systems = chosen_systems(options.only.split(","))
    check_writable(options.out, "--out")
    for tool in ("qemu-aarch64", "llvm-mca", "llvm-mc", "cc"):
        require(tool)
    report = report_of(prepare(options.board, systems, (1,)), systems, options.logs)
    write_text(options.out / f"{STEM}.json", to_text(report))
    write_text(options.out / f"{STEM}.md", page(report, STEM))
    say(f"Written to {options.out}: {STEM}.md, {STEM}.json")
