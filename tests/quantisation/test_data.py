"""Calibration data as users give them, and one sentence for each thing that is wrong with them."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_images import write_image
from trained import write_images

from studies.trained.digits import SIDE, digits, inputs_of
from tvmmobile.graph.layers import Array
from tvmmobile.networks.images import noise_input
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.networks.signature import Port
from tvmmobile.quantisation.data import calibration_data, check_values
from tvmmobile.system.errors import UserError

TAKES = Preprocessing(SIDE, resize=False)


def read(given: Path | str, numbers: list[int] | None = None) -> Array:
    samples = calibration_data(str(given), TAKES, True).samples()
    (batch,) = samples.read(range(samples.count) if numbers is None else numbers)
    return batch


def test_images_are_prepared_as_evaluate_prepares_them(tmp_path: Path) -> None:
    """In class folders or in one, in the order of their paths."""
    folder = write_images(tmp_path / "digits", 12, seed=3)
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in folder.rglob("*.png"):
        shutil.copy(path, flat / f"{path.parent.name}-{path.name}")
    (flat / ".hidden.png").write_text("no image")
    (flat / "notes.txt").write_text("no image either")
    pixels, labels = digits(12, 3)
    expected = inputs_of(pixels[np.argsort(labels, kind="stable")])
    for place in (folder, flat):
        assert np.abs(read(place) - expected).max() < 1e-6
    assert np.abs(read(folder, [11, 0]) - expected[[11, 0]]).max() < 1e-6


def test_tensors_and_noise(tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).normal(0, 1, (5, 3, SIDE, SIDE)).astype(np.float32)
    np.save(tmp_path / "five.npy", arrays)
    np.savez(tmp_path / "parts.npz", a=arrays[:2], b=arrays[2:])
    for name in ("five.npy", "parts.npz"):
        assert (read(tmp_path / name) == arrays).all() and (read(tmp_path / name, [3, 1]) == arrays[[3, 1]]).all()
    assert (read("noise:3")[2] == noise_input(2, (1, 3, SIDE, SIDE))[0]).all()


def test_a_file_that_is_written_anew_while_it_is_read(tmp_path: Path) -> None:
    """Reading a mapped place that the file no longer has would end the process by SIGBUS."""
    path, arrays = tmp_path / "many.npy", np.ones((64, 3, SIDE, SIDE), np.float32)
    for array, order in ((arrays, "C"), (np.asfortranarray(arrays), "F")):
        np.save(path, array)
        images = calibration_data(str(path), TAKES, True).samples()
        assert images.read([63])[0].all(), order
        os.truncate(path, 1000)
        with pytest.raises(UserError, match="has become shorter since it was opened"):
            images.read([63])
    path.unlink()
    with pytest.raises(UserError, match="cannot be read: No such file"):
        images.read([0])


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_one_value_again_and_again(tmp_path: Path, value: float) -> None:
    """Black images have one value. Some input must have another one, be it the last."""
    arrays = np.full((9, 3, SIDE, SIDE), value, np.float32)
    for count in (1, 9):
        np.save(tmp_path / "same.npy", arrays[:count])
        data = calibration_data(str(tmp_path / "same.npy"), TAKES, False)
        with pytest.raises(UserError, match=rf"same\.npy'` holds nothing but {value:g}\."):
            check_values(data, data.samples())
    arrays[-1, 0, 0, 0] = 0.5
    np.save(tmp_path / "same.npy", arrays)
    check_values(data, data.samples())


def test_a_folder_that_changes_after_it_was_listed(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "digits", 22, seed=3)
    data = calibration_data(str(folder), TAKES, False)
    images = data.samples()
    shutil.rmtree(folder / "4")
    assert data.labels(10) == ()
    with pytest.raises(UserError, match=r"4/.* does not exist"):
        images.all()


def test_labels_are_class_folders(tmp_path: Path) -> None:
    """In the order of the images, also of some of them; where it is certain which classes folders are."""
    folder = write_images(tmp_path / "digits", 22, seed=3)
    data = calibration_data(str(folder), TAKES, False)
    labels = data.labels(10)
    assert list(labels) == sorted(number % 10 for number in range(22))
    images = replace(data.samples(), labels=labels)
    assert images.some(4).labels == tuple(labels[place] for place in (0, 5, 11, 16)) and images.part([21, 0]).labels == (9, 0)
    shutil.rmtree(folder / "4")
    assert 4 not in calibration_data(str(folder), TAKES, False).labels(10)
    assert calibration_data(str(folder), TAKES, False).labels(5) == ()


@pytest.mark.parametrize(
    ("names", "certain"),
    [(("cat", "dog", "eel"), True), (("cat", "dog"), False), (("n01440764", "n01443537", "n01484850"), True), (("n01440764",), False)],
)
def test_names_are_labels_where_there_is_a_folder_for_every_class(tmp_path: Path, names: tuple[str, ...], certain: bool) -> None:
    """The network has three classes."""
    for name in names:
        write_image(tmp_path / "photos" / name / "one.png", 0)
    assert calibration_data(str(tmp_path / "photos"), TAKES, False).labels(3) == (tuple(range(len(names))) if certain else ())


def test_other_data_have_no_labels(tmp_path: Path) -> None:
    """Images beside class folders or deeper in them, and what is no folder of images."""
    for number, place in enumerate(("0/deeper/one.png", "one.png")):
        folder = write_images(tmp_path / f"digits{number}", 12, seed=3)
        write_image(folder / place, 0)
        assert calibration_data(str(folder), TAKES, False).labels(10) == ()
    np.save(tmp_path / "one.npy", np.zeros((1, 3, SIDE, SIDE), np.float32))
    for given in ("noise:4", str(tmp_path / "one.npy")):
        assert calibration_data(given, TAKES, True).labels(10) == ()


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many stages ask for it, in this process and in its workers; on another machine it is listed again."""
    folder, listed = write_images(tmp_path / "digits", 4, seed=3), []
    listing = os.walk

    def walk(place: Path, **settings: Any) -> object:
        listed.append(place)
        return listing(place, **settings)

    monkeypatch.setattr(os, "walk", walk)
    data = calibration_data(str(folder), TAKES, False)
    counts = [data.samples().count, data.samples().count, len(data.reads()), pickle.loads(pickle.dumps(data)).samples().count]
    assert counts == [4] * 4 and listed == [folder]
    there = tmp_path / "there" / folder.name
    there.parent.mkdir()
    folder.rename(there)
    assert data.moved(there.parent).samples().read([3])[0].shape == (1, 3, SIDE, SIDE) and listed == [folder, there]


