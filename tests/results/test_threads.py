"""Results on several thread counts: which is fastest, and what is said of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import sample_results

from tvmmobile.results.file import Results, read_results, write_results
from tvmmobile.results.report.threads import thread_sentences
from tvmmobile.results.report.view import view_of
from tvmmobile.results.threads import fastest, tried_counts
from tvmmobile.system.errors import UserError

SAMPLE = sample_results(2)


def timed(threads: int, *latencies_ms: float) -> Results:
    """Two variants' latencies on a thread count."""
    variants = [
        replace(variant, name=f"{variant.name[:-1]}{threads}", threads=threads, samples_us=(1e3 * ms,))
        for variant, ms in zip(SAMPLE.variants, latencies_ms, strict=False)
    ]
    return Results(replace(SAMPLE.context, threads=threads), tuple(variants))


def sentences(*timed_on: Results) -> Sequence[str]:
    """Return the sentences about the fastest."""
    return thread_sentences(fastest(timed_on))


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 4)), (6, (1, 2, 4, 6)), (64, (1, 2, 4, 8, 16, 32, 64))]
)
def test_which_counts_are_tried(cores: int, counts: Sequence[int]) -> None:
    assert tried_counts(cores) == counts


def test_the_fastest_count_is_that_of_the_geometric_mean() -> None:
    found = fastest([timed(1, 80, 8), timed(2, 44, 4.4), timed(4, 30, 4.6)])
    assert found.context.threads == 4
    assert [variant.other_threads_us for variant in found.variants] == [{"1": 80e3, "2": 44e3}, {"1": 8e3, "2": 4.4e3}]


def test_one_count_says_nothing_of_others() -> None:
    found = fastest([timed(2, 80, 8)])
    assert found == timed(2, 80, 8) and thread_sentences(found) == []


def test_what_is_said() -> None:
    first, other = sentences(timed(1, 80, 8), timed(2, 40, 4), timed(4, 20, 4.4))
    assert first == "Fastest on 4 threads, modelled: 2.70 times as fast as on 1, 1.35 times as fast as on 2 (geometric means)."
    assert other == f"Faster on another count: {SAMPLE.variants[1].name[:-1]}4 on 2 threads (4.00 ms, 4.40 on 4)."


def test_wasted_cores_are_named() -> None:
    assert sentences(timed(1, 80), timed(2, 78))[-1] == "2 threads instead of 1: +2.6% speed, so the further cores are wasted."
    assert sentences(timed(1, 3.4), timed(4, 6.7))[0] == "Fastest on 1 thread, modelled: 1.97 times as fast as on 4."
    assert sentences(timed(2, 3.4), timed(4, 6.7))[-1] == "4 threads instead of 2: -49.3% speed, so the further cores are wasted."


def test_what_is_not_valid_is_not_compared() -> None:
    spoiled = fastest([timed(1, 80), timed(2, 44)])
    assert thread_sentences(replace(spoiled, variants=(replace(spoiled.variants[0], invalid="throttled"),))) == []


def test_each_network_needs_each_count() -> None:
    with pytest.raises(UserError, match=r"some networks have no library for one of \[1, 2\] threads"):
        fastest([timed(1, 80, 8), timed(2, 44)])


def test_files_and_reports_keep_it(tmp_path: Path) -> None:
    found = fastest([timed(1, 80, 8), timed(2, 44, 4.4)])
    write_results(found, tmp_path / "report.json")
    assert read_results(tmp_path / "report.json") == found
    assert set(thread_sentences(found)) <= set(view_of(found).remarks)
