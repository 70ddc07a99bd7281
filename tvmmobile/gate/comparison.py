"""Compares two result files: a verdict per variant and an exit code. Refuses results that cannot be compared; names changed kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tvmmobile.gate import DEFAULT_THRESHOLD
from tvmmobile.gate.statistics import (
    ALPHA,
    Estimate,
    Judgement,
    Pair,
    Verdict,
    check_samples,
    estimate_ratio,
    judge,
    judge_exact,
    settle,
    without_spread,
)
from tvmmobile.results.file import (
    Context,
    KernelResult,
    Latency,
    Results,
    VariantKey,
    VariantResult,
    by_key,
    changed_versions,
    read_results,
)
from tvmmobile.results.report.wording import clock, plural
from tvmmobile.system.errors import UserError

FORMAT = 1
#: A kernel with the same schedule counts as unchanged if its latencies differ by less than this share.
_SAME_KERNEL = 0.02
#: It also counts as unchanged below this share of the network's latency: other kernels change what it finds in the caches.
_SHOWS = 2e-3


@dataclass(frozen=True)
class KernelChange:
    """A kernel that differs between the libraries, or takes a different time.

    Attributes:
        name: name of the kernel's task.
        base_schedule, new_schedule: schedule in the old and in the new library; `None` if the library has no such kernel.
        base_us, new_us: total time over all layers that use the kernel, within a run of the network or else from the tuning record, in
            microseconds; `None` if neither is known.
        macs: multiply-adds per run.
        added_us: time that the kernel adds to the network, in microseconds; `None` if unknown.
    """

    name: str
    base_schedule: str | None
    new_schedule: str | None
    base_us: float | None
    new_us: float | None
    macs: int
    added_us: float | None


@dataclass(frozen=True)
class Pairing:
    """A variant in one or both files; `note` says why it has no verdict ("" with one), `undecided` that it may yet be slower."""

    base: VariantResult | None
    new: VariantResult | None
    note: str = ""
    undecided: bool = False

    @property
    def either(self) -> VariantResult:
        """The new variant, or the old one if there is none."""
        found = self.new or self.base
        assert found is not None
        return found


@dataclass(frozen=True)
class Compared:
    """A variant with its verdict.

    Attributes:
        name: name of the library, e.g. `mobilenet_v1_1.0_224_float32_t1`.
        model: network family, e.g. `mobilenet_v1`.
        alpha: width multiplier.
        resolution: input side, in pixels.
        dtype: type of weights and activations, e.g. `float32`.
        threads: worker threads.
        verdict: `slower` and `faster` mean a change beyond the threshold that is also significant, unless modelled; `too noisy` and `not
            comparable` mean undecided; `skipped` variants were not compared, see `note`.
        note: remark on the verdict; "" for none.
        base_us, new_us: median latency in microseconds, over all interleaved runs if there were any; `None` if no latency counts.
        change: new over old latency, less 1; `None` without a comparison.
        detects: smallest slowdown, as a fraction, that would not have been called the same; `None` if there is none.
        p: p-value of the slowdown if the libraries are equal, corrected for the number of variants; `None` if modelled or not compared.
        pairs: number of runs of each side on which the verdict is based.
        library_sha256: SHA-256 of the new library, in hexadecimal.
        kernels: kernels that differ, the likeliest cause first.
        input: size of the input if it is not a square image, e.g. `96x128`.
    """

    name: str
    model: str
    alpha: float
    resolution: int
    dtype: str
    threads: int
    verdict: Verdict
    note: str
    base_us: Latency | None
    new_us: Latency | None
    change: float | None
    detects: float | None
    p: float | None
    pairs: int
    library_sha256: str
    kernels: tuple[KernelChange, ...]
    input: str = ""

    @property
    def label(self) -> str:
        """Model, α and side, e.g. `mobilenet_v1 1.0-224`."""
        return f"{self.model} {self.alpha}-{self.input or self.resolution}"


@dataclass(frozen=True)
class Comparison:
    """The file that `tvmmobile compare` and `regress` write with `--json`.

    Attributes:
        version: version of this format.
        exit_code: exit code of the command: 0 if no variant is slower, 2 if one is, 4 if one may be.
        threshold: changes up to this fraction are ignored.
        summary: the outcome in one sentence.
        notes: differences between the two results that a reader should know about, one sentence each.
        base, new: origin of the old and of the new numbers.
        variants: the verdicts.
    """

    version: int
    exit_code: Literal[0, 2, 4]
    threshold: float
    summary: str
    notes: tuple[str, ...]
    base: Context
    new: Context
    variants: tuple[Compared, ...]

    @property
    def slower(self) -> tuple[Compared, ...]:
        """The variants that have become slower."""
        return tuple(variant for variant in self.variants if variant.verdict == Verdict.SLOWER)


#: Runs both libraries of a variant again, the old one first if the flag is set; `None` if that is impossible.
Measure = Callable[[Pairing, bool], Pair | None]


def compare(base: Results | str | Path, new: Results | str | Path, threshold: float = DEFAULT_THRESHOLD) -> Comparison:
    """Decide for every variant that two results have in common whether it became slower.

    Args:
        base: the old results, or the path of their `report.json`.
        new: the new ones, likewise.
        threshold: smallest change that counts, as a fraction.

    Returns:
        A verdict for each variant, with the kernels that changed; `slower` lists the slower ones.

    Raises:
        UserError: the two are not comparable: device, kind, clock, threads, dtype, format or timing model differ, a sample is not a
            latency, a variant appears twice, or they have none in common.
    """
    check_threshold(threshold)
    old, now = (one if isinstance(one, Results) else read_results(one) for one in (base, new))
    return compare_results(old, now, threshold)


def compare_results(base: Results, new: Results, threshold: float = DEFAULT_THRESHOLD, measure: Measure | None = None) -> Comparison:
    """Compare every variant that both have.

    Args:
        threshold: changes up to this fraction are ignored.
        measure: if given, variants that may be slower are repeated before they are judged, unless latencies are modelled.

    Raises:
        UserError: the two are not comparable, as `compare` says.
    """
    check_threshold(threshold)
    check_comparable(base.context, new.context)
    pairings = pair_up(base, new)
    open_ones = [index for index, pairing in enumerate(pairings) if not pairing.note]
    repeats: dict[int, list[Pair]] = {}
    if base.context.kind == "modelled":
        judged = [judge_exact(*_latencies(pairings[index], []), threshold) for index in open_ones]
    else:
        estimates = _settled({index: pairings[index] for index in open_ones}, threshold, measure, repeats)
        judged = judge([estimates[index] for index in open_ones], threshold)
    judgements = dict(zip(open_ones, judged, strict=True))
    variants = [_compared(pairing, judgements.get(index), repeats.get(index, [])) for index, pairing in enumerate(pairings)]
    versions = changed_versions(base.context, new.context)
    notes = (*(f"The version of {name} was {old}, now {now}." for name, old, now in versions), *_network_notes(pairings))
    verdicts = [variant.verdict for variant in variants]
    summary = _summary(verdicts, threshold)
    return Comparison(FORMAT, _exit_code(verdicts), threshold, summary, notes, base.context, new.context, tuple(variants))


def _exit_code(verdicts: Sequence[Verdict]) -> Literal[0, 2, 4]:
    if Verdict.SLOWER in verdicts:
        return 2
    return 4 if {Verdict.TOO_NOISY, Verdict.NOT_COMPARABLE}.intersection(verdicts) else 0


def _summary(verdicts: Sequence[Verdict], threshold: float) -> str:
    found = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in Verdict if verdict in verdicts)
    return f"{plural(len(verdicts), 'variant')}: {found} (threshold {100 * threshold:g} %)."


def check_threshold(threshold: float) -> None:
    """Raise `UserError` unless it is a share that a change can exceed."""
    if not 0 <= threshold <= 10:
        raise UserError(f"a threshold of {100 * threshold:g} % is outside 0 to 1000 %.", "Give a smaller --threshold.")


def check_comparable(base: Context, new: Context) -> None:
    """Raise `UserError` if results with these two contexts cannot be compared."""
    for name, mine, theirs in (
        ("devices", base.device, new.device),
        ("boards", base.board, new.board),
        ("kinds of latency", base.kind, new.kind),
        ("CPUs", base.cpu, new.cpu),
        ("clocks", clock(base.clock_hz), clock(new.clock_hz)),
        ("thread counts", base.threads, new.threads),
        ("timing models", base.timing_model or "none", new.timing_model or "none"),
    ):
        if mine != theirs:
            raise _refusal(f"the {name} differ, {mine!r} and {theirs!r}")


def pair_up(base: Results, new: Results) -> tuple[Pairing, ...]:
    """Return the variants of both, the new file's first, with the reason if one is not compared; raises as `compare_results`."""
    old, young = (_usable(results) for results in (base, new))
    _check_settings(old, young)
    keys = [*young, *(key for key in old if key not in young)]
    if not any(key in old and key in young for key in keys):
        raise _refusal("they have no variant in common")
    return tuple(_pairing(old.get(key), young.get(key)) for key in keys)


