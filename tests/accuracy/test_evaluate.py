"""`tvmmobile evaluate`: labels, counts beside the original's, networks from files, wrong ones, damaged images, interruption, refusals."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Command
from conftest import CommandLine
from deployed import CLASSES, SIDE, make_library
from json_schemas import evaluation_schema
from jsonschema import Draft202012Validator
from labelled_images import write_image
from network_files import SIDE as NET_SIDE
from network_files import module_of, write_onnx, write_python
from registered_boards import make_board, make_home, register

import tvmmobile
from tvmmobile.accuracy.evaluation_file import ImageResult
from tvmmobile.cli import run
from tvmmobile.networks.images import check_header, noise_input, read_input
from tvmmobile.networks.labelled import LabelledFolder, evenly_spaced, read_folder
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.running.library import find_libraries
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import sha256_of

STEM = f"mobilenet_v1_0.25_{SIDE}_float32_t1"
SPEC = ModelSpec(alpha=0.25, resolution=SIDE, classes=CLASSES)
IMAGES = 40
SEEDED = "seeded kaiming, seed 0"


@dataclass(frozen=True)
class Compiled:
    """A library of weights from seed 0, and images with labels of our choice.

    Attributes:
        logits: PyTorch's with seed 0, by image name.
        labels: the labels, by image name.
    """

    library: Path
    folder: Path
    logits: dict[str, np.ndarray[Any, Any]]
    labels: dict[str, int]

    def with_weights(self, weights: str, folder: Path) -> Path:
        """Return a copy of the library whose manifest says that its weights are these."""
        for file in self.library.parent.glob(f"{STEM}.*"):
            shutil.copy(file, folder)
        copy = folder / self.library.name
        manifest = json.loads(copy.with_suffix(".json").read_text())
        assert manifest["weights"] == SEEDED
        copy.with_suffix(".json").write_text(json.dumps(manifest | {"weights": weights}))
        return copy

    def ranked(self, name: str) -> list[int]:
        """PyTorch's classes, most likely first."""
        return [int(index) for index in np.argsort(-self.logits[name], kind="stable")]

    def hits(self, names: list[str], most: int) -> int:
        """Images whose label is among PyTorch's `most` likeliest classes."""
        return sum(self.labels[name] in self.ranked(name)[:most] for name in names)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    place = tmp_path_factory.mktemp("evaluate")
    words = ("compile", "--alpha", "0.25", "--resolution", str(SIDE), "--classes", str(CLASSES))
    assert run((*words, "--out", str(place / "out"))) == 0
    module = build_torch_model(SPEC).module
    logits, labels = {}, {}
    for seed in range(IMAGES):
        drawn = write_image(place / f"{seed:03}.png", seed)
        with torch.no_grad():
            output = module(torch.from_numpy(read_input(drawn, Preprocessing(SIDE)).array)).numpy()[0]
        # By turns: right, the third likeliest, the least likely.
        label = int(np.argsort(-output, kind="stable")[(0, 2, CLASSES - 1)[seed % 3]])
        name = f"{label}/{drawn.name}"
        (place / "images" / str(label)).mkdir(parents=True, exist_ok=True)
        drawn.rename(place / "images" / name)
        logits[name], labels[name] = output, label
    return Compiled(place / "out" / f"{STEM}.so", place / "images", logits, labels)


def evaluation_in(out: Path) -> dict[str, Any]:
    """Return the file that was written, once the schema has found nothing wrong."""
    content: dict[str, Any] = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    Draft202012Validator(evaluation_schema()).validate(content)
    return content


