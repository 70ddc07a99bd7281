"""Builds an AArch64 Python with wheels for a virtual board, without root rights, and prints its folder.

    sysroot=$(./scripts/sysroot ncnn==1.0.20261020 numpy==2.4.0)
    ./scripts/tvmmobile virtual run --sysroot "$sysroot" -- python3 program.py

It is kept in the cache, one for each list of requirements; dependencies of the wheels are not followed. Give exact versions: what was
built once for a requirement is used again.
"""

from __future__ import annotations

import argparse
import sys

from sharing import progress, telling

from tvmmobile.system.errors import ExitCode
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.sysroot import python_sysroot


@telling
def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requirements", nargs="*", metavar="REQUIREMENT", help="wheels, as pip takes them")
    parser.add_argument("--board", default="pi4", metavar="NAME", help="whose core programs shall find (default: pi4)")
    arguments = parser.parse_args()
    print(python_sysroot(load_board(arguments.board), arguments.requirements, progress))
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