def changed_kernels(base: VariantResult, new: VariantResult) -> tuple[KernelChange, ...]:
    """Return kernels whose schedule or latency differs: those that cost most first, then the largest."""
    return kernel_changes(base.kernels, new.kernels, base.latency_us)


def kernel_changes(base: Sequence[KernelResult], new: Sequence[KernelResult], whole_us: float) -> tuple[KernelChange, ...]:
    """Return what differs between two libraries' kernels; `whole_us` is the older library's latency. Otherwise as `changed_kernels`."""
    timed = bool(base and new) and None not in [kernel.network_us for kernel in (*base, *new)]
    old, young = (_kernels(kernels, timed) for kernels in (base, new))
    found = []
    for name in dict.fromkeys((*young, *old)):
        mine, theirs = old.get(name), young.get(name)
        if mine is None or theirs is None or _differs(mine, theirs, whole_us):
            old_us, new_us = (one.latency_us if one else None for one in (mine, theirs))
            added_us = None if (mine and old_us is None) or (theirs and new_us is None) else (new_us or 0.0) - (old_us or 0.0)
            before, now = (one.schedule if one else None for one in (mine, theirs))
            macs = next(one.macs for one in (theirs, mine) if one)
            found.append(KernelChange(name, before, now, old_us, new_us, macs, added_us))
    return tuple(sorted(found, key=lambda change: (-(change.added_us or 0.0), -change.macs)))


