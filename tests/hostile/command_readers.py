"""Commands that read files, as a whole: what they print of a file included. None may end with the code for an internal error."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

from hostile import file_readers
from hostile.file_readers import Prepared, at
from hostile.fuzzing import Read, Reader

from tvmmobile.system.errors import ExitCode


def _command(*arguments: str) -> Callable[[], object]:
    """Runs a command line in this process, with nothing to see of it."""

    def run() -> object:
        from tvmmobile.cli import run as run_command

        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_command(arguments)
        err.flush()
        errors = err.buffer.getvalue().decode()  # type: ignore[attr-defined]
        if code == ExitCode.INTERNAL:
            raise AssertionError(errors)
        return code

    return run


def _on(prepare: Callable[[Path], Prepared], name: str, *words: str) -> Callable[[Path], Prepared]:
    """A command over the samples of another reader; `{file}` and `{folder}` in its words are where the input is."""

    def prepared(folder: Path) -> Prepared:
        samples, _ = prepare(folder)
        path = folder / name
        read: Read = at(path, _command(*(word.format(file=path, folder=folder) for word in words)))
        return samples, read

    return prepared


_LOG = "logs/pi4-virtual/float32_t1.jsonl"
READERS = (
    Reader("logs verify", "lines", _on(file_readers._log, _LOG, "logs", "verify", "--logs", "{folder}/logs"), (), cost=100),
    Reader("logs show", "lines", _on(file_readers._log, _LOG, "logs", "show", "--logs", "{folder}/logs"), (), cost=100),
    Reader("report", "json", _on(file_readers._results, "x.json", "report", "{file}", "--out", "{folder}/out"), (), cost=100),
    Reader(
        "report two",
        "json",
        _on(file_readers._results, "x.json", "report", "{folder}/a.json", "{file}", "--out", "{folder}/out"),
        (),
        cost=100,
    ),
    Reader("compare", "json", _on(file_readers._results, "x.json", "compare", "{folder}/a.json", "{file}"), (), cost=100),
    Reader(
        "baseline save", "json", _on(file_readers._results, "x.json", "baseline", "save", "{file}", "--dir", "{folder}/kept"), (), cost=100
    ),
    Reader("device list", "json", _on(file_readers._device, "devices/desk.json", "device", "list"), (), cost=100),
)
