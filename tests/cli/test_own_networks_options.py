"""Networks of the user's own from the command line: what is refused at once, and the way to libraries on the virtual Pi 4."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from commands import Ended, ended_here
from conftest import CommandLine
from network_files import SIDE, SOURCE, convolution, module_of, write_model, write_onnx, write_pt2, write_python

from tvmmobile.networks.models.spec import OwnSpec
from tvmmobile.networks.own.files import side_from
from tvmmobile.results.file import read_results
from tvmmobile.running.library import find_libraries
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import sha256_of
from tvmmobile.virtual.elf import read_elf

STEM = f"small_1.0_{SIDE}_float32_t1"


# Said at once


@pytest.mark.parametrize("verb", ["tune", "compile"])
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model", "net.py:small", "--alpha", "0.5"], "--alpha is for built-in networks"),
        (["--model", "net.py:small", "--activation", "relu"], "--activation is for built-in networks"),
        (["--model", "net.onnx", "--classes", "10"], "--classes is for built-in networks"),
        (["--model", "net.onnx", "--resolution", "9"], "net.onnx takes only images of side 8, not 9"),
        (["--model", "net.py:small", "--resolution", "-1"], "resolution -1 is not positive"),
        (["--model", "net.onnx", "--checkpoint", "net.py"], "net.onnx holds its own weights"),
        (["--model", "net.py:small", "--checkpoint", "gone.pt"], "checkpoint gone.pt is not a file"),
        (["--model", "net.py:large"], "net.py has no function large"),
        (["--model", "gone.pt2"], "gone.pt2 cannot be read: No such file"),
        (["--model", "net.py"], "does not say which function returns the network"),
    ],
)
def test_what_a_file_cannot_be_asked(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str, arguments: list[str], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_python(tmp_path)
    write_model(tmp_path / "net.onnx", convolution())
    before = sorted(tmp_path.iterdir())
    outcome = cli(verb, "--out", "results", *arguments)
    assert outcome.code == 1 and outcome.out == ""
    lines = outcome.err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("tvmmobile: error: ") and complaint in lines[0] and lines[1]
    assert sorted(tmp_path.iterdir()) == before  # not even a cache of Python's


# One story: tuned from Python, then compiled from the other formats with its records


@dataclass(frozen=True)
class Story:
    """The folders and outputs of the story.

    Attributes:
        tuned: the output of `tune`.
    """

    folder: Path
    tuned: str

    @property
    def logs(self) -> str:
        return str(self.folder / "logs")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    python = write_python(folder)
    module = module_of(python)
    write_pt2(module, folder / "small.pt2")
    write_onnx(module, folder / "small.onnx")
    words = ("tune", "--model", "net.py:small", "--resolution", str(SIDE), "--trials", "1", "--logs", str(folder / "logs"))
    done = ended_here(folder, *words, "--out", str(folder / "python"))
    assert done.code == 0, done.errors
    return Story(folder, done.out)


def compiled(story: Story, file: str) -> tuple[Path, Ended]:
    """Return the library of a file, compiled with the story's records."""
    out = story.folder / file.partition(".")[2]
    done = ended_here(story.folder, "compile", "--model", file, "--logs", story.logs, "--out", str(out))
    assert (done.code, done.out) == (0, f"{out / STEM}.so\n"), done.errors
    return out, done


def test_sizes() -> None:
    assert [side_from(text) for text in ("160", "96x128", "64×64")] == [160, (96, 128), 64]
    for text in ("", "x", "96x", "1x2x3", "9.5"):
        with pytest.raises(UserError, match="is not a size"):
            side_from(text)


@pytest.mark.virtual
def test_a_c_library_is_timed_and_written(story: Story) -> None:
    """No other file is written."""
    out = story.folder / "python"
    assert {path.name for path in out.iterdir() if path.name.startswith(STEM)} == {
        f"{STEM}{suffix}" for suffix in (".so", ".h", ".json", ".reference.npz", "Config.cmake")
    }
    assert json.loads((out / f"{STEM}.json").read_text())["format"] == "c" and read_elf(out / f"{STEM}.so").machine == "AArch64"
    (variant,) = read_results(out / "report.json").variants
    assert variant.format == "c" and variant.kernels_us is not None and ", C library" in story.tuned