def lines_in(out: Path) -> list[dict[str, str]]:
    with (out / "evaluation.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def check_counts(evaluation: dict[str, Any], compiled: Compiled, names: list[str]) -> None:
    """Every count is the one that PyTorch's own logits give."""
    for who in ("library", "original"):
        assert (evaluation[who]["top1"], evaluation[who]["top5"]) == (compiled.hits(names, 1), compiled.hits(names, 5))
        assert evaluation[who]["top1_percent"] == pytest.approx(100 * compiled.hits(names, 1) / len(names))
        assert evaluation[who]["top5_percent"] == pytest.approx(100 * compiled.hits(names, 5) / len(names))
    count = len(names)
    assert [evaluation[key] for key in ("evaluated", "same_top1", "same_top5", "beyond_tolerance")] == [count, count, count, 0]
    assert 0 < evaluation["largest_deviation"] < 1e-5
    assert [image["image"] for image in evaluation["images"]] == names
    for image in evaluation["images"]:
        assert image["label"] == compiled.labels[image["image"]] and image["original_top5"] == compiled.ranked(image["image"])[:5]


@pytest.mark.virtual
def test_counts_are_pytorchs_own(cli: CommandLine, compiled: Compiled, tmp_path: Path) -> None:
    done = cli("evaluate", str(compiled.library), str(compiled.folder), "--device", "pi4-virtual", "--out", str(tmp_path))
    assert done.code == 0, done.err
    evaluation, names = evaluation_in(tmp_path), sorted(compiled.labels)
    check_counts(evaluation, compiled, names)
    assert evaluation["complete"] and 0 < evaluation["library"]["top1"] < evaluation["library"]["top5"] < IMAGES
    context = evaluation["context"]
    assert context["library_sha256"] == sha256_of(compiled.library) and context["weights"] == SEEDED
    assert (context["device"], context["kind"], context["images_found"], context["images_chosen"]) == ("pi4-virtual", "virtual", 40, 40)

    lines = lines_in(tmp_path)
    assert [line["image"] for line in lines] == names
    assert sum(int(line["library_hit1"]) for line in lines) == evaluation["library"]["top1"]
    assert sum(int(line["original_hit5"]) for line in lines) == evaluation["original"]["top5"]
    assert [int(line["library_top5"].split()[0]) for line in lines] == [int(line["library_top1"]) for line in lines]

    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines() if line.split()}
    top1, top5 = compiled.hits(names, 1), compiled.hits(names, 5)
    hits = [f"{100 * top1 / IMAGES:.2f}", str(top1), f"{100 * top5 / IMAGES:.2f}", str(top5)]
    assert rows["PyTorch"] == hits and rows["library"] == [*hits, "0.00", "±", f"{evaluation['top1_loss']['margin']:.2f}", "1"]
    assert evaluation["top1_loss"]["points"] == 0 and evaluation["top1_loss"]["p_value"] == 1
    assert "preprocessing: shorter side to 36 (bicubic), middle 32×32, RGB in [0, 1], minus 0.5, over 0.5" in done.out
    assert "labels: class folders by number" in done.out
    assert "the same top-1 on 40 of 40 images, the same top-5 set on 40" in done.out


@pytest.mark.long
def test_a_library_for_tvm_is_counted_alike(cli: CommandLine, compiled: Compiled, tmp_path: Path) -> None:
    words = ("compile", "--alpha", "0.25", "--resolution", str(SIDE), "--classes", str(CLASSES), "--format", "vm")
    assert cli(*words, "--out", str(tmp_path / "vm")).code == 0
    done = cli("evaluate", str(tmp_path / "vm" / f"{STEM}.so"), str(compiled.folder), "--limit", "10", "--out", str(tmp_path))
    assert done.code == 0, done.err
    check_counts(evaluation_in(tmp_path), compiled, sorted(compiled.labels)[::4])


@pytest.mark.virtual
def test_some_images_evenly_spaced(cli: CommandLine, compiled: Compiled, tmp_path: Path) -> None:
    words = ("evaluate", str(compiled.library), str(compiled.folder), "--out", str(tmp_path), "--limit", "10")
    done = cli(*words)
    assert done.code == 0, done.err
    check_counts(evaluation_in(tmp_path), compiled, sorted(compiled.labels)[::4])
    assert "40 images" in done.out and "10 of them evenly spaced over the sorted list" in done.out


