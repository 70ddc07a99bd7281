"""Counts how often the gate is wrong on simulated samples with the noise of real boards.

    ./studies/run simulate_gate                                  # 1000 comparisons: some minutes
    ./studies/run simulate_gate --comparisons 100 --seed 7
    ./studies/run simulate_gate --out studies/results/gate.json             # the counts that docs/gate.md is checked against

Every comparison is of 16 variants, 30 samples a side. In half of them old and new code are equal: a variant called slower is a false
alarm. In the other half one variant is 5 % slower: it is caught if it is called slower, and missed if it is called the same. Each is
judged twice: by one run a side, as `tvmmobile compare` does with two files, and with interleaved repeats, as `tvmmobile regress` does.
Then single variants are judged by a fixed number of interleaved runs a side, and as `regress` does: equal, slower by just the threshold,
and 5 % slower.

Ends with 1 if the gate with repeats raises false alarms in more than 1 % of the comparisons of equal code or catches less than 95 % of the
slowdowns, or if more than 1 % of the slowdowns are called the same.

Samples: standard deviation 2 %, each correlated with the one before (0.5), 3 % of them outliers of up to twice the time, a drift of 2 %
over a run, up or down, and a standard deviation of 1 % between runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import signal, stats

from studies.harness import Options, option, study, write_json
from tvmmobile.gate.statistics import Estimate, Pair, Verdict, combine, estimate_ratio, judge, settle
from tvmmobile.system.errors import UserError
from tvmmobile.system.markdown import markdown_table

MOST_FALSE_ALARMS, LEAST_CAUGHT, MOST_MISSED = 0.01, 0.95, 0.01
VARIANTS, SAMPLES, SLOWDOWN, THRESHOLD = 16, 30, 0.05, 0.03
#: Fixed numbers of runs a side, and what says that there are as many as `regress` takes.
RUNS, REGRESS = (1, 2, 3, 5, 8, 14), "as `regress`"
#: Verdicts on variants that are compared.
JUDGED = (Verdict.SAME, Verdict.TOO_NOISY, Verdict.SLOWER, Verdict.FASTER)
NOISE, CORRELATION, OUTLIERS, WORST_OUTLIER, DRIFT, BETWEEN_RUNS = 0.02, 0.5, 0.03, 2.0, 0.02, 0.01


@dataclass(frozen=True)
class GateOutcome:
    """The outcome of one comparison.

    Attributes:
        at_once, repeated: whether a variant was called slower (of slowed code: the slow one) without and with repeats.
        missed_at_once, missed: whether the slow variant, if there is one, was called the same.
        undecided_at_once, undecided: whether a variant was called too noisy instead.
        suspicious: variants that were run again.
        pairs: interleaved pairs of runs.
    """

    at_once: bool
    repeated: bool
    missed_at_once: bool
    missed: bool
    undecided_at_once: bool
    undecided: bool
    suspicious: int
    pairs: int


def samples_of_run(random: np.random.Generator, latency: float) -> npt.NDArray[np.float64]:
    """Simulate one run's samples, in order."""
    innovations = random.normal(0.0, NOISE * math.sqrt(1 - CORRELATION**2), SAMPLES)
    innovations[0] /= math.sqrt(1 - CORRELATION**2)
    noise = signal.lfilter([1.0], [1.0, -CORRELATION], innovations)
    drift = random.choice((-1, 1)) * DRIFT * np.linspace(0.0, 1.0, SAMPLES)
    outliers = np.where(random.random(SAMPLES) < OUTLIERS, random.uniform(1.0, WORST_OUTLIER, SAMPLES), 1.0)
    samples: npt.NDArray[np.float64] = latency * math.exp(random.normal(0.0, BETWEEN_RUNS)) * (1 + noise + drift) * outliers
    return samples


def pair_of_runs(random: np.random.Generator, slowdown: float) -> Pair:
    """Simulate a run of each library."""
    return Pair(samples_of_run(random, 100.0).tolist(), samples_of_run(random, 100.0 * (1 + slowdown)).tolist())


