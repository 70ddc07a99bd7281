"""Tests of suspicions about an evaluation: its preprocessing, its classes, its folders; and of evaluations that raise none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from evaluations import CONTEXT

from tvmmobile.accuracy.evaluation_file import ImageResult, evaluation_of
from tvmmobile.accuracy.suspicions import suspicions

TRAINED = "net.pt2 sha256 " + "0" * 64


def found(pairs: Sequence[tuple[int, int]], classes: int = 10, weights: str = TRAINED, folder: str = "val") -> tuple[str, ...]:
    """Return the suspicions about images with these labels, and the classes that both name first."""
    context = replace(CONTEXT, classes=classes, weights=weights, folder=folder, images_chosen=len(pairs), preprocessing="RGB minus 0.5")
    images = [ImageResult(f"{label}/{number}.png", label, (answer,), (answer,), 0.0) for number, (label, answer) in enumerate(pairs)]
    return suspicions(evaluation_of(context, images))


def scattered(count: int, right: int, classes: int = 10) -> list[tuple[int, int]]:
    """Return a number of images: the first ones are classified correctly, the others without a pattern."""
    return [(n % classes, (n % classes + (n >= right) * (1 + n % (classes - 1))) % classes) for n in range(count)]


def test_preprocessing_is_the_first_suspect_where_top1_is_that_of_guessing() -> None:
    [text] = found(scattered(40, 4))
    assert text.startswith("4 of 40 images right is no better than guessing among 10 classes. Suspect the preprocessing first: ")
    assert "every image got RGB minus 0.5" in text and "channel order, mean and standard deviation" in text and "--labels" in text


@pytest.mark.parametrize(
    ("count", "right", "classes"),
    [
        (40, 20, 10),  # half of them are right
        (5, 0, 10),  # a good network, too, may be wrong about so few
        (20, 10, 2),  # and so it may if there are but two classes
        (20, 4, 1000),  # bad, but not by chance
    ],
)
def test_what_is_no_guessing_is_not_suspected(count: int, right: int, classes: int) -> None:
    assert found(scattered(count, right, classes), classes) == ()


def test_classes_that_are_numbered_differently() -> None:
    [text] = found([(n % 9, n % 9 + 1) for n in range(20)])
    assert text.startswith("Most images get a class 1 higher than their label") and "background class" in text and "--labels" in text
    [text] = found([(n % 7 + 3, n % 7) for n in range(20)])
    assert text.startswith("Most images get a class 3 lower")


def test_swapped_folders() -> None:
    swapped = {3: 7, 7: 3}
    [text] = found([(n % 10, swapped.get(n % 10, n % 10)) for n in range(40)])
    assert text == "Most images of class 3 get class 7, and the other way round: their folders may be swapped."


def test_one_class_only() -> None:
    [text] = found([(4, 4)] * 12)
    assert text == "All 12 images have class 4: top-1 means little. Give images of several classes."


def test_nothing_is_said_of_generated_weights_of_noise_and_of_outputs_that_are_not_numbers() -> None:
    assert found(scattered(40, 4), weights="seeded kaiming, seed 0") == ()
    assert found(scattered(40, 4), folder="noise:40") == ()
    context = replace(CONTEXT, weights=TRAINED, images_chosen=9)
    assert suspicions(evaluation_of(context, [ImageResult(f"{n}/x.png", n, (), (), None) for n in range(9)])) == ()
