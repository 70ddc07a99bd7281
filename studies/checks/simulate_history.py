"""Counts how many planted steps `tvmmobile history` finds in simulated latencies, and how far from the truth.

    ./studies/run simulate_history                                          # 200 histories a line: a minute
    ./studies/run simulate_history --out studies/results/history.json       # the counts that docs/history.md shows

A history has 500 commits and 30 steps up or down at random commits, at least 8 apart; each run's latency has normal noise of 1 %. A step
is close if a found one is at most one commit off, and in range if a found one's range of commits holds it; a found step is invented if no
planted one is within 4 commits. At most two steps of a history are missed if 28 are close, and at most one found step is not.

Ends with 1 if steps of 3 % are close in less than 95 % of the cases, or more than one history in a hundred without a step shows one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from studies.harness import Options, option, study, write_json
from tvmmobile.history.steps import Segmentation, find_steps
from tvmmobile.system.markdown import markdown_table

COMMITS, STEPS, SHORTEST, NOISE = 500, 30, 8, 0.01
SIZES, RUNS = (0.02, 0.03, 0.05), (1, 2, 3)
LEAST_CLOSE, MOST_ALARMS, TESTED = 0.95, 0.01, 0.03


def planted(seed: int, runs: int, size: float, steps: int = STEPS) -> tuple[list[int], Segmentation]:
    """Simulate a history whose commits are each timed so often; return the first commits of its levels, and what is found."""
    random = np.random.default_rng(seed)
    free = np.sort(random.integers(0, COMMITS - SHORTEST * (steps + 1) + 1, steps))
    places = [int(place) for place in free + SHORTEST * np.arange(1, steps + 1)]
    levels = np.zeros(COMMITS)
    for place in places:
        levels[place:] += np.log1p(size) * random.choice([-1, 1])
    latencies = 1e4 * np.exp(levels + random.normal(0, NOISE / np.sqrt(runs), COMMITS))
    return places, find_steps(latencies.tolist(), [runs] * COMMITS, exact=False)


def counts(histories: int, seed: int, runs: int, size: float) -> dict[str, float]:
    """Return sums over histories: planted steps that are close, exact and in range, and invented ones; and in how many all is well."""
    found = dict.fromkeys(("close", "exact", "in_range", "invented", "good"), 0)
    for number in range(histories):
        places, seen = planted(seed + number, runs, size)
        at = [step.at for step in seen.steps]
        close = sum(any(abs(place - one) <= 1 for one in at) for place in places)
        invented = sum(all(abs(place - one) > SHORTEST // 2 for place in places) for one in at)
        found["close"] += close
        found["exact"] += sum(place in at for place in places)
        found["in_range"] += sum(any(step.first <= place <= step.last for step in seen.steps) for place in places)
        found["invented"] += invented
        found["good"] += close >= STEPS - 2 and sum(all(abs(place - one) > 1 for place in places) for one in at) <= 1
    return {"size": size, "runs": runs, "histories": histories, **found}


def alarms(histories: int, seed: int) -> int:
    """Return in how many histories without a step one is found."""
    return sum(bool(planted(seed + number, 1, 0.0, 0)[1].steps) for number in range(histories))


def report(rows: Sequence[Mapping[str, float]], wrong: int) -> str:
    """Return the table of docs/history.md."""
    lines = []
    for row in rows:
        planted_, histories = row["histories"] * STEPS, row["histories"]
        shares = [f"{row[name] / planted_:.1%}" for name in ("close", "exact", "in_range")]
        figures = (f"{row['invented'] / histories:.2f}", f"{row['good'] / histories:.0%}")
        lines.append((f"{row['size']:.0%}", f"{row['runs']:.0f}", *shares, *figures))
    headings = ("step", "runs a commit", "within one commit", "at the commit", "in the range given", "invented", "at most two missed")
    histories = int(rows[0]["histories"])
    extent = (
        f"{histories} histories a line, of {COMMITS} commits with {STEPS} steps at least {SHORTEST} commits apart, and {NOISE:.0%} noise."
    )
    return "\n".join([extent, "", *markdown_table(headings, lines), "", f"Of {histories} histories without a step, {wrong} show one."])


@study(
    option("--histories", 200, "histories of each kind"), option("--seed", 0), option("--out", None, "write the counts as JSON", type=Path)
)
def main(options: Options) -> int:
    """Run the simulation; return the exit code."""
    rows = [counts(options.histories, options.seed, runs, size) for size in SIZES for runs in RUNS]
    wrong = alarms(options.histories, options.seed)
    print(report(rows, wrong))
    write_json(options.out, {"rows": rows, "alarms": wrong})
    missed = any(row["close"] < LEAST_CLOSE * STEPS * row["histories"] for row in rows if row["size"] == TESTED)
    return int(missed or wrong > MOST_ALARMS * options.histories)
