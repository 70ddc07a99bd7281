"""Checks compiled libraries with TVM's own virtual machine, as a Python program on the board would use them.

    ./scripts/verify_in_python out

An AArch64 Python from Debian and the AArch64 wheels of TVM and numpy are unpacked into the cache once (400 MB, no root rights needed),
and `run_in_python.py` runs in it under QEMU: none of tvmmobile's own code, its agent included, takes part. Ends with 5 if a library
fails or is off by more than 1e-4 of its output's largest magnitude.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from tvmmobile.agent.tools import run_tool
from tvmmobile.build import Library, find_libraries
from tvmmobile.doctor import require
from tvmmobile.environment import TVM_FFI_VERSION, TVM_VERSION, cache_dir
from tvmmobile.errors import ExitCode, UserError
from tvmmobile.stages import TOLERANCE

PROGRAM = Path(__file__).with_name("run_in_python.py")
DEBIAN_PACKAGES = ("python3", "libstdc++6")
#: What `import tvm` imports; versions of this Python's, where TVM is known to work with them.
REQUIREMENTS = (
    f"apache-tvm=={TVM_VERSION}",
    f"apache-tvm-ffi=={TVM_FFI_VERSION}",
    *(f"{name}=={importlib.metadata.version(name)}" for name in ("numpy", "ml_dtypes", "typing_extensions")),
)
#: pip takes these literally: it does not know that 2_28 includes the older ones.
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64", "any")
DOWNLOAD_TIMEOUT_S = 1200
RUN_TIMEOUT_S = 1200


def sysroot() -> Path:
    """The AArch64 Python, built if it is not there yet: `root` holds Debian's files, `site` the wheels'.

    Raises:
        UserError: apt-get, dpkg-deb or pip is missing or fails.
    """
    recipe = json.dumps([DEBIAN_PACKAGES, REQUIREMENTS])
    folder = cache_dir() / f"aarch64-python-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            print("Building an AArch64 Python in the cache (once, about a minute) …", file=sys.stderr)
            with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as scratch:
                built = Path(scratch, "built")
                _unpack_debian(Path(scratch), built / "root")
                _unpack_wheels(Path(scratch), built)
                built.rename(folder)
    return folder


def _unpack_debian(scratch: Path, root: Path) -> None:
    """Debian's Python with all it depends on, by an apt-get that knows of no installed package and keeps its state in `scratch`."""
    for name in ("apt-get", "dpkg-deb"):
        if shutil.which(name) is None:
            raise UserError(f"{name} is missing; an AArch64 Python is put together with it.", "Run this on Debian, Ubuntu or the like.")
    for name in ("state/lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    apt = ["apt-get", "-q", "-y", "-o", f"Dir::State={scratch}/state", "-o", f"Dir::State::status={scratch}/status"]
    apt += ["-o", f"Dir::Cache={scratch}/cache", "-o", "APT::Architecture=arm64", "-o", "APT::Architectures::=arm64"]
    apt += ["-o", "APT::Sandbox::User=root"]  # its own user may not look into this folder
    remedy = "Check that this machine's apt-get reaches a Debian mirror that has arm64."
    run_tool([*apt, "update"], "Reading Debian's list of packages", remedy, DOWNLOAD_TIMEOUT_S)
    packages = [*apt, "install", "--download-only", "--no-install-recommends", *DEBIAN_PACKAGES]
    run_tool(packages, "Downloading Python for AArch64", remedy, DOWNLOAD_TIMEOUT_S)
    root.mkdir(parents=True)
    for package in sorted((scratch / "cache/archives").glob("*.deb")):
        run_tool(["dpkg-deb", "-x", str(package), str(root)], f"Unpacking {package.name}", "Run it again.")


def _unpack_wheels(scratch: Path, built: Path) -> None:
    """TVM and what it imports, for the Python in `built`."""
    version = _interpreter(built).name.removeprefix("python")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", version, "--dest", str(scratch / "wheels")]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    run_tool([*command, *REQUIREMENTS], "Downloading TVM for AArch64", "Check that pip can install packages here.", DOWNLOAD_TIMEOUT_S)
    for wheel in sorted((scratch / "wheels").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(built / "site")


def _interpreter(folder: Path) -> Path:
    found = [path for path in (folder / "root/usr/bin").glob("python3.*") if path.name.removeprefix("python3.").isdigit()]
    if len(found) != 1:
        raise UserError(f"Debian's Python for AArch64 is not where it was expected, in {folder}.", "Please report it.")
    return found[0]


def verify(libraries: list[Library]) -> dict[Path, float | str]:
    """Each library's error relative to its output's largest magnitude, or what went wrong.

    Raises:
        UserError: the AArch64 Python cannot be built.
    """
    qemu, folder = require("qemu-aarch64"), sysroot()
    environment = {"PATH": os.defpath, "PYTHONPATH": str(folder / "site"), "PYTHONNOUSERSITE": "1", "OMP_NUM_THREADS": "1"}
    command = [str(qemu), "-L", str(folder / "root"), str(_interpreter(folder)), str(PROGRAM)]
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


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libraries", nargs="+", type=Path, metavar="LIBRARY", help="compiled libraries, or directories of them")
    try:
        found = verify(find_libraries(parser.parse_args().libraries))
    except UserError as error:
        print(f"verify_in_python: error: {error}", file=sys.stderr)
        return error.exit_code
    wrong = 0
    for path, result in found.items():
        good = isinstance(result, float) and math.isfinite(result) and result <= TOLERANCE
        wrong += not good
        said = f"error {result:.2g} of the output's largest magnitude" if isinstance(result, float) else result
        print(f"{'ok   ' if good else 'WRONG'} {path.name}: {said}")
    return ExitCode.DISAGREES if wrong else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
