"""`tvmmobile run`: what it takes, what it refuses, how it shows numbers; preprocessing and ranking."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CommandLine
from deployed import CLASSES, SIDE, make_library
from PIL import Image

from tvmmobile.accuracy.classes import most_likely, read_labels
from tvmmobile.devices.registry import find_device
from tvmmobile.networks.images import read_input
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.pipeline import run as run_module
from tvmmobile.pipeline.agreement import failure_of
from tvmmobile.pipeline.run import LibraryRun
from tvmmobile.running.library import find_libraries
from tvmmobile.running.measure import Latency, MeasureError, NetworkRun
from tvmmobile.system.errors import Disagreement, UserError

PLAIN = Preprocessing(SIDE)


def picture(path: Path, width: int = 60, height: int = 40, seed: int = 0) -> Path:
    """Return a smooth image of no symmetry."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = [np.sin(5 * across + seed) * 100 + 120, np.cos(4 * down) * 90 + 100, 200 * across * down + 20]
    Image.fromarray(np.stack(waves, 2).astype(np.uint8)).save(path)
    return path


def test_an_image_is_scaled_cropped_and_normalised(tmp_path: Path) -> None:
    path = picture(tmp_path / "photo.png")
    given = read_input(path, PLAIN)
    # 32 / 0.875 = 36.57: 60 by 40 becomes 54 by 36, of which the middle 32 by 32.
    scaled = Image.open(path).resize((54, 36), Image.Resampling.BICUBIC).crop((11, 2, 43, 34))
    expected = (np.asarray(scaled, np.float64) / 255 - 0.5) / 0.5
    assert given.array.shape == (1, 3, SIDE, SIDE) and given.array.dtype == np.float32 and given.array.flags.c_contiguous
    np.testing.assert_allclose(given.array[0].transpose(1, 2, 0), expected, atol=1e-6)
    assert "60×40; shorter side to 36 (bicubic), middle 32×32, RGB in [0, 1], minus 0.5, over 0.5" in given.origin
    other = read_input(path, Preprocessing(SIDE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
    wanted = (expected * 0.5 + 0.5 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(other.array[0].transpose(1, 2, 0), wanted, atol=1e-5)
    assert "minus (0.485, 0.456, 0.406)" in other.origin


def test_the_same_picture_in_other_forms(tmp_path: Path) -> None:
    path = picture(tmp_path / "photo.png")
    expected, image = read_input(path, PLAIN).array, Image.open(path)
    np.save(tmp_path / "pixels.npy", np.asarray(image))
    np.save(tmp_path / "ready.npy", expected)
    image.convert("RGBA").save(tmp_path / "transparent.webp", lossless=True)
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 270 degrees to see it upright
    turned.save(tmp_path / "turned.png", exif=exif)
    for name in ("pixels.npy", "ready.npy", "transparent.webp", "turned.png"):
        np.testing.assert_array_equal(read_input(tmp_path / name, PLAIN).array, expected, err_msg=name)
    grey = picture(tmp_path / "grey.png")
    Image.open(grey).convert("L").save(grey)
    red, green, blue = read_input(grey, PLAIN).array[0]
    assert (red == green).all() and (red == blue).all()


def test_a_rotated_photo_with_a_tag_of_another_type_is_turned(tmp_path: Path) -> None:
    """Resolutions in text, as some editors write them, cannot be written again by Pillow."""
    turned, resolution = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0), struct.pack("<HHI4s", 0x011A, 2, 3, b"72\0\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + turned + resolution + struct.pack("<I", 0)
    for name in ("photo.jpg", "photo.webp"):
        Image.open(picture(tmp_path / "photo.png", 48, 40)).save(tmp_path / name, exif=exif)
        assert ", 40×48;" in read_input(tmp_path / name, PLAIN).origin


def test_an_image_of_the_networks_size(tmp_path: Path) -> None:
    path = picture(tmp_path / "small.png", SIDE, SIDE)
    as_it_is = Preprocessing(SIDE, resize=False)
    expected = np.asarray(Image.open(path), np.float32) / 255 * 2 - 1
    np.testing.assert_allclose(read_input(path, as_it_is).array[0].transpose(1, 2, 0), expected, atol=1e-6)
    with pytest.raises(UserError, match="60×40; the network takes 32×32"):
        read_input(picture(tmp_path / "photo.png"), as_it_is)


def bad_inputs(folder: Path) -> dict[str, str]:
    """Files that must be refused, and how the complaint about each goes on."""
    good = picture(folder / "good.png", 300, 200).read_bytes()
    (folder / "cut.png").write_bytes(good[: len(good) // 2])
    (folder / "torn.png").write_bytes(good[:60])
    (folder / "text.png").write_text("not an image")
    (folder / "empty.png").touch()
    (folder / "empty.npy").touch()
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(folder / "deep.png")
    Image.fromarray(np.zeros((1, 9000, 3), np.uint8)).save(folder / "strip.png")
    Image.new("1", (14000, 14000)).save(folder / "bomb.png")
    (folder / "pickle.npy").write_bytes(pickle.dumps({"not": "an array"}))
    np.save(folder / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(folder / "shape.npy", np.zeros((1, 3, 31, 32), np.float32))
    np.save(folder / "double.npy", np.zeros((1, 3, SIDE, SIDE), np.float64))
    np.save(folder / "swapped.npy", np.zeros((1, 3, SIDE, SIDE), ">f4"))
    np.save(folder / "nothing.npy", np.zeros((0, 5, 3), np.uint8))
    array = np.zeros((1, 3, SIDE, SIDE), np.float32)
    array[0, 1, 2, 3] = np.nan
    np.save(folder / "nan.npy", array)
    (folder / "short.npy").write_bytes((folder / "nan.npy").read_bytes()[:-1])
    with (folder / "archive.npy").open("wb") as stream:
        np.savez(stream, array)
    (folder / "syntax.npy").write_bytes((folder / "nan.npy").read_bytes().replace(b"}", b"("))
    return {
        "absent.png": "does not exist",
        "cut.png": "cannot be read as an image",
        "torn.png": "cannot be read as an image",
        "text.png": "is not an image",
        "empty.png": "is not an image",
        "empty.npy": "is not an array of numbers",
        "deep.png": "has more than 8 bits a channel",
        "bomb.png": "cannot be read as an image",
        "strip.png": "a strip, not a picture",
        "pickle.npy": "is not an array of numbers",
        "objects.npy": "is not an array of numbers",
        "shape.npy": "holds float32 [1, 3, 31, 32], which this network does not take",
        "double.npy": "holds float64",
        "swapped.npy": "holds >f4",
        "nothing.npy": "holds uint8 [0, 5, 3]",
        "nan.npy": "holds values that are not finite",
        "syntax.npy": "is not an array of numbers",
        "short.npy": "is not an array of numbers",
        "archive.npy": "is an archive",
    }


def test_bad_inputs_are_refused_before_anything_is_started(cli: CommandLine, tmp_path: Path) -> None:
    library = make_library(tmp_path / "out")
    for name, complaint in bad_inputs(tmp_path).items():
        done = cli("run", str(library), str(tmp_path / name), "--device", "pi4-virtual")
        assert done.code == 1 and done.out == "", name
        assert done.err.startswith(f"tvmmobile: error: {tmp_path / name}") and complaint in done.err, done.err
        assert len(done.err.splitlines()) == 2, done.err


def test_bad_libraries_are_refused(cli: CommandLine, tmp_path: Path) -> None:
    image = str(picture(tmp_path / "photo.png"))

    def complaint(library: Path, *more: str) -> str:
        done = cli("run", str(library), image, "--device", "pi4-virtual", *more)
        assert done.code == 1 and done.out == ""
        return done.err

    assert "16 threads, more than the 4 cores of Raspberry Pi 4 Model B" in complaint(make_library(tmp_path / "many", threads=16))
    assert "is not the library its manifest describes" in complaint(make_library(tmp_path / "other", sha256="0" * 64))
    assert "is a directory" in complaint(tmp_path / "many")
    assert "does not exist" in complaint(tmp_path / "absent.so")
    lonely = make_library(tmp_path / "lonely")
    lonely.with_suffix(".json").unlink()
    assert f"{lonely.with_suffix('.json')} does not exist" in complaint(lonely)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--mean", "0.5,0.5"), "--mean 0.5,0.5 is not one number or three"),
        (("--mean", "a"), "--mean a is not"),
        (("--std", "nan"), "--std nan is not"),
        (("--std", "0.5,0,0.5"), "divides by zero"),
        (("--std", "-1"), "cannot normalise pixels"),
        (("--output", "logits.txt"), "does not end in .npy"),
        (("--output", "/proc/nowhere/x.npy"), "--output /proc/nowhere"),
        (("--save-input", "/proc"), "--save-input /proc is a directory"),
        (("--top", "0"), "--top"),
        (("--labels", "absent.txt"), "cannot be read as text"),
        (("--device", "nowhere"), "there is no device 'nowhere'"),
    ],
)
def test_bad_options_are_refused(cli: CommandLine, tmp_path: Path, options: tuple[str, ...], complaint: str) -> None:
    library, image = make_library(tmp_path), picture(tmp_path / "photo.png")
    done = cli("run", str(library), str(image), "--device", "pi4-virtual", *options)
    assert done.code == 1 and complaint in done.err, done.err


def test_hardware_can_be_required(cli: CommandLine, tmp_path: Path) -> None:
    done = cli("run", str(make_library(tmp_path)), str(picture(tmp_path / "photo.png")), "--require-hardware")
    assert done.code == 3 and "--require-hardware" in done.err


def test_labels_are_one_a_class(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("".join(f"thing {number}\n" for number in range(CLASSES)))
    assert read_labels(file, CLASSES)[3] == "thing 3"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes() + b"\n")  # as Windows begins and some editors end it
    assert read_labels(file, CLASSES)[0] == "thing 0"
    file.write_text("background\n" + file.read_text(encoding="utf-8-sig"))
    with pytest.raises(UserError, match="11 lines; the network has 10 classes") as caught:
        read_labels(file, CLASSES)
    assert "background class" in caught.value.remedy
    file.write_bytes(b"\xff\xfe\n" * CLASSES)
    with pytest.raises(UserError, match="cannot be read as text"):
        read_labels(file, CLASSES)


def test_the_most_likely_classes() -> None:
    logits = np.array([[1.0, 1000.0, 999.0, 1000.0, -1e30]], np.float32)
    ranked = most_likely(logits, 3, list("abcde"))
    assert [(entry.index, entry.label) for entry in ranked] == [(1, "b"), (3, "d"), (2, "c")]
    total = 2 + np.exp(-1.0)
    assert [entry.probability for entry in ranked] == pytest.approx([1 / total, 1 / total, np.exp(-1.0) / total])
    with pytest.raises(Disagreement, match="not finite"):
        most_likely(np.array([np.nan, 1.0]), 1, None)


def test_what_does_not_end_is_not_blamed_on_the_core(tmp_path: Path) -> None:
    (library,) = find_libraries([make_library(tmp_path)])
    board = find_device("pi4").profile
    late = failure_of(library, board, MeasureError("did not finish within 177 s", "timeout"))
    assert late.exit_code == 5 and late.message.endswith(".so does not finish on pi4-virtual: did not finish within 177 s.")
    assert "nothing else uses this machine" in late.remedy and "compile" not in late.remedy


def test_outputs_that_are_not_finite_are_saved(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look at them is how their cause is found."""
    scores = np.arange(CLASSES, dtype=np.float32)[None]
    scores[0, 3] = np.nan
    profile, latency = find_device("pi4").profile, Latency("modelled", 1e-3)
    done = LibraryRun(profile, NetworkRun(latency, (scores,), 0, ()), None)
    monkeypatch.setattr(run_module, "run", lambda *_given, **_options: done)
    saved = tmp_path / "scores.npy"
    shown = cli("run", str(make_library(tmp_path)), str(picture(tmp_path / "photo.png")), "--output", str(saved))
    assert shown.code == 5
    assert f"note: the network's output holds values that are not finite. They are in {saved} all the same." in shown.err
    np.testing.assert_array_equal(np.load(saved), scores)


@pytest.mark.virtual
def test_what_the_device_cannot_load(cli: CommandLine, tmp_path: Path) -> None:
    library = make_library(tmp_path, target={"mcpu": "cortex-a76"})
    done = cli("run", str(library), str(picture(tmp_path / "photo.png")), "--device", "pi4-virtual")
    assert done.code == 5 and "does not run on pi4-virtual: " in done.err and "It was compiled for cortex-a76" in done.err


@pytest.mark.virtual
def test_a_library_on_the_virtual_board(cli: CommandLine, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compiled = cli("compile", "--alpha", "0.25", "--resolution", str(SIDE), "--classes", str(CLASSES), "--out", str(out))
    assert compiled.code == 0, compiled.err
    library = compiled.out.strip()
    with np.load(Path(library).with_suffix(".reference.npz")) as reference:
        data, expected = reference["input"], reference["output"]
    np.save(tmp_path / "image.npy", data)
    names = [f"thing {number}" for number in range(CLASSES)]
    (tmp_path / "labels.txt").write_text("\n".join(names))
    arguments = ("run", library, str(tmp_path / "image.npy"), "--device", "pi4-virtual", "--labels", str(tmp_path / "labels.txt"))
    files = ("--output", str(tmp_path / "logits.npy"), "--save-input", str(tmp_path / "image.f32"))

    shown = cli(*arguments, *files)
    assert shown.code == 0, shown.err
    logits = np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(np.fromfile(tmp_path / "image.f32", "<f4").reshape(data.shape), data)
    best = [int(index) for index in np.argsort(-expected[0])[:5]]
    rows = [line.split()[0] for line in shown.out.splitlines() if line.rstrip().endswith("%")]
    assert rows == [str(index) for index in best] and f"thing {best[0]}" in shown.out
    assert "image.npy, float32 1×3×32×32 as it is" in shown.out
    assert all("modelled" in line for line in shown.out.splitlines() if " ms" in line or "first run" in line)

    report: dict[str, Any] = json.loads(cli(*arguments, "--json", "--top", "20").out)
    assert [entry["index"] for entry in report["top"][:5]] == best and len(report["top"]) == CLASSES
    assert sum(entry["probability"] for entry in report["top"]) == pytest.approx(1)
    assert (report["kind"], report["init_ms"], report["first_run_ms"], report["samples_ms"]) == ("modelled", None, None, [])
    assert f"{report['latency_ms']:.3f} ms modelled" in shown.out
