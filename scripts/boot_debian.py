"""Boots Debian for AArch64 in QEMU, with its own kernel, users and SSH server, as a board to try tvmmobile on.

    ./scripts/boot_debian
    ./scripts/boot_debian --disk my.disk --memory 4G

The first call makes the image, in the cache, which takes up to half an hour; a boot takes a minute. Nothing but this machine can
reach it, and it reaches nothing. Its users are plain, admin (who may use sudo) and root. Ctrl-C ends it like a power cut; with --disk, its
disk stays. Latencies there are emulated.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path

from tvmmobile.system.entry_points import progress, reporting_errors
from tvmmobile.system.errors import ExitCode, UserError

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "support")]  # the tests boot it, too

from booted_image import image, missing  # noqa: E402
from booted_machine import Machine, machine  # noqa: E402


@reporting_errors
def main() -> int:
    """Boot it and wait; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--disk",
        type=Path,
        metavar="FILE",
        help="its disk, made on top of the cached image if it is not there (default: one that is removed)",
    )
    parser.add_argument("--memory", default="2G", metavar="SIZE", help="as QEMU takes it (default: 2G)")
    parser.add_argument("--internet", action="store_true", help="let it reach what this machine reaches")
    arguments = parser.parse_args()
    if missing():
        raise UserError(
            f"{', '.join(missing())} is missing.", "Run: apt-get install -y qemu-system-arm qemu-utils e2fsprogs cpio openssh-client"
        )
    progress("making the image, if it is not in the cache")
    made = image()
    progress("booting")
    with contextlib.ExitStack() as stack, contextlib.suppress(KeyboardInterrupt):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="boot-")))
        booted = stack.enter_context(machine(made, folder, not arguments.internet, memory=arguments.memory, disk=arguments.disk))
        _show(booted)
        while booted.runs:
            time.sleep(0.5)
    return ExitCode.DONE


def _show(booted: Machine) -> None:
    print(f"{booted}\n")
    print(f"Register it with this key in your ssh agent: ssh-add {booted.image.key}")
    print("    tvmmobile " + " ".join(booted.add_words("booted")), flush=True)


if __name__ == "__main__":
    sys.exit(main())
