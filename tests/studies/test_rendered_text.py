"""The study rendered_text: words and their pictures, what is read in outputs, and a recogniser and a classifier in int8."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from studies.errors import rendered_text
from studies.errors.rendered_text import ORIENTATION, RECOGNISER, TextLoss


def test_words_are_the_same_each_time_and_half_may_be_upside_down() -> None:
    first, again = rendered_text.words(6, 3, turned=True), rendered_text.words(6, 3, turned=True)
    assert [one.text for one in first] == [one.text for one in again] and len({one.text for one in first}) == 6
    assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(first, again, strict=True))
    assert [one.turned for one in first] == [False, True] * 3
    inputs = rendered_text.inputs_of(first, (48, 320))
    assert inputs.shape == (6, 3, 48, 320) and -1 <= inputs.min() < 0 < inputs.max() <= 1
    across = int(np.ceil(48 * first[0].pixels.shape[1] / first[0].pixels.shape[0]))
    assert not inputs[0, :, :, across:].any() and inputs[0, :, :, : across - 1].any(axis=(0, 1)).all()


def test_repeated_characters_count_once_and_blanks_between_them_part_them() -> None:
    characters = ["", "a", "b", " "]
    steps = np.eye(4)[[0, 1, 1, 0, 1, 2, 2, 3, 3]]
    assert rendered_text.read_text(steps, characters) == "aab"
    assert rendered_text.edits("kitten", "sitting") == 3 and rendered_text.edits("", "ab") == 2 and rendered_text.edits("ab", "ab") == 0


def test_a_row_of_each_network() -> None:
    recogniser = TextLoss(RECOGNISER, "int8", 2000, 90, 12, 98.7, 99.1, 93.2, 94.0, 0.8, 0.5, 0.01, 97.0, 21.04)
    orientation = TextLoss(ORIENTATION, "int8", 2000, 70, 0, None, None, 99.0, 99.0, 0.0, 0.1, 1.0, 100.0, None)
    *_, first, second = rendered_text.table([asdict(recogniser), asdict(orientation)]).splitlines()
    assert first == "| recogniser | int8 | 2000 | 90 | 12 | 99.10 | 98.70 | 94.00 | 0.80 ± 0.50 | 0.01 | 97.00 | 21.0 |"
    assert second == "| orientation | int8 | 2000 | 70 | 0 |  |  | 99.00 | 0.00 ± 0.10 | 1 | 100.00 |  |"


@pytest.mark.long
def test_trained_networks_read_words_in_int8() -> None:
    found = rendered_text.loss_of(ORIENTATION, "int8", 40)
    assert found.right_float32 >= 90 and found.lost <= 5
    found = rendered_text.loss_of(RECOGNISER, "int8", 24)
    assert found.characters_float32 is not None and found.characters is not None
    assert found.characters_float32 >= 97 and found.characters >= found.characters_float32 - 2
