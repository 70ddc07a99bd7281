"""The studies' harness: a command line is a table of options, and a file of figures is completed entry by entry."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from studies.harness import RESULTS, Options, completed, option, study
from tvmmobile.system.errors import UserError

SEEN: list[dict[str, Any]] = []


@study(
    option("names", [], "networks", nargs="*"),
    option("--side", 64, "pixels"),
    option("--fast", False, "leave out the rest"),
    option("--out", RESULTS / "mine.json", metavar="FILE"),
)
def main(options: Options) -> int:
    if not options.names:
        raise UserError("there is no network.", "Give one.")
    SEEN.append(vars(options))
    return 4 if options.fast else 0


def test_a_study_reads_its_options_and_reports_errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in (([], 1), (["a", "b"], 0), (["a", "--side", "3", "--fast", "--out", "x.json"], 4)):
        monkeypatch.setattr(sys, "argv", ["mine", *words])
        assert main() == code
    assert capsys.readouterr().err == "mine: error: there is no network.\nGive one.\n"
    usual = {"names": ["a", "b"], "side": 64, "fast": False, "out": RESULTS / "mine.json"}
    assert [usual, {"names": ["a"], "side": 3, "fast": True, "out": Path("x.json")}] == SEEN


def test_help_names_the_defaults(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["mine", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    said = capsys.readouterr().out
    assert said.splitlines()[2] == __doc__ and "pixels (default: 64)" in said and "(default: studies/results/mine.json)" in said


def computed(network: str, weights: str) -> dict[str, Any] | None:
    return None if network == "untrainable" else {"network": network, "weights": weights, "error": 0.5}


def test_what_a_file_has_is_kept_and_what_gives_no_entry_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "errors.json"
    file.write_text(json.dumps([{"network": "a", "weights": "trained", "error": 0.1}]), encoding="utf-8")
    keys = [("a", "trained"), ("untrainable", "trained"), ("a", "generated")]
    wanted = {key: (lambda key=key: computed(*key)) for key in keys}
    found = completed(file, wanted, ("network", "weights"), lambda entries: f"{len(entries)} entries\n")
    assert [(one["network"], one["weights"], one["error"]) for one in found] == [("a", "trained", 0.1), ("a", "generated", 0.5)]
    assert json.loads(file.read_text(encoding="utf-8")) == found
    assert file.with_suffix(".md").read_text(encoding="utf-8") == "2 entries\n"
