"""Libraries timed now → compared with their baselines; what looks slower is timed again, interleaved with the baseline's library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tvmmobile.devices.protocol import DeviceProfile, Endpoint, Watch
from tvmmobile.gate.baselines import Baseline, baseline_name, load_baselines
from tvmmobile.gate.comparison import Comparison, Pairing, check_comparable, check_threshold, compare_results
from tvmmobile.gate.statistics import Pair, Samples
from tvmmobile.pipeline.stages import Progress, bench_libraries, context_of
from tvmmobile.results.file import Results
from tvmmobile.running.library import Library, stem_of
from tvmmobile.running.measure import Timing
from tvmmobile.system.errors import UserError
from tvmmobile.system.workers import WorkerPool


def baselines_for(libraries: Sequence[Library], profile: DeviceProfile, directory: Path, threshold: float) -> list[Baseline]:
    """The baselines that these libraries will be compared with; checked before anything is timed.

    Raises:
        UserError: there is none, or one does not compare with what this device would give now.
    """
    check_threshold(threshold)
    wanted = {_identity(library) for library in libraries}
    found = [baseline for baseline in load_baselines(directory, profile.name) if baseline.name in wanted]
    if not found:
        raise UserError(
            f"{directory} has no baseline of these libraries on {profile.name}.", "Save one: tvmmobile baseline save out/report.json"
        )
    for baseline in found:
        check_comparable(baseline.context, context_of(profile, libraries[0].threads))
        baseline.library()
    return found


def compare_with_baselines(
    workers: WorkerPool,
    libraries: Sequence[Library],
    new: Results,
    baselines: Sequence[Baseline],
    endpoint: Endpoint,
    profile: DeviceProfile,
    timing: Timing,
    threshold: float,
    progress: Progress,
    watch: Watch | None = None,
) -> Comparison:
    """Compare what the libraries took now with their baselines.

    Args:
        libraries: those timed.
        new: what they took.
        baselines: see `baselines_for`.
        progress: is told each run that is repeated.

    Raises:
        UserError: the two do not compare, see `compare_results`.
        Disagreement: a library does not compute what PyTorch computes.
        DeviceUnavailable: the device went away.
    """
    kept = {baseline.name: baseline.library() for baseline in baselines}
    now: Mapping[str, Library] = {_identity(library): library for library in libraries}

    def samples(library: Library) -> Samples | None:
        (result,) = bench_libraries(workers, [library], endpoint, profile, timing, progress, watch).variants
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

    base = Results(baselines[0].context, tuple(baseline.variant for baseline in baselines))
    return compare_results(base, new, threshold, measure)


def _identity(library: Library) -> str:
    return stem_of(library.spec.variant, library.dtype, library.threads)