def _settled(
    pairings: Mapping[int, Pairing], threshold: float, measure: Measure | None, repeats: dict[int, list[Pair]]
) -> dict[int, Estimate]:
    """Return each variant's estimate, from repeated runs if requested; the runs are added to `repeats`."""
    first = {index: estimate_ratio([_stored(pairing)]) for index, pairing in pairings.items()}
    unwatched = {index for index, pairing in pairings.items() if _unwatched(pairing)}
    first |= {index: without_spread(first[index]) for index in unwatched}
    if measure is None:
        return first

    def again(index: int, base_first: bool) -> Pair | None:
        pair = measure(pairings[index], base_first)
        if pair is not None:
            repeats.setdefault(index, []).append(pair)
        return pair

    return settle(first, again, threshold, unwatched=unwatched)


def _stored(pairing: Pairing) -> Pair:
    assert pairing.base is not None and pairing.new is not None
    return Pair(pairing.base.samples_us, pairing.new.samples_us)


def _latencies(pairing: Pairing, repeats: Sequence[Pair]) -> tuple[float, float]:
    """Return latencies of both sides in µs: of the repeats, where they decided."""
    import numpy as np

    runs = repeats if len(repeats) > 1 else [_stored(pairing)]
    old, young = (np.log([np.median(side) for side in sides]) for sides in zip(*((run.base, run.new) for run in runs), strict=True))
    return float(np.exp(np.mean(old))), float(np.exp(np.mean(young)))


def _compared(pairing: Pairing, judgement: Judgement | None, repeats: Sequence[Pair]) -> Compared:
    base, new = pairing.base, pairing.new
    fields = ("name", "model", "alpha", "resolution", "dtype", "threads", "library_sha256", "input")
    found: dict[str, Any] = {name: getattr(pairing.either, name) for name in fields}
    if judgement is None or base is None or new is None:
        verdict = Verdict.NOT_COMPARABLE if pairing.undecided else Verdict.SKIPPED
        found["base_us"], found["new_us"] = (side.latency_us if side and not side.invalid else None for side in (base, new))
        return Compared(**found, verdict=verdict, note=pairing.note, change=None, detects=None, p=None, pairs=0, kernels=())
    found["base_us"], found["new_us"] = _latencies(pairing, repeats)
    return Compared(
        **found,
        verdict=judgement.verdict,
        note=_remark(base, new, judgement),
        change=judgement.change,
        detects=judgement.detects if math.isfinite(judgement.detects) else None,
        p=judgement.p,
        pairs=judgement.pairs,
        kernels=changed_kernels(base, new) if judgement.verdict in (Verdict.SLOWER, Verdict.FASTER, Verdict.TOO_NOISY) else (),
    )


def _remark(base: VariantResult, new: VariantResult, judgement: Judgement) -> str:
    if judgement.verdict is not Verdict.TOO_NOISY:
        return ""
    if judgement.pairs == 1 and _unwatched(Pairing(base, new)):
        return "the machine tells neither clocks nor governor: only repeated runs can decide (tvmmobile regress)"
    if math.isinf(judgement.detects):
        few = min(len(base.samples_us), len(new.samples_us))
        return f"{plural(few, 'sample')} {'is' if few == 1 else 'are'} too few to know the noise"
    if judgement.p is not None and judgement.p <= ALPHA:
        return "slower, but perhaps by no more than the threshold"
    return f"a slowdown of up to {judgement.detects:.1%} cannot be told from noise"


