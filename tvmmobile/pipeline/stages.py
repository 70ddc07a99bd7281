"""The stages of a run over several variants, in worker processes: collect tasks, build libraries, verify and time them."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tvmmobile import __version__
from tvmmobile.devices.protocol import DeviceProfile, Watch
from tvmmobile.graph.network import kept_sentence
from tvmmobile.graph.precision import precision_named
from tvmmobile.graph.tasks import Task, symbol_of
from tvmmobile.kernels.serial import schedule_from_json
from tvmmobile.networks.models.costs import count
from tvmmobile.networks.models.published import IMAGENET_CLASSES, Published, paper_figures, slim_figures
from tvmmobile.networks.models.spec import ModelSpec, OwnSpec
from tvmmobile.pipeline.agreement import LEAST_SESSION_S, agreement, judge_of, session_timeout_s
from tvmmobile.pipeline.build import BuiltVariant, build
from tvmmobile.pipeline.checking import MOST_CHECK_S
from tvmmobile.pipeline.diagnosis import explain
from tvmmobile.pipeline.job import PreparingJob, VariantJob
from tvmmobile.pipeline.plan import variant_tasks
from tvmmobile.results.file import Context, KernelResult, Results, VariantResult
from tvmmobile.running.bench import Bench
from tvmmobile.running.library import Library
from tvmmobile.running.manifest import records_compare
from tvmmobile.running.measure import Agents, KernelCall, MeasureError, NetworkRun, Timing
from tvmmobile.system.environment import TVM_VERSION
from tvmmobile.system.errors import DeviceUnavailable, Disagreement, ExitCode, UserError
from tvmmobile.system.workers import WorkerError, WorkerPool
from tvmmobile.tuning.claims import RefusedLine, outdated_sentence, passed_over
from tvmmobile.tuning.plan import VariantTasks
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.calibration.fit import memory_bytes_per_s

#: To import and compile a variant: VGG-16's weights take minutes on a busy machine. To quantise it takes longer: it is computed on the
#: host some 400 times to find how, and a few times for each calibration input, in a time that grows with the input's pixels.
_BUILD_TIMEOUT_S = 900.0
_QUANTISING_S_PER_PIXEL, _QUANTISING_RUNS, _RUNS_PER_INPUT = 5e-5, 400, 4
#: How often a library is timed whose run was spoiled by the board's state, or cut off.
MOST_ATTEMPTS = 3
#: What a modelled latency includes and excludes, in words.
MODELLED_TERMS = "core cycles and data cache misses; no TLB, no instruction fetches"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class BenchJob:
    """The input of a worker that verifies and times one library."""

    library: Library
    agents: Agents
    timing: Timing

    def reads(self) -> Mapping[str, Path]:
        """The library's files, by their place below the folder that `moved` is given."""
        library = self.library
        return {f"out/{path.name}": path for path in (library.path, library.manifest_path, library.reference_path)}

    def writes(self) -> Mapping[str, Path]:
        """Nothing."""
        return {}

    def moved(self, folder: Path) -> BenchJob:
        """The same job with the library below `folder`."""
        return replace(self, library=replace(self.library, path=folder / "out" / self.library.path.name))


def build_timeout_s(jobs: Sequence[VariantJob]) -> float:
    """How long a worker may take to import, quantise and compile any of the variants; raises `UserError` for data that cannot calibrate."""
    most = 0.0
    for data in (job.calibration for job in jobs if job.calibration is not None):
        runs = _QUANTISING_RUNS + _RUNS_PER_INPUT * data.images().count
        most = max(most, runs * math.prod(data.preprocessing.input_shape[2:]) * _QUANTISING_S_PER_PIXEL)
    return _BUILD_TIMEOUT_S + most + (MOST_CHECK_S if any(not job.unchecked for job in jobs) else 0.0)


def collect_variants(workers: WorkerPool, jobs: Sequence[VariantJob], progress: Progress) -> list[VariantTasks]:
    """What may become kernels, of every variant, in the order of `jobs`; raises `UserError` where one cannot be built or imported."""
    found: dict[ModelSpec, VariantTasks] = {}
    without_logs = [replace(PreparingJob(**vars(job)), logs=()) for job in jobs]  # they need not travel
    for job, tasks in workers.run(variant_tasks, without_logs, build_timeout_s(jobs)):
        found[job.spec] = succeeded(tasks, f"importing {job.spec.variant}")
        progress(job.spec.variant)
    return [found[job.spec] for job in jobs]


def distinct_tasks(variants: Sequence[VariantTasks]) -> dict[Task, str | None]:
    """Every distinct task, in order of first use; an opaque one with its TIR function as JSON text."""
    sources: dict[Task, str | None] = {}
    for variant in variants:
        for region in variant.regions:
            sources.setdefault(region.task, variant.sources.get(region.task))
    return sources


