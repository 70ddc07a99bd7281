"""Runs one program on a virtual board and keeps what the plugin counted: `profile_program.py BOARD SYSROOT DIR THREADS PROGRAM…`.

It runs in a separate process, because its environment affects the model and its output is parsed, so both must differ from those of
bench_peers. DIR then holds `profile` and `maps`, as `tvmmobile.virtual.program.model_program` takes them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tvmmobile.system.errors import ExitCode, UserError
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.program import profile_program


def skips_start(threads: int) -> bool:
    """Return whether a run with this number of threads is simulated only from its warm-up on; several threads have to keep pace from the
    start.
    """
    return threads == 1


def main() -> int:
    """Run from the command line; return the exit code."""
    board, sysroot, folder, threads, *command = sys.argv[1:]
    try:
        profile, maps = profile_program(load_board(board), command, Path(sysroot), skip_start=skips_start(int(threads)))
    except UserError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    Path(folder, "profile").write_bytes(profile)
    Path(folder, "maps").write_text(maps, encoding="utf-8")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