def test_data_move_to_other_machines(tmp_path: Path) -> None:
    folder, there = write_images(tmp_path / "digits", 4, seed=3), tmp_path / "there"
    np.save(tmp_path / "one.npy", np.zeros((1, 3, SIDE, SIDE), np.float32))
    for given in (folder, tmp_path / "one.npy"):
        data = calibration_data(str(given), TAKES, False)
        for name, path in data.reads().items():
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, there / name)
        images = data.moved(there).samples()
        assert (images.read(range(images.count)) == read(given)).all()
    noise = calibration_data("noise:2", TAKES, True)
    assert noise.moved(there) == noise and not noise.reads()


def write(place: Path, kind: str) -> Path:
    """Return a file or folder that cannot be used."""
    good = np.zeros((2, 3, SIDE, SIDE), np.float32)
    if kind == "folder":
        place.mkdir()
    elif kind == "text":
        place = place.with_suffix(".npy")
        place.write_text("text")
    elif kind == "zip":
        place = place.with_suffix(".npz")
        np.savez(place, good)
        place.write_bytes(place.read_bytes()[:-40])
    elif kind == "other file":
        place = place.with_suffix(".npz")
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("notes.txt", "no array")
    elif kind in ("damaged", "encrypted"):
        place = place.with_suffix(".npz")
        np.savez_compressed(place, np.random.default_rng(0).normal(size=good.shape).astype(np.float32))
        content = bytearray(place.read_bytes())
        if kind == "damaged":
            content[200:220] = b"\xff" * 20
        else:
            content[content.index(b"PK\x01\x02") + 8] |= 1
        place.write_bytes(content)
    elif kind == "size":
        place = place.with_suffix(".npy")
        with place.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (-1, 3, SIDE, SIDE)})
            stream.write(bytes(4 * 3 * SIDE * SIDE))
    elif kind == "suffix":
        place = place.with_suffix(".csv")
        place.write_text("1,2")
    elif kind in ("nan", "empty", "side", "double", "objects"):
        place = place.with_suffix(".npy")
        array = {
            "nan": good * np.nan,
            "empty": good[:0],
            "side": good[..., 1:],
            "double": good.astype(float),
            "objects": good.astype(object),
        }[kind]
        np.save(place, array, allow_pickle=True)
    return place


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("missing", "does not exist"),
        ("folder", "has no images in it"),
        ("text", "cannot be read by NumPy"),
        *((kind, "cannot be read by NumPy") for kind in ("zip", "damaged", "encrypted", "size")),
        ("other file", "holds something other than arrays"),
        ("objects", "cannot be read by NumPy"),
        ("suffix", "is neither a folder nor a .npy or .npz file"),
        ("nan", "holds values that are not finite"),
        ("empty", "has no inputs in it"),
        ("side", r"holds float32 \[2, 3, 32, 31\], and the network takes float32 \[N, 3, 32, 32\]"),
        ("double", "holds float64"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, kind: str, fault: str) -> None:
    place = write(tmp_path / "data", kind)
    with pytest.raises(UserError, match=f"`calibrate='{place}'` {fault}") as caught:
        read(place)
    assert caught.value.remedy and "\n" not in caught.value.message