@pytest.mark.virtual
def test_a_python_file_is_tuned_and_reported(story: Story) -> None:
    out = story.folder / "python"
    assert "small, float32, 1 thread" in story.tuned and re.search(r"No template takes \d of \d+ kernels", story.tuned)
    (variant,) = read_results(out / "report.json").variants
    assert variant.model == "small" and variant.network_sha256 == sha256_of(story.folder / "net.py")
    assert variant.reference.startswith("PyTorch") and variant.top1 is None and variant.max_error < 1e-5
    others = [kernel.name for kernel in variant.kernels if kernel.fallback]
    assert others and any("_silu_" in kernel.name for kernel in variant.kernels if not kernel.fallback)
    for name in ("report.md", "report.html", "report-kernels.csv"):
        text = (out / name).read_text().replace("\\", "")
        assert all(kernel in text for kernel in others)
    assert "those of a network from a file in its graph" in (out / "report.md").read_text()


@pytest.mark.virtual
def test_its_manifest_says_what_it_was_made_of(story: Story) -> None:
    (library,) = find_libraries([story.folder / "python"])
    assert isinstance(library.spec, OwnSpec) and library.spec.output_shape == (1, 5)
    manifest = library.manifest()
    assert manifest["model"] == {
        "name": "small",
        "alpha": 1.0,
        "resolution": SIDE,
        "activation": "",
        "classes": 5,
        "file": "net.py:small",
        "contents": sha256_of(story.folder / "net.py"),
    }
    assert manifest["input"]["shape"] == [1, 3, SIDE, SIDE] and manifest["output"]["shape"] == [1, 5]
    assert manifest["weights"].startswith("net.py:small sha256 ") and manifest["macs"] > manifest["parameters"] > 0


@pytest.mark.virtual
def test_a_pt2_is_compiled_from_its_records(story: Story) -> None:
    out, done = compiled(story, "small.pt2")
    assert "have no record" not in done.errors and re.search(r"No template takes \d of \d+ kernels", done.errors)
    tuned, again = (json.loads((folder / f"{STEM}.json").read_text()) for folder in (story.folder / "python", out))
    assert [kernel["name"] for kernel in again["kernels"]] == [kernel["name"] for kernel in tuned["kernels"]]
    bench = ended_here(story.folder, "bench", str(out), "--out", str(out))
    assert bench.code == 0, bench.errors
    (variant,) = read_results(out / "report.json").variants
    assert variant.max_error < 1e-5 and variant.network_sha256 == sha256_of(story.folder / "small.pt2")


@pytest.mark.virtual
def test_an_onnx_model_is_compiled_and_run(story: Story) -> None:
    out, _ = compiled(story, "small.onnx")
    manifest = json.loads((out / f"{STEM}.json").read_text())
    assert manifest["reference"].startswith("ONNX Runtime") and all(kernel["latency_us"] for kernel in manifest["kernels"])
    with np.load(out / f"{STEM}.reference.npz") as reference:
        np.save(story.folder / "image.npy", reference["input"])
        expected = reference["output"]
    words = ("run", str(out / f"{STEM}.so"), "image.npy", "--output", str(story.folder / "logits.npy"))
    done = ended_here(story.folder, *words)
    assert done.code == 0 and "probability" in done.out, done.errors
    np.testing.assert_allclose(np.load(story.folder / "logits.npy"), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.long
@pytest.mark.virtual
def test_an_output_that_is_no_row_of_classes(story: Story) -> None:
    """The input is not a photograph either."""
    text = SOURCE.replace("    return small(1),", "    return nn.Sequential(*unit(1, 8, 3), nn.Conv2d(8, 2, 1)),")
    write_python(story.folder, text, "gray.py")
    out = story.folder / "gray"
    done = ended_here(story.folder, "compile", "--model", "gray.py:gray", "--logs", story.logs, "--out", str(out))
    assert done.code == 0, done.errors
    np.save(story.folder / "gray.npy", np.zeros((1, 1, 24, 24), np.float32))
    done = ended_here(story.folder, "run", str(out / "gray_1.0_24_float32_t1.so"), "gray.npy")
    assert done.code == 0 and "The output is not a vector of classes" in done.out, done.errors


@pytest.mark.long
@pytest.mark.virtual
def test_a_dry_run_names_the_kernels_without_a_template(story: Story) -> None:
    done = ended_here(story.folder, "tune", "--model", "small.onnx", "--logs", story.logs, "--out", "dry", "--dry-run")
    assert done.code == 0 and "No template takes" in done.out and not (story.folder / "dry").exists(), done.errors
