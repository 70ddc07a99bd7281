"""Results for several thread counts: the fastest one, and the sentences about the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import sample_results

from tvmmobile.results.file import Results, read_results, write_results
from tvmmobile.results.report.threads import thread_sentences
from tvmmobile.results.report.view import view_of
from tvmmobile.results.threads import fastest, spoiled_sentence, tried_counts
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


def spoiled(results: Results, *places: int) -> Results:
    """Mark the latencies of some variants as invalid, or of all if no place is given."""
    variants = enumerate(results.variants)
    marked = (replace(one, invalid="throttled") if not places or place in places else one for place, one in variants)
    return replace(results, variants=tuple(marked))


@pytest.mark.parametrize("hot", [3, 30])
def test_a_count_that_was_spoiled_is_not_chosen_and_not_compared(hot: float) -> None:
    found = [timed(1, 10), timed(2, 7), spoiled(timed(4, hot))]
    best = fastest(found)
    assert best.context.threads == 2 and best.variants[0].other_threads_us == {"1": 10e3}
    assert (
        spoiled_sentence(found) == "note: some latencies for a thread count of 4 are not valid, so the fastest is chosen among the others."
    )
    assert thread_sentences(best)[0] == "Fastest on 2 threads, modelled: 1.43 times as fast as on 1."


def test_a_count_that_was_spoiled_for_one_network_is_named() -> None:
    found = fastest([timed(1, 10, 20), timed(2, 7, 15), spoiled(timed(4, 6, 9), 1)])
    assert found.context.threads == 2 and [set(one.other_threads_us) for one in found.variants] == [{"1", "4"}, {"1"}]
    first, second, *_ = thread_sentences(found)
    assert first == "Fastest on 2 threads, modelled: 1.38 times as fast as on 1 (geometric means)."
    assert second == "Not compared: a thread count of 4, for which some networks have no valid latency."


def test_if_all_counts_are_spoiled_the_fastest_is_chosen() -> None:
    found = [spoiled(timed(1, 10)), spoiled(timed(2, 7))]
    assert fastest(found).context.threads == 2 and "each thread count has latencies that are not valid" in spoiled_sentence(found)
    assert spoiled_sentence(found[:1]) == "" == spoiled_sentence([timed(1, 10), timed(2, 7)])


def test_results_with_different_other_counts_are_joined() -> None:
    """`report --join` puts networks that were timed on 1, 2 and 4 threads beside others timed on 1 and 4."""
    first, second = fastest([timed(1, 80), timed(2, 44), timed(4, 20)]), fastest([timed(1, 8), timed(4, 4)])
    for variants in ((*first.variants, *second.variants), (*second.variants, *first.variants)):
        lines = thread_sentences(replace(first, variants=variants))
        assert lines[0] == "Fastest on 4 threads, modelled: 2.83 times as fast as on 1 (geometric means)."
        assert lines[1] == "Not compared: a thread count of 2, for which some networks have no valid latency."
    apart = [fastest([timed(count, 80), timed(4, 20)]).variants[0] for count in (1, 2)]
    (only,) = thread_sentences(replace(first, variants=tuple(apart)))
    assert only == "Not compared: a thread count of 1 or 2, for which some networks have no valid latency."


def test_small_weights_are_compared_with_small_weights() -> None:
    def small(results: Results) -> Results:
        return replace(results, variants=tuple(replace(one, weights_dtype="int8") for one in results.variants))

    on_one, on_two = (
        replace(plain, variants=(*plain.variants, *small(other).variants))
        for plain, other in ((timed(1, 80), timed(1, 60)), (timed(2, 44), timed(2, 33)))
    )
    assert [one.other_threads_us for one in fastest([on_one, on_two]).variants] == [{"1": 80e3}, {"1": 60e3}]


def test_each_network_needs_each_count() -> None:
    with pytest.raises(UserError, match=r"some networks have no library for one of \[1, 2\] threads"):
        fastest([timed(1, 80, 8), timed(2, 44)])


def test_files_and_reports_keep_it(tmp_path: Path) -> None:
    found = fastest([timed(1, 80, 8), timed(2, 44, 4.4)])
    write_results(found, tmp_path / "report.json")
    assert read_results(tmp_path / "report.json") == found
    assert set(thread_sentences(found)) <= set(view_of(found).remarks)