@pytest.mark.virtual
def test_another_librarys_weights_are_a_disagreement(cli: CommandLine, compiled: Compiled, tmp_path: Path) -> None:
    """The library computes with weights from seed 0, and its manifest names seed 1."""
    wrong = compiled.with_weights("seeded kaiming, seed 1", tmp_path)
    done = cli("evaluate", str(wrong), str(compiled.folder), "--limit", "6", "--out", str(tmp_path / "out"))
    assert done.code == 5 and f"{STEM}.so disagrees with PyTorch on 6 of 6 images" in done.err
    evaluation = evaluation_in(tmp_path / "out")
    assert evaluation["complete"] and evaluation["beyond_tolerance"] == 6 and evaluation["largest_deviation"] > 1e-2
    names = sorted(compiled.labels)
    assert evaluation["library"]["top1"] == compiled.hits([names[number * IMAGES // 6] for number in range(6)], 1)
    assert "PyTorch" in done.out, "the counts are shown all the same"


@pytest.mark.virtual
def test_an_image_whose_end_is_missing_is_named_and_not_counted(cli: CommandLine, compiled: Compiled, tmp_path: Path) -> None:
    names = sorted(compiled.labels)[:6]
    for name in names:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(compiled.folder / name, tmp_path / "images" / name)
    torn = tmp_path / "images" / names[2]
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    done = cli("evaluate", str(compiled.library), str(tmp_path / "images"), "--out", str(tmp_path / "out"))
    assert done.code == 1 and f"1 of 6 images could not be read and are not counted: {names[2]}." in done.err
    evaluation = evaluation_in(tmp_path / "out")
    assert (evaluation["complete"], evaluation["evaluated"], evaluation["unreadable"]) == (True, 5, 1)
    whole = [name for name in names if name != names[2]]
    assert evaluation["library"]["top1"] == compiled.hits(whole, 1) and evaluation["same_top5"] == 5
    assert f"{torn} cannot be read as an image" in evaluation["images"][2]["problem"]
    line = lines_in(tmp_path / "out")[2]
    assert line["library_top1"] == line["same_top1"] == line["deviation"] == "" and line["problem"]


@pytest.mark.virtual
def test_ctrl_c_keeps_what_is_there(compiled: Compiled, tmp_path: Path) -> None:
    for number in range(4000):
        (tmp_path / "images" / "0").mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / "0" / f"{number:04}.png").symlink_to(compiled.folder / sorted(compiled.labels)[number % IMAGES])
    command = Command(tmp_path, "evaluate", str(compiled.library), str(tmp_path / "images"), "--out", str(tmp_path / "out"))

    def in_the_third_session() -> bool:
        sessions = command.temporary.glob("tvmmobile-*/agent-*/session-*")
        return any(int(path.name.removeprefix("session-")) >= 3 for path in sessions)

    command.wait_until(in_the_third_session)
    agents = command.agents()
    assert agents and not any("-plugin" in agent.cmdline() for agent in agents)
    command.signal_group(signal.SIGINT)
    code, out = command.wait(30)
    assert code == 130 and out == "" and command.errors.endswith("tvmmobile: interrupted\n"), command.errors
    evaluation = evaluation_in(tmp_path / "out")
    done = len(evaluation["images"])
    assert not evaluation["complete"] and 0 < done < 4000 == evaluation["context"]["images_chosen"]
    assert f"partial: {done} of 4000 images are in " in command.errors
    assert evaluation["evaluated"] == done == len(lines_in(tmp_path / "out"))
    assert evaluation["beyond_tolerance"] == 0
    assert command.leftovers() == [] and list(command.temporary.iterdir()) == []


@pytest.mark.virtual
def test_on_a_registered_board(cli: CommandLine, compiled: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = make_board(tmp_path / "board", make_home(tmp_path, monkeypatch))
    try:
        register(cli, board)
        done = cli("evaluate", str(compiled.library), str(compiled.folder), "--device", "desk", "--out", str(tmp_path / "out"))
        assert done.code == 0, done.err
        evaluation = evaluation_in(tmp_path / "out")
        check_counts(evaluation, compiled, sorted(compiled.labels))
        assert (evaluation["context"]["device"], evaluation["context"]["kind"]) == ("desk", "emulated")
        assert board.leftovers() == []
    finally:
        board.server.stop()


@pytest.mark.virtual
def test_a_checkpoint_is_compared_by_its_contents(cli: CommandLine, compiled: Compiled, tmp_path: Path) -> None:
    for seed in (0, 1):
        torch.save(build_torch_model(SPEC, seed=seed).module.state_dict(), tmp_path / f"{seed}.pth")
    library = compiled.with_weights(build_torch_model(SPEC, tmp_path / "0.pth").weights, tmp_path)

    def evaluate(*more: str) -> tuple[int, str]:
        done = cli("evaluate", str(library), str(compiled.folder), "--limit", "8", "--out", str(tmp_path / "out"), *more)
        return done.code, done.err

    assert evaluate("--checkpoint", str(tmp_path / "0.pth"))[0] == 0
    check_counts(evaluation_in(tmp_path / "out"), compiled, sorted(compiled.labels)[::5])
    one = shutil.copytree(compiled.folder / sorted(compiled.labels)[0].partition("/")[0], tmp_path / "one" / "2").parent
    done = cli("evaluate", str(library), str(one), "--checkpoint", str(tmp_path / "0.pth"))
    assert done.code == 0 and f"All {len(list(one.rglob('*.png')))} images have class 2: top-1 means little." in done.out
    code, message = evaluate("--checkpoint", str(tmp_path / "1.pth"))
    assert code == 1 and "1.pth is not the one that" in message and sha256_of(tmp_path / "0.pth") in message
    code, message = evaluate()
    assert code == 1 and "was compiled from a checkpoint" in message and sha256_of(tmp_path / "0.pth") in message
    code, message = evaluate("--checkpoint", str(tmp_path / "absent.pth"))
    assert code == 1 and "absent.pth is not a file" in message


@pytest.mark.virtual
@pytest.mark.parametrize(("name", "judge"), [("net.py:separable", "PyTorch"), ("net.onnx", "ONNX Runtime")])
def test_networks_from_files(cli: CommandLine, tmp_path: Path, name: str, judge: str) -> None:
    module = module_of(write_python(tmp_path), "separable", seed=3)
    write_onnx(module, tmp_path / "net.onnx")
    model, seed = str(tmp_path / name), ("--seed", "3") if name.endswith("separable") else ()
    compiled = cli("compile", "--model", model, "--resolution", str(NET_SIDE), *seed, "--out", str(tmp_path / "out"))
    assert compiled.code == 0, compiled.err
    (library,) = (tmp_path / "out").glob("*.so")
    folder = class_folders(tmp_path / "images", "0", "4", "9")
    np.save(folder / "4" / "ready.npy", read_input(folder / "9" / "photo.png", Preprocessing(NET_SIDE)).array)

    def evaluate(*more: str) -> tuple[int, str, str]:
        done = cli("evaluate", str(library), str(folder), "--out", str(tmp_path / "evaluated"), *more)
        return done.code, done.out, done.err

    code, out, message = evaluate("--model", model)
    assert code == 0, message
    evaluation = evaluation_in(tmp_path / "evaluated")
    assert evaluation["context"]["judge"].startswith(f"{judge} ") and f"\n {judge} " in out
    for image in evaluation["images"]:
        with torch.no_grad():
            answer = module(torch.from_numpy(read_input(folder / image["image"], Preprocessing(NET_SIDE)).array))[0]
        assert image["library_top5"] == answer.argsort(descending=True)[:5].tolist()
    assert (evaluation["evaluated"], evaluation["same_top5"], evaluation["beyond_tolerance"]) == (4, 4, 0)

    code, _, message = evaluate()
    assert code == 1 and f"is a network from a file ({'separable' if seed else 'net'})" in message and "--model" in message
    code, _, message = evaluate("--model", model, "--checkpoint", str(tmp_path / "net.py"))
    assert code == 1 and "was compiled with " in message and "Leave out --checkpoint" in message
    code, _, message = evaluate("--model", "mobilenet_v1")
    assert code == 1 and "--model mobilenet_v1 is not a file" in message
    code, _, message = evaluate("--model", str(write_onnx(module_of(tmp_path / "net.py", "separable", seed=4), tmp_path / "other.onnx")))
    assert code == 1 and "other.onnx is not the network that" in message and "SHA-256" in message


def class_folders(folder: Path, *names: str) -> Path:
    """Return a folder with an image in each of these class folders."""
    for number, name in enumerate(names):
        write_image(folder / name / "photo.png", number)
    return folder


def labels_of(found: LabelledFolder) -> dict[str, int]:
    return {image.name.partition("/")[0]: image.label for image in found.images}


def test_how_class_folders_become_labels(tmp_path: Path) -> None:
    names = [f"n{number:08} thing {number}" for number in range(5)]
    synsets = class_folders(tmp_path / "synsets", "n00000004", "n00000001", "n00000003", "n00000002", "n00000000")
    found = read_folder(synsets, 5)
    assert labels_of(found) == {f"n{number:08}": number for number in range(5)} and "5 synsets, sorted" in found.rule
    some = class_folders(tmp_path / "some", "n00000003", "n00000001")
    assert labels_of(read_folder(some, 5, names)) == {"n00000001": 1, "n00000003": 3}
    with pytest.raises(UserError, match="has 2 synsets but the network 5 classes") as caught:
        read_folder(some, 5)
    assert "`labels`" in caught.value.remedy
    whole = class_folders(tmp_path / "whole", "great owl", "shark")
    assert labels_of(read_folder(whole, 3, ["shark", "great shark", "great owl"])) == {"great owl": 2, "shark": 0}
    numbers = class_folders(tmp_path / "numbers", "07", "3", "10")
    assert labels_of(read_folder(numbers, 11)) == {"07": 7, "3": 3, "10": 10}
    words = class_folders(tmp_path / "words", "dog", "cat")
    found = read_folder(words, 10)
    assert labels_of(found) == {"cat": 0, "dog": 1}
    assert found.rule == "class folders in alphabetical order, from class 0"


def test_what_is_no_image_is_left_alone(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "images", "a", "b")
    (folder / "a" / "notes.txt").write_text("x")
    (folder / "a" / ".hidden.png").write_text("x")
    (folder / "README").write_text("x")
    (folder / ".git").mkdir()
    write_image(folder / "b" / "ANOTHER.JPEG", 3)
    (folder / "c").mkdir()
    found = read_folder(folder, 10)
    assert [image.name for image in found.images] == ["a/photo.png", "b/ANOTHER.JPEG", "b/photo.png"]
    assert (found.class_folders, found.others) == (3, 1)


def test_arrays_in_class_folders_are_inputs(tmp_path: Path) -> None:
    """A network that takes no images cannot be evaluated otherwise."""
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        np.save(tmp_path / str(number) / "digit.npy", noise_input(number, (1, 1, 28, 28)))
    images = read_folder(tmp_path, 10).images
    assert [(image.name, image.label) for image in images] == [("0/digit.npy", 0), ("1/digit.npy", 1)]
    takes = [Preprocessing(28, channels=1), Preprocessing(28, shape=(1, 28, 28, 1)), Preprocessing(28)]
    check_header(images[0].path, takes[0])
    for other in takes[1:]:
        with pytest.raises(UserError, match=r"holds float32 \[1, 1, 28, 28\], which this network does not take"):
            check_header(images[0].path, other)
    for other in takes[:2]:
        with pytest.raises(UserError, match="is not an array, and the network takes"):
            check_header(write_image(tmp_path / "photo.png", 0), other)
    np.save(tmp_path / "pixels.npy", np.zeros((30, 40, 3), np.uint8))
    check_header(tmp_path / "pixels.npy", takes[2])


def test_evenly_spaced(tmp_path: Path) -> None:
    images = read_folder(class_folders(tmp_path, *(f"{number}" for number in range(7))), 10).images
    assert [image.label for image in evenly_spaced(images, 3)] == [0, 2, 4]
    assert [image.label for image in evenly_spaced(images, 7)] == list(range(7))
    assert evenly_spaced(images, None) == evenly_spaced(images, 100) == images


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "has no class folders"),
        ([f"c{number}" for number in range(CLASSES + 1)], f"has 11 class folders, more than the network's {CLASSES} classes"),
        (["1", "10"], "has the class folder 10, and the network has the classes 0 to 9"),
        (["7", "07"], "has the class folder 07, which appears twice"),
        (["n01440764", "n01443537"], "has 2 synsets but the network 10 classes"),
    ],
)
def test_folders_that_are_refused(cli: CommandLine, tmp_path: Path, names: list[str], complaint: str) -> None:
    library = make_library(tmp_path / "library", weights=SEEDED)
    folder = class_folders(tmp_path / "images", *names)
    folder.mkdir(exist_ok=True)
    done = cli("evaluate", str(library), str(folder), "--out", str(tmp_path / "out"))
    assert done.code == 1 and done.out == "" and complaint in done.err and len(done.err.splitlines()) == 2, done.err
    assert not (tmp_path / "out").exists()


