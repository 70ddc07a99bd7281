"""The study lite_front: what a front is held against, pictures that are right, and its page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from labelled_images import write_image

from studies.errors import lite_front
from studies.harness import RESULTS, Entry
from tvmmobile.graph.layers import Array
from tvmmobile.networks.labelled import LabelledImage


def entry(side: int, precision: str, right: int, of_20: int, timed_us: float) -> Entry:
    names = {"network": "lite0", "side": str(side), "precision": precision}
    return {**names, "right": right, "images": 100, "right_of_20": of_20, "timed_us": timed_us}


def test_libraries_that_no_member_of_the_front_beats_are_named() -> None:
    """The front is the planned one; what it is held against was timed."""
    entries = [entry(96, "int8", 50, 10, 700.0), entry(96, "float32", 50, 11, 1500.0), entry(160, "int8", 70, 15, 2000.0)]
    entries += [entry(160, "float32", 72, 15, 1990.0)]
    planned = dict(zip(map(lite_front.library_of, entries), (710.0, 1400.0, 1900.0, 2100.0), strict=True))
    answer = {
        "under": "2ms",
        "best": "lite0_1.0_160_int8",
        "seconds": 1.0,
        "planned_us": planned,
        "estimated": dict.fromkeys(planned, 0.25),
    }
    page = lite_front.page(entries, answer, "pi4-virtual")
    assert (
        "By the 100 pictures, 3 libraries are on the front, and 1 of the 1 others are beaten by one of them. By the 20, 3 libraries" in page
    )
    assert "| lite0 | 96 | float32 | 50.0 | 11 | 1.40 | 25 | 1.50 | lite0_1.0_96_int8 |" in page
    # One that takes longer than was planned beats nothing.
    slower = [*entries[:2], entry(160, "int8", 70, 15, 2500.0), entry(160, "float32", 69, 15, 2200.0)]
    page = lite_front.page(slower, answer, "pi4-virtual")
    assert (
        "By the 100 pictures, 2 libraries are on the front, and 1 of the 2 others are beaten by one of them, not lite0_1.0_160_float32."
        in page
    )


def test_pictures_are_counted_in_batches(tmp_path: Path) -> None:
    pictures = []
    for number in range(11):
        write_image(tmp_path / f"{number}.png", number)
        pictures.append(LabelledImage(tmp_path / f"{number}.png", str(number), number % 3))
    shapes = []

    def zeros_are_right(inputs: Array) -> Array:
        shapes.append(inputs.shape)
        return np.eye(3, dtype=np.float32)[[0] * len(inputs)]

    assert lite_front.right(zeros_are_right, "lite0", 32, pictures) == 4 and shapes == [(8, 3, 32, 32), (3, 3, 32, 32)]


def test_the_page_is_of_the_figures() -> None:
    entries, answer = (json.loads((RESULTS / name).read_text(encoding="utf-8")) for name in ("lite-front.json", "lite-front-answer.json"))
    assert lite_front.page(entries, answer, "pi4-virtual") == (RESULTS / "lite-front.md").read_text(encoding="utf-8")


@pytest.mark.long
def test_a_network_is_timed_and_priced(tmp_path: Path) -> None:
    """EfficientNet-Lite0 at the smallest side in float32; `choose` knows its kernels from the run that timed it."""
    pictures = lite_front.Pictures((), lite_front.foolbox_pictures()[:4])
    found = lite_front.entry_of("lite0", 96, "float32", "pi4-virtual", pictures, tmp_path)
    answer = lite_front.ask_choose([found], "pi4-virtual", "1s", tmp_path)
    assert answer["best"] == "lite0_1.0_96_float32" and answer["planned_us"][answer["best"]] == pytest.approx(found["timed_us"], rel=0.1)
