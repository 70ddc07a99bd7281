"""The programs and the notebook in examples/python, and every block of docs/api.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.virtual
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "python"
DOCUMENT = EXAMPLES.parents[1] / "docs" / "api.md"
#: What each prints, and how it ends.
PROGRAMS = {
    "compile_and_run.py": (r"class \d+ of 1000\n\d\.\d\d ms modelled on Raspberry Pi 4 Model B\nslowest of 20 kernels: ", 0),
    "quantise_aware.py": (r"4 layers in int8; [78] of 8 images right\n", 0),
    "gate.py": (r"\d\.\d\d ms, now \d\.\d\d ms modelled\n  \S+: \d+ us, now \d+ us\n", 2),
    "tune_own_module.py": (
        r"dw_16x16_16_k3x3.*: \d+\.\d us modelled, .*\n(.*\n)+Gray 1\.0-32: \d+ us before, \d+ us now: (same|faster)\n",
        0,
    ),
}


def executed(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=300)


def test_every_program_is_run() -> None:
    assert PROGRAMS.keys() == {path.name for path in EXAMPLES.glob("*.py")}


@pytest.mark.long
@pytest.mark.parametrize("name", ["compile_and_run.py", "gate.py", "quantise_aware.py", "tune_own_module.py"])
def test_a_program(name: str, tmp_path: Path) -> None:
    printed, code = PROGRAMS[name]
    done = executed(EXAMPLES / name, folder=tmp_path)
    assert done.returncode == code, done.stderr
    assert re.search(printed, done.stdout), done.stdout
    assert done.stderr == ""  # nothing prints unless asked


def check_last_lines(text: str) -> None:
    """Check the output of the notebook's last cell: a latency, and a line for each kernel."""
    lines = text.splitlines()
    assert re.fullmatch(r"\d\.\d{3} ms modelled, Raspberry Pi 4 Model B", lines[0]) and len(lines) == 8


@pytest.mark.long  # Jupyter's own part; what the cells do is in the next test
def test_the_notebook_compiles_a_module_that_it_defines(tmp_path: Path) -> None:
    words = ("--to", "notebook", "--execute", "--output-dir", tmp_path, EXAMPLES / "own_network.ipynb")
    done = executed("-m", "jupyter", "nbconvert", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "own_network.ipynb").read_text())["cells"]
    printed = [output for cell in cells for output in cell.get("outputs", [])]
    assert not any(output.get("name") == "stderr" for output in printed)
    check_last_lines("".join(printed[-1]["text"]))


def test_the_notebooks_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process, whose main program defines the module no more than a notebook's does."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for cell in json.loads((EXAMPLES / "own_network.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    printed = capsys.readouterr()
    check_last_lines(printed.out)
    assert printed.err == ""


def test_the_blocks_of_the_document(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 7
    (tmp_path / "blocks.py").write_text("\n".join(blocks))
    done = executed("blocks.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for line in re.findall(r"# (width .*|Give .*)", DOCUMENT.read_text(encoding="utf-8")):
        assert line in done.stdout
    assert {path.name for path in (tmp_path / "out").glob("report.*")} == {f"report.{kind}" for kind in ("json", "csv", "md", "html")}