def test_images_without_class_folders_have_no_labels(cli: CommandLine, tmp_path: Path) -> None:
    library = make_library(tmp_path / "library", weights=SEEDED)
    for number in range(2):
        write_image(tmp_path / "images" / f"{number}.png", number)
    done = cli("evaluate", str(library), str(tmp_path / "images"))
    assert done.code == 1 and "images has no class folders, so its images have no labels." in done.err and "FOLDER/CLASS/IMAGE" in done.err


@pytest.mark.parametrize(
    ("weights", "options", "complaint"),
    [
        (SEEDED, ("--limit", "0"), "--limit"),
        (SEEDED, ("--checkpoint", "x.pth"), "was compiled with generated weights (seeded kaiming, seed 0)"),
        (SEEDED, ("--model", "net.onnx"), "is the built-in network mobilenet_v1"),
        (SEEDED, ("--labels", "absent.txt"), "cannot be read as text"),
        (SEEDED, ("--std", "0"), "--std 0 divides by zero"),
        (SEEDED, ("--out", "/proc/nowhere"), "--out /proc/nowhere"),
        (SEEDED, ("--device", "nowhere"), "there is no device 'nowhere'"),
        (SEEDED, ("--no-resize",), "48×40; the network takes 32×32"),
        ("checkpoint sha256 " + "0" * 64, (), "was compiled from a checkpoint"),
        ("found in the street", (), "has unknown weights: 'found in the street'"),
    ],
)
def test_bad_options_are_refused(cli: CommandLine, tmp_path: Path, weights: str, options: tuple[str, ...], complaint: str) -> None:
    library = make_library(tmp_path / "library", weights=weights)
    folder = class_folders(tmp_path / "images", "0")
    done = cli("evaluate", str(library), str(folder), "--out", str(tmp_path / "out"), *options)
    assert done.code == 1 and done.out == "" and complaint in done.err, done.err
    assert not (tmp_path / "out").exists()


