"""The bound of a choice, as typed."""

from __future__ import annotations

import math

import pytest

from tvmmobile.choosing.budget import Budget
from tvmmobile.system.errors import UserError


@pytest.mark.parametrize(("text", "microseconds"), [("12ms", 12000.0), ("900us", 900.0), ("0.5 ms", 500.0), ("2s", 2e6), ("7µs", 7.0)])
def test_latencies(text: str, microseconds: float) -> None:
    assert Budget.of(text, None) == Budget(most_us=microseconds)


@pytest.mark.parametrize("text", ["70%", "70", "70.0 %"])
def test_accuracies(text: str) -> None:
    assert Budget.of(None, text) == Budget(math.inf, 70.0)


@pytest.mark.parametrize("text", ["12", "ms", "-1ms", "0ms", "1h", "nanms", ""])
def test_other_latencies_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a latency"):
        Budget.of(text, None)


@pytest.mark.parametrize("text", ["0", "101%", "-5", "x", ""])
def test_other_accuracies_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not an accuracy"):
        Budget.of(None, text)


def test_one_bound_at_a_time() -> None:
    with pytest.raises(UserError, match="exclude each other"):
        Budget.of("1ms", "70%")
    assert not Budget.of(None, None).is_bound


@pytest.mark.parametrize(("text", "size"), [("4MB", 4e6), ("512 kB", 512e3), ("1.5MiB", 1.5 * 2**20)])
def test_sizes(text: str, size: float) -> None:
    assert Budget.of(None, None, text, text) == Budget(most_memory=size, most_weights=size) and not Budget.of(None, None, text).is_bound


@pytest.mark.parametrize("text", ["4", "MB", "0MB", "-1MB", "4GB", ""])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"`memory.*is not a size"):
        Budget.of(None, None, text)
    with pytest.raises(UserError, match=r"`size.*is not a size"):
        Budget.of(None, None, None, text)