def build_libraries(workers: WorkerPool, jobs: Sequence[VariantJob], progress: Progress, said: Progress | None = None) -> list[Library]:
    """Compile every variant, in the order of `jobs`; raises `UserError` where one cannot be built.

    `said` hears a sentence about the lines of the logs that did not count, and one about layers that stay in float32.
    """
    refused: dict[RefusedLine, None] = {}
    outdated = 0
    for job, result in workers.run(build, jobs, build_timeout_s(jobs)):
        built: BuiltVariant = succeeded(result, f"building {job.spec.variant}")
        progress(job.spec.variant)
        for line in built.refused:
            number, *rest = line.path.parts
            path = line.path if line.path.is_absolute() else job.logs[int(number)].joinpath(*rest)
            refused[replace(line, path=path)] = None
        outdated = max(outdated, built.outdated)
        if said is not None and built.kept:
            said(kept_sentence(job.spec.variant, built.kept))
    if said is not None and refused:
        said(passed_over(list(refused)))
    if said is not None and outdated:
        said(outdated_sentence(outdated))
    return [job.library for job in jobs]


def bench_libraries(bench: Bench, libraries: Sequence[Library], progress: Progress) -> Results:
    """Check every library against PyTorch on the device, and time it.

    On a board that is watched, libraries are timed one after another, each when the board is cool, and again where a run was spoiled.

    Raises:
        Disagreement: a library does not compute what PyTorch computes; nothing is timed then.
        DeviceUnavailable: the device went away.
    """
    threads = libraries[0].threads
    timing = bench.agents.network_timing(threads, bench.repeat, bench.warmup)
    jobs = [BenchJob(library, bench.agents, timing) for library in libraries]
    timeout_s = bench.agents.endpoint.longest_s(2 * max(session_timeout_s(library) for library in libraries))
    found: dict[Path, VariantResult] = {}
    if bench.watch is not None:
        for job in jobs:
            found[job.library.path] = _watched(bench.workers, job, bench.watch, timeout_s)
            progress(job.library.spec.variant)
    else:
        for job, result in bench.workers.run(bench_library, jobs, timeout_s):
            found[job.library.path] = succeeded(result, f"running {job.library.path.name}")
            progress(job.library.spec.variant)
    rate, source = _memory(bench.agents, threads)
    context = replace(context_of(bench.profile, threads), memory_bytes_per_s=rate, memory_source=source)
    return Results(context, tuple(found[job.library.path] for job in jobs))


def explained(error: Disagreement, workers: WorkerPool, jobs: Sequence[VariantJob]) -> Disagreement:
    """The same error, which also names where the library's values differ first, if one of `jobs` made it."""
    blamed = [job for job in jobs if error.message.startswith(f"{job.library.path.name} disagrees ")]
    for _, first in workers.run(explain, blamed[:1], build_timeout_s(jobs) + MOST_CHECK_S):
        if isinstance(first, str) and first:
            return Disagreement(f"{error.message.rstrip('.')}; {first}.", "Please report this with the network.")
    return error


def _memory(agents: Agents, threads: int) -> tuple[float, str]:
    """Memory bandwidth in bytes per second, and the source of that figure."""
    profile = agents.profile
    if profile.origin.modelled:
        return memory_bytes_per_s(load_board(profile.board_file), threads), "the virtual board's, docs/virtual-boards.md"
    try:
        return agents.copy_rate(LEAST_SESSION_S), "a copy of 32 MiB by one core, measured with the networks"
    except MeasureError as error:
        raise _gone(profile, error) from error


def _watched(workers: WorkerPool, job: BenchJob, watch: Watch, timeout_s: float) -> VariantResult:
    """One library, timed again while the board's state spoils it or the link breaks; the last attempt counts as it is."""
    for attempt in range(1, MOST_ATTEMPTS + 1):
        before = watch.wait_until_cool()
        try:
            ((_, answer),) = workers.run(bench_library, [job], timeout_s)
            result: VariantResult = succeeded(answer, f"running {job.library.path.name}")
        except DeviceUnavailable:
            if attempt == MOST_ATTEMPTS:
                raise
            continue
        after = watch.read()
        reason = watch.spoiled(before, after)
        conditions = {**result.conditions, "before": [asdict(state) for state in before], "after": [asdict(state) for state in after]}
        result = replace(result, invalid=reason, conditions=conditions)
        if not reason:
            break
    return result


def bench_library(job: BenchJob) -> VariantResult:
    """Run one library on the reference inputs, compare, and time it."""
    library, manifest, device = job.library, job.library.manifest(), job.agents.profile
    inputs, expected = library.reference()
    try:
        run = job.agents.measure_network(library.path, inputs, session_timeout_s(library), job.timing)
    except MeasureError as error:
        raise failure_of(library, device, error) from error
    difference = agreement(library, run.outputs, expected, device.name)
    return _result(library, manifest, run, difference, records_compare(manifest, device))