def test_a_single_number_is_no_class(cli: CommandLine, tmp_path: Path) -> None:
    """Every image would be classified correctly."""
    model = {"name": "mobilenet_v1", "alpha": 0.25, "resolution": SIDE, "activation": "relu6", "classes": 1}
    library = make_library(tmp_path / "library", weights=SEEDED, model=model, output={"shape": [1, 1]})
    arrays = {"input": np.zeros((1, 3, SIDE, SIDE), np.float32), "output": np.zeros((1, 1), np.float32)}
    np.savez(library.with_suffix(".reference.npz"), **arrays)
    done = cli("evaluate", str(library), str(class_folders(tmp_path / "images", "0")), "--out", str(tmp_path / "out"))
    assert done.code == 1 and f"{library.name} returns no scores of classes, but output: float32 [1, 1]" in done.err, done.err


def test_a_limit_leaves_images(tmp_path: Path) -> None:
    (library,) = find_libraries([make_library(tmp_path / "library", weights=SEEDED)])
    with pytest.raises(UserError, match=r"^`limit=0` is too small\.\nGive `limit=1` or more\.$"):
        tvmmobile.evaluate(library, class_folders(tmp_path / "images", "0"), limit=0)


def test_labels_that_do_not_fit_are_refused(cli: CommandLine, tmp_path: Path) -> None:
    library, folder = make_library(tmp_path / "library", weights=SEEDED), class_folders(tmp_path / "images", "cat", "great", "newt")
    lines = ["cat", "great owl", "great shark", *(f"thing {number}" for number in range(CLASSES - 3))]

    def complaint(text: list[str]) -> str:
        (tmp_path / "labels.txt").write_text("\n".join(text))
        done = cli("evaluate", str(library), str(folder), "--labels", str(tmp_path / "labels.txt"), "--out", str(tmp_path / "out"))
        assert done.code == 1 and done.out == "" and len(done.err.splitlines()) == 2
        return done.err

    assert "newt, which --labels does not have" in complaint(lines)
    assert "great, which several lines of --labels begin with" in complaint([*lines[:-1], "newt"])
    assert "9 lines; the network has 10 classes" in complaint(lines[1:])