def test_noise_is_for_generated_weights_alone() -> None:
    with pytest.raises(UserError, match="noise cannot calibrate trained weights"):
        calibration_data("noise:4", TAKES, False)


PORTS = (Port("x", (1, 3, SIDE, SIDE)), Port("v", (1, 4)))


def sampled(**changed: Any) -> dict[str, Any]:
    """Five samples for `PORTS`, some of them changed."""
    generator = np.random.default_rng(0)
    return {port.name: generator.normal(0, 1, (5, *port.shape[1:])).astype(np.float32) for port in PORTS} | changed


def test_samples_of_several_inputs(tmp_path: Path) -> None:
    """They are the rows of one file's arrays, or files of a folder as `run` takes them."""
    arrays = sampled()
    np.savez(tmp_path / "rows.npz", **arrays)
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(5):
        np.savez(folder / f"{number}.npz", **{name: array[number : number + 1] for name, array in arrays.items()})
    (folder / "notes.txt").write_text("no sample")
    for place in (tmp_path / "rows.npz", folder):
        samples = calibration_data(str(place), TAKES, False, PORTS).samples()
        assert samples.count == 5
        for found, port in zip(samples.read([3, 0]), PORTS, strict=True):
            assert (found == arrays[port.name][[3, 0]]).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"v": np.zeros((4, 4), np.float32)}, r"rows\.npz'` has 5 of x, 4 of v\."),
        ({"x": np.zeros((0, 3, SIDE, SIDE), np.float32), "v": np.zeros((0, 4), np.float32)}, r"has 0 of x, 0 of v\."),
        ({"v": np.zeros((5, 3), np.float32)}, r"holds float32 \[5, 3\] for v, which is float32 \[N, 4\]\."),
        ({"v": np.zeros((5, 4))}, r"holds float64 \[5, 4\] for v, which is float32 \[N, 4\]\."),
        ({"v": np.full((5, 4), np.nan, np.float32)}, r"holds values that are not finite"),
    ],
)
def test_what_is_wrong_with_rows(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "rows.npz", **sampled(**changed))
    with pytest.raises(UserError, match=message):
        calibration_data(str(tmp_path / "rows.npz"), TAKES, False, PORTS).samples().all()


def test_what_is_wrong_with_files_of_several_inputs(tmp_path: Path) -> None:
    data = calibration_data(str(tmp_path), TAKES, False, PORTS)
    with pytest.raises(UserError, match=r"has no \.npz files in it") as caught:
        data.samples()
    assert "x: float32 [1, 3, 32, 32], v: float32 [1, 4]" in caught.value.remedy
    arrays = sampled()
    for name, content, message in (
        ("lacks", {"x": arrays["x"][:1]}, r"lacks\.npz has no array v"),
        ("rows", arrays, r"rows\.npz holds float32 \[5, 3, 32, 32\] for x, which is float32 \[1, 3, 32, 32\]"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        np.savez(folder / f"{name}.npz", **content)
        with pytest.raises(UserError, match=message):
            calibration_data(str(folder), TAKES, False, PORTS).samples().all()
    np.save(tmp_path / "one.npy", arrays["x"])
    with pytest.raises(UserError, match=r"one\.npy is not a \.npz file, and the network takes x: float32"):
        calibration_data(str(tmp_path / "one.npy"), TAKES, False, PORTS).samples()


@pytest.mark.parametrize("ports", [(), PORTS])
def test_what_is_no_array_is_not_unpacked(tmp_path: Path, ports: tuple[Port, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A member of gigabytes fits into a file of megabytes."""
    path = tmp_path / "large.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x", "v"):
            archive.writestr(f"{name}.npy", bytes(1 << 20))

    def unpacked(*_arguments: object) -> bytes:
        raise AssertionError("all of it was read")

    monkeypatch.setattr(zipfile.ZipFile, "read", unpacked)
    with pytest.raises(UserError, match="holds something other than"):
        calibration_data(str(path), TAKES, True, ports).samples()
