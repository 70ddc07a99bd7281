"""Compares two result files: a verdict per variant, with the kernels that changed, and an exit code."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tvmmobile.gate import DEFAULT_THRESHOLD
from tvmmobile.gate.kernel_changes import KernelChange, changed_kernels
from tvmmobile.gate.pairing import Pairing, check_comparable, is_unwatched, pair_up
from tvmmobile.gate.statistics import (
    ALPHA,
    Estimate,
    Judgement,
    Pair,
    Verdict,
    estimate_ratio,
    judge,
    judge_exact,
    settle,
    without_spread,
)
from tvmmobile.results.file import (
    Context,
    Latency,
    Results,
    VariantResult,
    changed_versions,
    read_results,
)
from tvmmobile.results.report.wording import plural
from tvmmobile.system.errors import UserError

FORMAT = 1


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


def _settled(
    pairings: Mapping[int, Pairing], threshold: float, measure: Measure | None, repeats: dict[int, list[Pair]]
) -> dict[int, Estimate]:
    """Return each variant's estimate, from repeated runs if requested; the runs are added to `repeats`."""
    first = {index: estimate_ratio([_stored(pairing)]) for index, pairing in pairings.items()}
    unwatched = {index for index, pairing in pairings.items() if is_unwatched(pairing)}
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
    old, now = (np.log([np.median(side) for side in sides]) for sides in zip(*((run.base, run.new) for run in runs), strict=True))
    return float(np.exp(np.mean(old))), float(np.exp(np.mean(now)))


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
    if judgement.pairs == 1 and is_unwatched(Pairing(base, new)):
        return "the machine tells neither clocks nor governor: only repeated runs can decide (tvmmobile regress)"
    if math.isinf(judgement.detects):
        few = min(len(base.samples_us), len(new.samples_us))
        return f"{plural(few, 'sample')} {'is' if few == 1 else 'are'} too few to know the noise"
    if judgement.p is not None and judgement.p <= ALPHA:
        return "slower, but perhaps by no more than the threshold"
    return f"a slowdown of up to {judgement.detects:.1%} cannot be told from noise"


def _network_notes(pairings: Iterable[Pairing]) -> tuple[str, ...]:
    """Name the user's own networks that have changed."""
    pairs = [(pairing.base, pairing.new) for pairing in pairings if pairing.base and pairing.new]
    others = [new.name for base, new in pairs if base.network_sha256 != new.network_sha256]
    return tuple(f"{name} was compiled from another file than before." for name in others)