def test_damaged_headers_are_named_before_anything_is_started(cli: CommandLine, tmp_path: Path) -> None:
    library, folder = make_library(tmp_path / "library", weights=SEEDED), class_folders(tmp_path / "images", "0", "1")
    (folder / "0" / "text.png").write_text("not an image")
    done = cli("evaluate", str(library), str(folder), "--out", str(tmp_path / "out"))
    assert done.code == 1 and f"{folder / '0' / 'text.png'} is not an image" in done.err
    (folder / "1" / "empty.jpg").touch()
    done = cli("evaluate", str(library), str(folder), "--out", str(tmp_path / "out"))
    assert done.code == 1 and "2 images cannot be used: 0/text.png, 1/empty.jpg." in done.err and len(done.err.splitlines()) == 2
    assert not (tmp_path / "out").exists()


def test_hardware_can_be_required(cli: CommandLine, tmp_path: Path) -> None:
    library, folder = make_library(tmp_path / "library", weights=SEEDED), class_folders(tmp_path / "images", "0")
    done = cli("evaluate", str(library), str(folder), "--require-hardware")
    assert done.code == 3 and "--require-hardware" in done.err


def test_outputs_that_are_not_finite_agree_with_nothing() -> None:
    lost = ImageResult("a/b.png", 0, (), (), None)
    assert lost.disagrees(1e-4) and not lost.same_top1 and not lost.same_top5
    assert not ImageResult("a/b.png", 0, (1, 2), (1, 2), 1e-4).disagrees(1e-4)
    assert not ImageResult("a/b.png", 0, (), (), None, "torn").disagrees(1e-4)
    assert ImageResult("a/b.png", 0, (1, 2, 3), (1, 3, 2), 0.0).same_top5
