"""Compares libraries timed now with their baselines; times those that may be slower again, interleaved with the baseline's."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from tvmmobile.devices.protocol import Device, DeviceProfile
from tvmmobile.gate.baselines import Baseline, baseline_name, load_baselines, results_of
from tvmmobile.gate.comparison import Comparison, check_threshold, compare_results
from tvmmobile.gate.pairing import Pairing, check_comparable
from tvmmobile.gate.statistics import Pair, Samples
from tvmmobile.pipeline.bench import check_libraries
from tvmmobile.pipeline.listener import QUIET, Listener, tell
from tvmmobile.pipeline.options.call import with_options
from tvmmobile.pipeline.options.compiled import ComparisonOptions, RegressArguments, TimingOptions
from tvmmobile.pipeline.outcome import context_of
from tvmmobile.pipeline.request import device_of
from tvmmobile.pipeline.stages.jobs import Progress
from tvmmobile.pipeline.stages.timing import bench_libraries
from tvmmobile.results.file import Results
from tvmmobile.running.bench import Bench, started_bench
from tvmmobile.running.library import Library, checked_library, stem_of
from tvmmobile.system.arguments import one_or_several
from tvmmobile.system.errors import UserError
from tvmmobile.system.workers import Workers, worker_count


@dataclass(frozen=True)
class Regression:
    """Libraries timed now, compared with their baselines.

    Attributes:
        results: latencies of the libraries.
        comparison: a verdict for each variant that has a baseline.
    """

    results: Results
    comparison: Comparison


@with_options(ComparisonOptions, TimingOptions)
def regress(
    libraries: Library | Sequence[Library],
    device: str | Device = "pi4",
    baselines: str | Path = "baselines",
    *,
    listener: Listener = QUIET,
    **options: Unpack[RegressArguments],
) -> Regression:
    """Time libraries, and compare them with their baselines.

    Args:
        libraries: one or several, from `compile`, `tune` or `open_libraries`, all for one thread count.
        device: its name, or what `find_device` returns; default: the virtual Raspberry Pi 4, unless a board is registered as `pi4`.
        baselines: directory of the baselines.
        options: see `ComparisonOptions` and `TimingOptions`, which `help` lists.
        listener: is told of progress.

    Returns:
        What was timed, and the comparison with the baselines; on a real board, what seems slower was timed again in
            turns with the old library.

    Raises:
        UserError: an argument is wrong, there is no baseline, or one is not comparable with the device's results.
        DeviceUnavailable: the device cannot be reached.
        Disagreement: a library does not compute what PyTorch computes; nothing is timed then.
    """
    timing, threshold = TimingOptions.of(options), ComparisonOptions.of(options).threshold
    board, found = device_of(device), [checked_library(library) for library in one_or_several(libraries)]
    check_libraries(found, board.profile, listener)
    check_threshold(threshold)
    kept = _baselines_of(found, board.profile, Path(baselines))
    with Workers(worker_count(len(found))) as workers, started_bench(board, workers, timing.repeat, timing.warmup_runs) as started:
        with listener.stage("verifying", len(found)) as done:
            results = bench_libraries(started, found, done)
        comparison = _compared(started, results, found, kept, threshold, lambda name: tell(listener, f"timed again: {name}"))
        return Regression(results, comparison)


def _compared(
    bench: Bench, new: Results, libraries: Sequence[Library], baselines: Sequence[Baseline], threshold: float, timed_again: Progress
) -> Comparison:
    """Compare the libraries' times with their baselines; `timed_again` is told the variant of each repeated run, with its precision."""
    kept = {baseline.name: baseline.library() for baseline in baselines}
    now = {_identity(library): library for library in libraries}

    def samples(library: Library) -> Samples | None:
        (result,) = bench_libraries(bench, [library], lambda _: timed_again(_identity(library))).variants
        return None if result.invalid else result.samples_us

    def measure(pairing: Pairing, base_first: bool) -> Pair | None:
        name = baseline_name(pairing.either)
        old = kept[name]
        if old is None:
            return None
        first, second = (samples(library) for library in ((old, now[name]) if base_first else (now[name], old)))
        if first is None or second is None:
            return None
        return Pair(first, second) if base_first else Pair(second, first)

    return compare_results(results_of(baselines), new, threshold, measure)


def _baselines_of(libraries: Sequence[Library], profile: DeviceProfile, directory: Path) -> list[Baseline]:
    """Return the baselines of these libraries, checked before anything is timed; raise `UserError` if one is unsuitable."""
    if len({library.threads for library in libraries}) > 1:
        raise UserError("libraries for several thread counts cannot share a report.", "Compare them one thread count at a time.")
    wanted = {_identity(library) for library in libraries}
    found = [baseline for baseline in load_baselines(directory, profile.name) if baseline.name in wanted]
    if not found:
        raise UserError(
            f"{directory} has no baseline of these libraries on {profile.name}.",
            f"Save one: tvmmobile baseline save out/report.json --baselines {shlex.quote(str(directory))}",
        )
    for baseline in found:
        check_comparable(baseline.context, context_of(profile, libraries[0].threads))
        _check_format(baseline, next(library for library in libraries if _identity(library) == baseline.name))
        baseline.library()
    return found


def _check_format(baseline: Baseline, library: Library) -> None:
    """Raise `UserError` if the library's format differs from that of its baseline."""
    old, new = baseline.variant.format, library.format
    if old != new:
        raise UserError(
            f"{library.path} has format {new}, and its baseline {old}: their latencies cannot be compared.",
            f"Compile it with --format {old}, or save a new baseline: tvmmobile baseline save REPORT.json",
        )


def _identity(library: Library) -> str:
    return stem_of(library.spec.variant, library.precision, library.threads)
