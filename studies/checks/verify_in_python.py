"""Checks compiled libraries with TVM's own virtual machine, as a Python program on the board would use them.

    ./studies/run verify_in_python out

An AArch64 Python from Debian and the AArch64 wheels of TVM and numpy are unpacked into the cache once (400 MB, no root rights needed),
and `run_in_python.py` runs in it under QEMU: none of tvmmobile's own code, its agent included, takes part. Ends with 5 if a library
fails or is off by more than its precision allows (float32: 1e-4 of its output's largest magnitude).
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import subprocess
from pathlib import Path

from studies.harness import Options, option, study
from tvmmobile.running.library import Library, find_libraries
from tvmmobile.system.doctor import require
from tvmmobile.system.entry_points import progress
from tvmmobile.system.environment import TVM_FFI_VERSION, TVM_VERSION
from tvmmobile.system.errors import ExitCode, UserError
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.sysroot import python_sysroot

PROGRAM = Path(__file__).with_name("run_in_python.py")
#: What `import tvm` imports; versions of this Python's, where TVM is known to work with them.
REQUIREMENTS = (
    f"apache-tvm=={TVM_VERSION}",
    f"apache-tvm-ffi=={TVM_FFI_VERSION}",
    *(f"{name}=={importlib.metadata.version(name)}" for name in ("numpy", "ml_dtypes", "typing_extensions")),
)
RUN_TIMEOUT_S = 1200


def verify(libraries: list[Library]) -> dict[Path, float | str]:
    """Return each library's error relative to its output's largest magnitude, or what went wrong."""
    qemu = require("qemu-aarch64")
    sysroot = python_sysroot(load_board("pi4"), REQUIREMENTS, progress)
    environment = {"PATH": os.defpath, "PYTHONNOUSERSITE": "1", "OMP_NUM_THREADS": "1"}
    command = [str(qemu), "-L", str(sysroot), str(sysroot / "usr/bin/python3"), str(PROGRAM)]
    paths = [library.path.resolve() for library in libraries]
    found: dict[Path, float | str] = {}
    while len(found) < len(paths):  # a library that ends the process is the first one without a line
        left = paths[len(found) :]
        try:
            done = subprocess.run(
                [*command, *map(str, left)], env=environment, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False
            )
            lines, end = done.stdout.splitlines(), f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"
        except subprocess.TimeoutExpired as error:
            lines, end = _text(error.stdout).splitlines(), f"no answer within {RUN_TIMEOUT_S} s"
        found |= {path: json.loads(line)[1] for path, line in zip(left, lines, strict=False)}
        if len(lines) < len(left):
            found[left[len(lines)]] = end
    return found


def _text(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


@study(option("libraries", None, "compiled libraries, or directories of them", nargs="+", type=Path, metavar="LIBRARY"))
def main(options: Options) -> int:
    """Check the libraries; return the exit code."""
    libraries = find_libraries(options.libraries)
    for library in libraries:
        if library.is_c:
            raise UserError(f"{library.path} is a C library.", "Compile one for TVM's virtual machine: tvmmobile compile --format vm")
    found = verify(libraries)
    wrong = 0
    for library, (path, result) in zip(libraries, found.items(), strict=True):
        tolerance = library.tolerance
        good = isinstance(result, float) and math.isfinite(result) and result <= tolerance
        wrong += not good
        verdict = f"error {result:.2g} of the output's largest magnitude" if isinstance(result, float) else result
        print(f"{'ok   ' if good else 'WRONG'} {path.name}: {verdict}")
    return ExitCode.DISAGREES if wrong else ExitCode.DONE