def compare_once(random: np.random.Generator, slow: int | None) -> GateOutcome:
    """Simulate one comparison of all variants, of which `slow`, if any, is slower."""
    slowdowns = [SLOWDOWN if variant == slow else 0.0 for variant in range(VARIANTS)]
    first = {variant: estimate_ratio([pair_of_runs(random, slowdowns[variant])]) for variant in range(VARIANTS)}
    repeats: list[int] = []

    def measure(variant: int, base_first: bool) -> Pair:
        repeats.append(variant)
        return pair_of_runs(random, slowdowns[variant])

    settled = settle(first, measure, THRESHOLD)
    verdicts = [_verdicts(list(estimates.values())) for estimates in (first, settled)]
    concerned = verdicts if slow is None else [[found[slow]] for found in verdicts]
    caught = [Verdict.SLOWER in found for found in concerned]
    missed = [slow is not None and Verdict.SAME in found for found in concerned]
    undecided = [Verdict.TOO_NOISY in found for found in verdicts]
    return GateOutcome(caught[0], caught[1], missed[0], missed[1], undecided[0], undecided[1], len(set(repeats)), len(repeats))


def _verdicts(estimates: Sequence[Estimate]) -> list[Verdict]:
    return [judgement.verdict for judgement in judge(estimates, THRESHOLD)]


def simulate(comparisons: int, seed: int, slowed: bool) -> list[GateOutcome]:
    """Simulate `comparisons` comparisons: of equal code, or with one slower variant if `slowed`."""
    generators = np.random.default_rng([seed, int(slowed)]).spawn(comparisons)
    return [compare_once(random, int(random.integers(VARIANTS)) if slowed else None) for random in generators]


def verdicts_by_runs(comparisons: int, seed: int, slowdowns: Sequence[float], runs: Sequence[int]) -> list[list[Counter[Verdict]]]:
    """Count each verdict on a single variant, for each slowdown and number of interleaved runs a side."""
    found = [[Counter[Verdict]() for _ in runs] for _ in slowdowns]
    for random in np.random.default_rng(seed).spawn(comparisons):
        singles = [estimate_ratio([pair_of_runs(random, 0.0)]) for _ in range(max(runs))]
        for slowdown, by_runs in zip(slowdowns, found, strict=True):
            # A slowdown scales every sample of the new library.
            slowed = [replace(single, log_ratio=single.log_ratio + math.log1p(slowdown)) for single in singles]
            for verdicts, count in zip(by_runs, runs, strict=True):
                verdicts.update(_verdicts([combine(slowed[:count])]))
    return found


def _pair_again(random: np.random.Generator, slowdown: float, variant: int, base_first: bool) -> Pair:
    return pair_of_runs(random, slowdown)


def verdicts_of_regress(comparisons: int, seed: int, slowdown: float) -> Counter[Verdict]:
    """Count each verdict of `regress` on a single variant."""
    found = Counter[Verdict]()
    for random in np.random.default_rng(seed).spawn(comparisons):
        again = partial(_pair_again, random, slowdown)
        settled = settle({0: estimate_ratio([again(0, True)])}, again, THRESHOLD)
        found.update(_verdicts(list(settled.values())))
    return found


def count_by_runs(comparisons: int, seed: int) -> list[dict[str, float | str]]:
    """Return the rows of the page's second table: a slowdown, the runs a side, and how often each verdict came out."""
    slowdowns = (0.0, THRESHOLD, SLOWDOWN)
    rows: list[dict[str, float | str]] = []
    for slowdown, by_runs in zip(slowdowns, verdicts_by_runs(comparisons, seed, slowdowns, RUNS), strict=True):
        found = {**dict(zip(map(str, RUNS), by_runs, strict=True)), REGRESS: verdicts_of_regress(comparisons, seed, slowdown)}
        for runs, verdicts in found.items():
            rows.append({"slowdown": slowdown, "runs": runs, **{str(verdict): verdicts[verdict] for verdict in JUDGED}})
    return rows


