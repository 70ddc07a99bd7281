"""The study photographs: labelled pictures in both layouts, the figures of a network, their table; and EfficientNet-Lite0 itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from labelled_images import write_image

from studies.errors import imagenet, photographs
from studies.errors.photograph_answers import Answers, on_host
from tvmmobile.networks.labelled import LabelledImage
from tvmmobile.system.errors import UserError


def test_names_that_begin_with_synsets_are_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "CLASSES", 3)
    for number, name in enumerate(("n00000007_b.JPEG", "n00000001_a.png", "n00000009_c.jpg")):
        write_image(tmp_path / name, number)
    (tmp_path / "README.md").write_text("pictures")
    found = imagenet.pictures_in(tmp_path)
    assert [(one.name, one.label) for one in found] == [("n00000001_a.png", 0), ("n00000007_b.JPEG", 1), ("n00000009_c.jpg", 2)]
    place = imagenet.laid_out(found, tmp_path / "classes")
    assert [(one.label, one.path.name) for one in imagenet.pictures_in(place)] == [(one.label, one.name) for one in found]
    monkeypatch.setattr(imagenet, "CLASSES", 4)
    with pytest.raises(UserError, match="has 3 of 4 synsets, so their classes cannot be told"):
        imagenet.pictures_in(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        imagenet.pictures_in(tmp_path / "absent")


def test_figures_and_their_row() -> None:
    answers = Answers((0, 1, 2, 3, 4), (0, 1, 2, 3, 9), (0, 1, 2, 8, 4), 2, 21.75)
    found = photographs.accuracy("lite0", "mine", "int8", "host", 128, answers)
    assert (found.images, found.calibration, found.floats, found.float32, found.right) == (5, 128, 2, 80.0, 80.0)
    assert (found.lost, found.p_value, found.same) == (0.0, 1.0, 60.0) and 37 < found.low < 38 and 96 < found.high < 97
    row = photographs.table([asdict(found)]).splitlines()[2]
    assert row.startswith("| lite0 | int8 | 5 | 128 | 2 | 80.0 | 80.0 | 37.6 to 96.4 | 0.00 ± ") and row.endswith(" | 1 | 60.0 | 21.8 |")


@pytest.mark.long
def test_a_trained_network_knows_foolboxs_photographs(tmp_path: Path) -> None:
    """With its own preprocessing; in int8, calibrated on half of them, it loses at most one of the other half."""
    file, pictures = imagenet.write_network("lite0", tmp_path), imagenet.foolbox_pictures()

    def right(kind: str, calibrating: tuple[LabelledImage, ...], tested: tuple[LabelledImage, ...]) -> tuple[int, int]:
        found = on_host("lite0", file, kind, calibrating, tested, tmp_path)
        hits = [sum(map(int.__eq__, found.labels, classes)) for classes in (found.exact, found.found)]
        return hits[0], hits[1]

    assert right("float32", (), pictures) == (18, 18)
    exact, integers = right("int8", pictures[0::2], pictures[1::2])
    assert integers >= exact - 1 >= 7
