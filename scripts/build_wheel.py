"""Builds the wheel, with everything that runs on boards ready built: `pip install` of it needs neither a compiler nor root rights.

    wheel=$(./scripts/build_wheel --out dist)

Built twice from one commit on one machine, it is the same file. `pip wheel .` builds one without the device agent.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tvmmobile.devices.agent.build import build_bundle
from tvmmobile.kernels.codegen import instead_of_libc
from tvmmobile.running.networks import adapter, checker
from tvmmobile.system.doctor import CROSS_COMPILER, CROSS_PACKAGE, require
from tvmmobile.system.entry_points import progress, reporting_errors
from tvmmobile.system.environment import PREBUILT, TVM_FFI_VERSION, TVM_VERSION
from tvmmobile.system.errors import ExitCode, UserError
from tvmmobile.system.programs import run_tool
from tvmmobile.system.toolchain import Toolchain

ROOT = Path(__file__).resolve().parents[1]
#: Of a wheel, from the folder of its sources; 1980 is the earliest year that zip files know.
_BUILD = """
import os, sys, zlib
zlib.Z_DEFAULT_COMPRESSION = 9  # the level for a writer that names none
os.environ.setdefault("SOURCE_DATE_EPOCH", "315532800")
os.chdir(sys.argv[1])
from setuptools.build_meta import build_wheel
print(build_wheel(sys.argv[2]))
"""
#: Debian's packages with the files that are neither ours nor TVM's, from the cross compiler or, on AArch64, from the native one.
_ON_AARCH64 = platform.machine() == "aarch64"
_PACKAGES = [name if _ON_AARCH64 else f"{name}-arm64-cross" for name in ("libc6", "libstdc++6", "libgcc-s1")]
_NOTICE = """\
What runs on boards, built for 64-bit Arm Linux and Android:

- tvmmobile-agent, freestanding-*.o, adapter-*.so and check-*: of tvmmobile, Apache-2.0.
- libtvm_runtime.so, libtvm_runtime_extra.so, libtvm_ffi.so: Apache TVM {tvm} and TVM FFI {ffi}, Apache-2.0, from their AArch64 wheels.
- The other libraries and the loader: from the Debian packages {packages}, unchanged. Their licences are beside this file
  (glibc: LGPL-2.1-or-later; libstdc++ and libgcc: GPL-3 with the GCC Runtime Library Exception); their sources are at
  https://snapshot.debian.org/ under these names and versions. Any of these libraries can be replaced in this folder.
"""


def build_wheel(out: Path, say: Callable[[str], None]) -> Path:
    """Build the wheel in `out` and return its path; raise `UserError` if the cross compiler is missing or a step fails."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tvmmobile-wheel-") as folder:
        stage = Path(folder, "stage")
        stage_sources(stage)
        stage_prebuilt(stage / "tvmmobile" / PREBUILT.name, say)
        say("building the wheel …")
        command = [sys.executable, "-c", _BUILD, str(stage), folder]
        output = run_tool(command, "Building the wheel", "Remove .venv and run it again.")
        name = output.splitlines()[-1]
        shutil.copyfile(Path(folder, name), out / name)
    return out / name


def stage_sources(stage: Path) -> None:
    """Copy the wheel's sources, following links."""
    stage.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, stage / name)
    left_out = shutil.ignore_patterns("__pycache__", "*.lock", PREBUILT.name)
    shutil.copytree(ROOT / "tvmmobile", stage / "tvmmobile", ignore=left_out, copy_function=shutil.copyfile)


def stage_prebuilt(folder: Path, say: Callable[[str], None]) -> None:
    """Add the agent, the objects that libraries are linked with, and third-party licences."""
    tools = Toolchain(require(CROSS_COMPILER), device=True)
    bundle = build_bundle(lambda sentence: say(f"{sentence} …"))
    shutil.copytree(bundle, folder / bundle.name)
    for path in (*instead_of_libc(tools), adapter(), checker()):
        shutil.copyfile(path, folder / path.name)
    remedy = f"Run: apt-get install -y --reinstall {CROSS_PACKAGE}"
    versions = run_tool(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *_PACKAGES], "Asking for Debian's packages", remedy)
    for package in _PACKAGES:
        text = Path("/usr/share/doc", package, "copyright")
        if not text.is_file():
            raise UserError(f"{text} is missing; a wheel must not go without it.", remedy)
        shutil.copyfile(text, folder / f"{package}.txt")
    notice = _NOTICE.format(tvm=TVM_VERSION, ffi=TVM_FFI_VERSION, packages=", ".join(sorted(versions.splitlines())))
    (folder / "NOTICE.txt").write_text(notice, encoding="utf-8")


@reporting_errors
def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="DIR", help="where the wheel goes (default: dist)")
    os.umask(0o022)
    print(build_wheel(parser.parse_args().out, progress))
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
