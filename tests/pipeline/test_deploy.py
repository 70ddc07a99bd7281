"""Tests of the messages about a check on a board that ends otherwise than `check` does."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from deployed import write_manifest

from tvmmobile.devices.board.remote import Completed, Remote
from tvmmobile.networks.models.registry import grid
from tvmmobile.pipeline.deploy import Deployment, _agrees_there
from tvmmobile.running.library import Library
from tvmmobile.system.errors import Disagreement, ExitCode


class Board:
    """A board on which every program ends in one way."""

    def __init__(self, done: Completed) -> None:
        self.done = done

    def run(self, words: list[str], timeout_s: float) -> Completed:
        """Return the program's result."""
        assert words[1:3] == ["/models/runtime/check", "/models/net.so"] and timeout_s > 0
        return self.done


@pytest.mark.parametrize(
    ("done", "message"),
    [
        (
            Completed(5, "net, threads: 1\nerror 0.3 of the reference's largest magnitude\nfirst run 1 ms\n", ""),
            "error 0.3 of the reference's",
        ),
        (Completed(5, "", ""), "check does not say how far"),
        (Completed(1, "", "\nsh: check: \x1b[31mnot found\n"), r"does not run on pi@board: sh: check: \x1b[31mnot found."),
        (Completed(137, "", " \n"), "does not run on pi@board: status 137."),
    ],
)
def test_whatever_a_check_leaves_is_told(tmp_path: Path, done: Completed, message: str) -> None:
    library = Library(grid("mobilenet_v1", (0.25,), (128,))[0], "float32", 1, tmp_path / "net.so")
    library.path.write_bytes(b"no ELF file")
    write_manifest(library.path, format="c", c={"prefix": "net", "workspace_bytes": 0}, reference="PyTorch")
    deployed = Deployment("pi@board", "/models", (library,), (), 0, ("/models/runtime/ld.so",))
    with pytest.raises(Disagreement) as raised:
        _agrees_there(cast(Remote, Board(done)), deployed, library)
    assert message in str(raised.value) and raised.value.exit_code == ExitCode.DISAGREES