def kernel_results(manifest: Mapping[str, Any], calls: Sequence[KernelCall], comparable: bool = True) -> tuple[KernelResult, ...]:
    """A library's kernels with their times, provided that they are the functions that ran.

    If its records are not comparable with the device's latencies, their figures are left out.
    """
    kernels = manifest["kernels"]
    if not comparable:
        kernels = [kernel | {"latency_us": None, "rank_correlation": None, "course": ()} for kernel in kernels]
    ran = [call.symbol for call in calls] == [symbol_of(kernel["name"]) for kernel in kernels]
    return tuple(
        KernelResult(
            kernel["name"],
            kernel["kind"],
            kernel["macs"],
            kernel["latency_us"],
            str(schedule_from_json(kernel["schedule"])),
            kernel.get("rank_correlation"),
            network_us=calls[index].seconds * 1e6 if ran else None,
            l1d_misses=calls[index].l1d_misses if ran else None,
            dram_bytes=calls[index].dram_bytes if ran else None,
            least_bytes=kernel.get("least_bytes"),
            course=tuple((trials, latency) for trials, latency in kernel.get("course", ())),
            fallback="trace" in kernel["schedule"],
        )
        for index, kernel in enumerate(kernels)
    )


def _result(library: Library, manifest: Mapping[str, Any], run: NetworkRun, error: float, comparable: bool) -> VariantResult:
    spec, latency = library.spec, run.latency
    own = spec if isinstance(spec, OwnSpec) else None
    macs, parameters = (manifest["macs"], manifest["parameters"]) if own else (count(spec).macs, count(spec).parameters)
    published = published_figures(spec, library.dtype)
    samples = tuple(sample / 1000 for sample in latency.samples_ns) or (latency.seconds * 1e6,)
    return VariantResult(
        name=library.path.stem,
        model=spec.name,
        alpha=spec.alpha,
        resolution=spec.resolution,
        dtype=library.dtype,
        threads=library.threads,
        samples_us=samples,
        cycles=latency.cycles,
        instructions=latency.instructions,
        l1d_misses=latency.l1d_misses,
        dram_bytes=latency.dram_bytes,
        term_ms=dict(latency.term_ms),
        macs=macs,
        parameters=parameters,
        top1=published.top1 if published else None,
        top1_source=published.source if published else None,
        peak_memory_bytes=run.peak_memory_bytes,
        max_error=error,
        library_sha256=manifest["sha256"],
        weights=manifest["weights"],
        kernels=kernel_results(manifest, run.calls, comparable),
        conditions={} if latency.kind == "modelled" else {"steady": latency.steady},
        network_sha256=own.contents if own else "",
        reference=judge_of(manifest),
        format=library.format,
        input=spec.side if spec.odd_shape else "",
    )


def published_figures(spec: ModelSpec, dtype: str) -> Published | None:
    """What is published of a network's accuracy in floating point; `None` for others, and for integers."""
    if isinstance(spec, OwnSpec) or spec.classes != IMAGENET_CLASSES or precision_named(dtype).is_integer:
        return None
    key = (spec.name, spec.alpha, spec.resolution)
    return slim_figures(*key) or paper_figures(*key)


def context_of(profile: DeviceProfile, threads: int) -> Context:
    """Where and how this device's numbers are obtained."""
    modelled = profile.origin.modelled
    return Context(
        device=profile.name,
        board=profile.board,
        cpu=profile.cpu,
        clock_hz=profile.clock_hz,
        kind=profile.origin.kind,
        timing_model=profile.origin.written,
        modelled_terms=MODELLED_TERMS if modelled else "",
        fma_lanes_per_cycle=profile.machine.fma_lanes_per_cycle,
        threads=threads,
        versions={"tvmmobile": __version__, "tvm": TVM_VERSION, "torch": version("torch")},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def failure_of(library: Library, profile: DeviceProfile, error: MeasureError) -> UserError:
    """The error for a library that could not be run: the fault of the library or of the device."""
    if error.kind in ("link", "host"):
        return _gone(profile, error)
    if error.kind == "timeout":
        busy = "this machine" if profile.origin.modelled else "the device"
        return Disagreement(
            f"{library.path.name} does not finish on {profile.name}: {error.reason}.",
            f"Run it again while nothing else uses {busy}, with fewer runs if you asked for many.",
        )
    core = library.manifest()["target"]["mcpu"]
    return Disagreement(
        f"{library.path.name} does not run on {profile.name}: {error.reason}.",
        f"It was compiled for {core}; compile it for this device: tvmmobile compile --device {profile.name}",
    )


def _gone(profile: DeviceProfile, error: MeasureError) -> DeviceUnavailable:
    return DeviceUnavailable(f"the device {profile.name} went away: {error.reason}.", "Run the same command again.")


def succeeded(result: Any, what: str) -> Any:
    """The result of a worker's job; raises `UserError`, naming `what` it was about, if it did not finish."""
    if isinstance(result, WorkerError):
        if result.code == -signal.SIGKILL:
            why = "its process was killed, as happens where memory runs out"
            raise UserError(f"{what} failed: {why}.", "Free some memory, or take a smaller network or --resolution.")
        raise UserError(f"{what} failed: {result}.", "Set TVMMOBILE_DEBUG=1 and run it again.", ExitCode.INTERNAL)
    return result