def counts(outcomes: Sequence[GateOutcome]) -> dict[str, float]:
    """Return the page's figures: comparisons by outcome, variants and pairs run again on average, and the most pairs."""
    names = ("at_once", "repeated", "missed_at_once", "missed", "undecided_at_once", "undecided")
    sums = {name: sum(getattr(one, name) for one in outcomes) for name in names}
    means = {name: float(np.mean([getattr(one, name) for one in outcomes])) for name in ("suspicious", "pairs")}
    return {"comparisons": len(outcomes), **sums, **means, "most_pairs": max(one.pairs for one in outcomes)}


def rate(found: Mapping[str, float], name: str) -> str:
    """Return a share with its 95 % confidence interval (Clopper and Pearson)."""
    hits, comparisons = int(found[name]), int(found["comparisons"])
    interval = stats.binomtest(hits, comparisons).proportion_ci(0.95)
    return f"{hits / comparisons:.1%} ({interval.low:.2%} to {interval.high:.2%})"


def report(equal: Mapping[str, float], slowed: Mapping[str, float]) -> str:
    """Return a table of rates, and the cost of repeats, in Markdown."""
    extent = f"{equal['comparisons']} comparisons of equal code and {slowed['comparisons']} with one variant {SLOWDOWN:.0%} slower"
    rows = []
    for title, found, names in (
        ("equal code: false alarm on any variant", equal, ("at_once", "repeated")),
        ("slowdown caught", slowed, ("at_once", "repeated")),
        ("slowdown called the same", slowed, ("missed_at_once", "missed")),
        ("equal code: some variant too noisy", equal, ("undecided_at_once", "undecided")),
        ("slowdown: some variant too noisy", slowed, ("undecided_at_once", "undecided")),
    ):
        rows.append((title, rate(found, names[0]), rate(found, names[1])))
    table = markdown_table(("share of comparisons (95 % confidence)", "one run a side", "with repeats"), rows)
    lines = [f"{extent}; {VARIANTS} variants, {SAMPLES} samples a side.", "", *table, ""]
    for title, found in (("Equal code", equal), ("With a slowdown", slowed)):
        lines.append(
            f"{title}: {found['suspicious']:.1f} of {VARIANTS} variants run again, {found['pairs']:.1f} pairs of runs on average "
            f"(at most {found['most_pairs']}), besides the {VARIANTS} runs of the new libraries."
        )
    return "\n".join(lines)


def runs_report(rows: Sequence[Mapping[str, float | str]]) -> str:
    """Return a table of verdicts by runs a side, in Markdown."""
    lines = []
    for slowdown in dict.fromkeys(row["slowdown"] for row in rows):
        for row in (row for row in rows if row["slowdown"] == slowdown):
            found = [float(row[verdict]) for verdict in JUDGED]
            title = f"{slowdown:.0%} slower" if slowdown else "equal"
            lines.append((title, str(row["runs"]), *(f"{hits / sum(found):.1%}" for hits in found)))
    table = markdown_table(("new library", "runs a side", *map(str, JUDGED)), lines)
    comparisons = sum(int(rows[0][verdict]) for verdict in JUDGED)
    return "\n".join([f"{comparisons} comparisons of a single variant a line, {SAMPLES} samples a side.", "", *table])


@study(
    option("--comparisons", 1000, "of equal code, and as many of slowed code"),
    option("--seed", 0, "of the simulated noise"),
    option("--out", None, "write the counts there", type=Path, metavar="FILE.json"),
)
def main(options: Options) -> int:
    """Run the simulation; return the exit code."""
    if options.comparisons < 1 or options.seed < 0:
        raise UserError("--comparisons or --seed is too small.", "Give at least one comparison, and a seed of 0 or more.")
    equal, slowed = (counts(simulate(options.comparisons, options.seed, kind)) for kind in (False, True))
    runs = count_by_runs(options.comparisons, options.seed)
    print(report(equal, slowed), runs_report(runs), sep="\n\n")
    write_json(options.out, {"equal": equal, "slowed": slowed, "runs": runs})
    false_alarms, caught = (found["repeated"] / found["comparisons"] for found in (equal, slowed))
    missed = max(slowed["missed_at_once"], slowed["missed"]) / slowed["comparisons"]
    return 0 if false_alarms <= MOST_FALSE_ALARMS and caught >= LEAST_CAUGHT and missed <= MOST_MISSED else 1
