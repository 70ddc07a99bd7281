"""TVM's runtime for AArch64: two pinned wheels, fetched by pip, checked against their SHA-256, and the files that the agent needs."""

from __future__ import annotations

import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.system.environment import TVM_FFI_VERSION, TVM_VERSION
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import sha256_of
from tvmmobile.system.programs import run_tool

#: glibc 2.28 and later; older tags do not have these wheels.
PLATFORM = "manylinux_2_28_aarch64"


@dataclass(frozen=True)
class Wheel:
    """A wheel and the members to unpack.

    Attributes:
        requirement: the package's requirement, as pip takes it.
        sha256: SHA-256 of the wheel file.
        libraries: members that go into the bundle.
        headers: prefixes of members that are needed to compile, not to run.
    """

    requirement: str
    sha256: str
    libraries: tuple[str, ...]
    headers: tuple[str, ...] = ()


WHEELS = (
    Wheel(
        f"apache-tvm=={TVM_VERSION}",
        "4acfdb7653e4e1ba7a707bdf2833db72eb8fda7d04d99141f2a4e1da43171fb7",
        ("tvm/lib/libtvm_runtime.so", "tvm/lib/libtvm_runtime_extra.so"),
    ),
    Wheel(
        f"apache-tvm-ffi=={TVM_FFI_VERSION}",
        "c7a759781d4fbf2b99fa12f2741f250b882b06acc2747bb02831d491d1ac7d3c",
        ("tvm_ffi/lib/libtvm_ffi.so",),
        ("tvm_ffi/include/",),
    ),
)


def unpack_wheel(wheel: Wheel, scratch: Path) -> None:
    """Fetch `wheel` with pip and unpack its libraries and headers under `scratch/unpacked`; raise `UserError` for any other file."""
    folder = scratch / wheel.requirement
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    command += ["--platform", PLATFORM, "--python-version", "3.11", "--dest", str(folder), wheel.requirement]
    run_tool(
        command,
        f"Downloading {wheel.requirement} for AArch64",
        f"Check that pip can install packages here; the command was: {' '.join(command)}",
    )
    found = list(folder.glob("*.whl"))
    if len(found) != 1 or sha256_of(found[0]) != wheel.sha256:
        raise UserError(
            f"the AArch64 wheel of {wheel.requirement} is not the one tvmmobile was made with (SHA-256 {wheel.sha256}).",
            "Check which package index pip uses: pip config list",
        )
    with zipfile.ZipFile(found[0]) as archive:
        for name in archive.namelist():
            if name in wheel.libraries or name.startswith(wheel.headers or ("\0",)):
                archive.extract(name, scratch / "unpacked")
    found[0].unlink()
