"""Builds the device agent: one folder with the program and every library it needs, its own loader and C library among them.

It does not depend on a board's glibc: it runs as `ld-linux-aarch64.so.1 --library-path DIR DIR/tvmmobile-agent …`, under QEMU, on a Pi and
on Android alike.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

from tvmmobile.devices.agent.wheels import PLATFORM, WHEELS, unpack_wheel
from tvmmobile.system.doctor import CROSS_PACKAGE, require
from tvmmobile.system.environment import PREBUILT, cache_dir
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import filling_cache, made_once
from tvmmobile.system.programs import run_tool

AGENT = "tvmmobile-agent"
LOADER = "ld-linux-aarch64.so.1"
#: Debian's cross C library, beside which g++-aarch64-linux-gnu puts libstdc++ and libgcc.
SYSROOT_LIBRARIES = Path("/usr/aarch64-linux-gnu/lib")
#: Folders in which AArch64 machines have the same files; the last two contain only the loader.
NATIVE_LIBRARIES = tuple(map(Path, ("/usr/lib/aarch64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib", "/lib64")))
RUNTIME = (LOADER, "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libstdc++.so.6", "libgcc_s.so.1")
FLAGS = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined")
#: Hardening against memory errors.
HARDENING = ("-D_FORTIFY_SOURCE=3", "-fstack-protector-strong", "-fPIE", "-pie", "-Wl,-z,relro,-z,now,-z,noexecstack")
#: timing.cc explains this flag.
TIMED = ("-fno-stack-protector",)
#: Makes debug information independent of where it was built; `{}` is each folder in which the compiler finds files.
UNPLACED = "-ffile-prefix-map={}=."

Progress = Callable[[str], None]


def sources() -> list[Path]:
    """Return the agent's C++ files."""
    return sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in {".cc", ".h"})


def bundle_path() -> Path:
    """Return the path of this version's bundle, existing or not: its name depends on sources, flags and runtime versions."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(repr((WHEELS, PLATFORM, RUNTIME, FLAGS, HARDENING, TIMED, UNPLACED)).encode())
    return cache_dir() / f"agent-{digest.hexdigest()[:16]}"


def loader_words(folder: str) -> list[str]:
    """Return words before a program's path, so that it finds the loader and the libraries in `folder`."""
    return [f"{folder}/{LOADER}", "--library-path", folder]


def agent_words(folder: str) -> list[str]:
    """Return the start of the command line that runs the agent in `folder`, on AArch64 or after an emulator's name."""
    return [*loader_words(folder), f"{folder}/{AGENT}"]


def build_bundle(progress: Progress | None = None) -> Path:
    """Return the bundle's folder, built if needed (about 20 s, once, with pip and the cross compiler); a wheel contains it prebuilt.

    Args:
        progress: called before each long step.

    Raises:
        UserError: the cross compiler is missing, the cache cannot be written, or pip cannot fetch TVM's AArch64 wheels.
    """
    path = bundle_path()
    if path.is_dir():
        return path
    ready = PREBUILT / path.name
    with filling_cache(), made_once(path) as bundle:
        if bundle is not None and ready.is_dir():
            _copy(ready, bundle)  # the wheel's installer may have dropped the permission to execute
        elif bundle is not None:
            _fill(bundle.parent, bundle, progress or (lambda _sentence: None))
    return path


def _copy(ready: Path, bundle: Path) -> None:
    for path in ready.iterdir():
        shutil.copyfile(path, bundle / path.name)
        (bundle / path.name).chmod(0o755)


def _fill(scratch: Path, bundle: Path, progress: Progress) -> None:
    compiler = str(require("aarch64-linux-gnu-g++"))
    for wheel in WHEELS:
        progress(f"fetching {wheel.requirement} for AArch64")
        unpack_wheel(wheel, scratch)
        for library in wheel.libraries:
            shutil.copy(scratch / "unpacked" / library, bundle)
    for name in RUNTIME:
        _copy_library(name, bundle)
    progress("compiling the device agent")
    # The headers are a library's: -isystem keeps their warnings out of this build's.
    command = [compiler, *FLAGS, *HARDENING, "-isystem", str(scratch / "unpacked/tvm_ffi/include")]
    timing = str(scratch / "timing.o")
    remedy = f"Run: apt-get install -y --reinstall {CROSS_PACKAGE}"
    own = str(Path(__file__).parent)
    command += [UNPLACED.format(folder) for folder in (scratch, own)]
    run_tool([*command, *TIMED, "-c", f"{own}/timing.cc", "-o", timing], "Compiling the device agent", remedy)
    # Its copies of common libraries come first, and so are kept.
    command += [timing, f"{own}/agent.cc", "-o", str(bundle / AGENT), f"-L{bundle}", "-ltvm_runtime", "-ltvm_ffi", "-ldl"]
    run_tool(command, "Compiling the device agent", remedy)
    for path in bundle.iterdir():
        path.chmod(0o755)
    os.sync()  # its content must be on disk before the folder is renamed


def _copy_library(name: str, bundle: Path) -> None:
    places = [folder / name for folder in (SYSROOT_LIBRARIES, *(NATIVE_LIBRARIES if platform.machine() == "aarch64" else ()))]
    found = next((path for path in places if path.exists()), None)
    if found is None:
        raise UserError(f"{places[0]} is missing.", f"Run: apt-get install -y {CROSS_PACKAGE}")
    shutil.copy(found.resolve(), bundle / name)