def _pairing(base: VariantResult | None, new: VariantResult | None) -> Pairing:
    if base is None or new is None:
        return Pairing(base, new, f"only in the {'new' if base is None else 'old'} results")
    if base.library_sha256 == new.library_sha256 and base.library_sha256:
        return Pairing(base, new, "the same library")
    for side, variant in (("old", base), ("new", new)):
        if variant.invalid:
            return Pairing(base, new, f"the {side} run does not count: {variant.invalid}", undecided=True)
    old, young = _governors(base), _governors(new)
    if old and young and old != young:
        raise _refusal(f"the clocks of {new.name} were governed by {', '.join(old)!r} and {', '.join(young)!r}")
    return Pairing(base, new)


def _usable(results: Results) -> dict[VariantKey, VariantResult]:
    found = by_key(results.variants)
    for variant in results.variants:
        if variant is not found[variant.key]:
            raise _refusal(f"{variant.name} appears twice")
        try:
            check_samples(variant.samples_us)
        except (ValueError, TypeError) as error:
            raise _refusal(f"{variant.name} cannot be used: {error}") from error
    return found


def _check_settings(base: Mapping[VariantKey, VariantResult], new: Mapping[VariantKey, VariantResult]) -> None:
    """Refuse a network that both have, but with no common dtype, thread count or format."""
    for place, name in ((3, "dtypes"), (4, "thread counts"), (5, "formats")):
        old, young = (_settings(keys, place) for keys in (base, new))
        for network in young:
            if network in old and not young[network] & old[network]:
                label = f"{network[0]} {network[1]}-{network[2]}"
                raise _refusal(f"the {name} of {label} differ, {_listed(old[network])} and {_listed(young[network])}")


def _settings(keys: Iterable[VariantKey], place: int) -> dict[tuple[str, float, str], set[object]]:
    """Return each network's settings at one position of the key."""
    found: dict[tuple[str, float, str], set[object]] = {}
    for key in keys:
        found.setdefault(key[:3], set()).add(key[place])
    return found


def _governors(variant: VariantResult) -> tuple[str, ...]:
    """Return cpufreq's distinct governors during a run, from the board states that name one."""
    return tuple(sorted({str(state["governor"]) for state in _states(variant) if state.get("governor")}))


def _unwatched(pairing: Pairing) -> bool:
    """Return whether a board on either side hides clocks and governor: runs may then differ by more than on other boards."""
    states = [state for side in (pairing.base, pairing.new) if side for state in _states(side)]
    return any(not state.get("governor") and not any(_listed_in(state, "clocks_hz")) for state in states)


def _states(variant: VariantResult) -> list[Mapping[str, Any]]:
    """Return the boards' states before and after a run; the file may hold anything here."""
    found: list[Any] = [state for moment in ("before", "after") for state in _listed_in(variant.conditions, moment)]
    return [state for state in found if isinstance(state, Mapping)]


def _listed_in(found: Mapping[str, Any], name: str) -> list[Any]:
    """Return a list by its name; an empty one if there is none, or something else."""
    value = found.get(name)
    return list(value) if isinstance(value, list | tuple) else []


def _kernels(kernels: Sequence[KernelResult], timed: bool) -> dict[str, KernelResult]:
    """Return each kernel once, with the total latency of its runs in `latency_us`: that within the network if `timed`."""
    found: dict[str, KernelResult] = {}
    for kernel in kernels:
        before = found.get(kernel.name)
        time = kernel.network_us if timed else kernel.latency_us
        if before is not None:
            time = None if time is None or before.latency_us is None else time + before.latency_us
        found[kernel.name] = replace(kernel, latency_us=time)
    return found


def _differs(base: KernelResult, new: KernelResult, whole_us: float) -> bool:
    """Return whether a kernel differs, or its time changes enough to show in the network's."""
    if base.schedule != new.schedule:
        return True
    if base.latency_us is None or new.latency_us is None:
        return False  # the same schedule; only its record was added or removed
    change = abs(new.latency_us - base.latency_us)
    return change > _SAME_KERNEL * base.latency_us and change > _SHOWS * whole_us


def _network_notes(pairings: Iterable[Pairing]) -> tuple[str, ...]:
    """Name the user's own networks that have changed."""
    pairs = [(pairing.base, pairing.new) for pairing in pairings if pairing.base and pairing.new]
    others = [new.name for base, new in pairs if base.network_sha256 != new.network_sha256]
    return tuple(f"{name} was compiled from another file than before." for name in others)


def _refusal(reason: str) -> UserError:
    return UserError(f"these results cannot be compared: {reason}.", "Time both with tvmmobile bench on the same device in the same way.")


def _listed(values: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, values)))
