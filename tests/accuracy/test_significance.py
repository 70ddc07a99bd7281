"""Tests of a library's loss of top-1, and of its significance."""

from __future__ import annotations

import numpy as np
import pytest

from tvmmobile.accuracy.significance import Top1Loss, top1_loss


def loss(only_original: int, only_library: int, both: int, neither: int = 0) -> Top1Loss:
    """Return the loss for so many images of each kind."""
    pairs = [(True, False)] * only_original + [(False, True)] * only_library + [(True, True)] * both + [(False, False)] * neither
    found = top1_loss([original for original, _ in pairs], [library for _, library in pairs])
    assert found is not None
    return found


def test_only_images_on_which_they_differ_count() -> None:
    found = loss(6, 2, both=892, neither=100)
    assert (found.only_original, found.only_library, found.points) == (6, 2, pytest.approx(0.4))
    assert 0.5 < found.margin < 0.7
    assert found.p_value == pytest.approx(2 * (1 + 8 + 28) / 2**8)  # two tails of eight throws of a coin


def test_a_clear_loss_is_significant_and_a_gain_is_negative() -> None:
    assert loss(40, 5, both=955).p_value < 1e-6 and loss(40, 5, both=955).points - loss(40, 5, both=955).margin > 0
    assert loss(2, 6, both=992).points == pytest.approx(-0.4) and loss(2, 6, both=992).p_value == loss(6, 2, both=992).p_value


def test_without_a_difference_there_is_still_an_interval() -> None:
    found = loss(0, 0, both=1000)
    assert found.points == 0 < found.margin < 0.3 and found.p_value == 1
    assert top1_loss([], []) is None


def test_the_interval_holds_the_truth_19_times_in_20() -> None:
    """1,000 data sets of 500 images, on which the original alone is right at 4 % and the library alone at 1 %."""
    generator = np.random.default_rng(0)
    counts = generator.multinomial(500, [0.04, 0.01, 0.95], size=1000)
    found = [loss(int(lost), int(won), both=int(rest)) for lost, won, rest in counts]
    covered = sum(abs(one.points - 3.0) <= one.margin for one in found)
    assert 930 <= covered <= 985
