"""A power cut while commands run: the records they reported and the libraries they wrote are there."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from commands import Command, records
from power_cut import recorded

pytestmark = [pytest.mark.virtual, pytest.mark.long]
SMALL = ("--alpha", "0.25", "--resolution", "32", "--classes", "10")


def files(folder: Path) -> dict[str, bytes]:
    """Return the files in it, without locks."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_what_was_reported_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    logs, out = ("--logs", str(root / "of" / "logs")), ("--out", str(root / "of" / "libraries"))
    with recorded(root, tmp_path / "shadow", monkeypatch) as cut:
        command = Command(tmp_path, "tune", *SMALL, "--trials", "1", "--strategy", "random", *logs, *out)
        for count in (1, 5, 12):
            command.wait_until(lambda count=count: command.errors.count("after 1 trial") >= count)  # type: ignore[misc]
            reported = command.errors.count("after 1 trial")
            assert len(records(cut(tmp_path / f"cut-{count}") / "of" / "logs")) >= reported
        command.signal_group(signal.SIGINT)
        assert command.wait(30)[0] == 130, command.errors
        command = Command(tmp_path, "compile", *SMALL, *logs, *out)
        assert command.wait(300)[0] == 0, command.errors
    left = files(cut(tmp_path / "cut"))
    assert left == files(root) and sum(name.endswith(".so") for name in left) == 1
