"""The one place that reads the process environment."""

from __future__ import annotations

import getpass
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from tvmmobile.system.errors import UserError, shown

#: The version of TVM that every library, log and agent is built with.
TVM_VERSION = "0.27.0.post1"
TVM_FFI_VERSION = "0.1.14.post1"
#: The tuning logs that come with the program.
SHIPPED_LOGS = Path(__file__).resolve().parents[1] / "tuning_logs"
#: Folder of the prebuilt files for devices in a wheel; missing in a checkout.
PREBUILT = Path(__file__).resolve().parents[1] / "prebuilt"


def cache_dir() -> Path:
    """Return the folder of built helpers (agent, plugin, unpacked runtime); `TVMMOBILE_CACHE` moves it."""
    return _whole_path(os.environ.get("TVMMOBILE_CACHE") or platformdirs.user_cache_dir("tvmmobile"))


def torch_cache() -> Path:
    """Return the kernel cache folder that PyTorch's exporter creates without using it: among the helpers, not the temporary files."""
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or cache_dir() / "torchinductor")


def keep_torch_cache() -> None:
    """Tell PyTorch of that folder."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(torch_cache())


def user_data_dir() -> Path:
    """Return the folder of the user's own tuning logs and device profiles; `TVMMOBILE_DATA` moves it."""
    return _whole_path(os.environ.get("TVMMOBILE_DATA") or platformdirs.user_data_dir("tvmmobile"))


def _whole_path(text: str) -> Path:
    """Return an absolute path, since agents run in folders of their own, with `~` replaced, as no shell does in a CI system's variables."""
    return Path(os.path.expanduser(text)).absolute()


def user_name() -> str:
    """Return this user's name; "" where the system has none, as in a container started with `--user 1234`."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        return ""


def adb_server_port() -> int:
    """Return adb's port on this machine: `ANDROID_ADB_SERVER_PORT`, as adb does, or 5037; raise `UserError` if it is not a port."""
    text = os.environ.get("ANDROID_ADB_SERVER_PORT") or "5037"
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise UserError(
            f"ANDROID_ADB_SERVER_PORT is {shown(text)}, which is not a port.", "Set it to a number from 1 to 65535, or unset it for 5037."
        )
    return int(text)


def java_compiler() -> Path | None:
    """Return `javac` from the JDK in `JAVA_HOME`, or else the first in `PATH`; `None` without one."""
    folder = os.environ.get("JAVA_HOME")
    found = shutil.which("javac", path=str(Path(folder) / "bin") if folder else None)
    return Path(found) if found else None


def plugins() -> tuple[str, ...]:
    """Return the comma-separated modules in `TVMMOBILE_PLUGINS`."""
    return tuple(name.strip() for name in os.environ.get("TVMMOBILE_PLUGINS", "").split(",") if name.strip())


def environment() -> dict[str, str]:
    """Return all of this process's variables, for another process to take over."""
    return dict(os.environ)


def login_environment() -> dict[str, str]:
    """Return those of this process's variables that a fresh login also has, which excludes settings of the loader, compilers and Python."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG") if name in os.environ}


def take_over(variables: Mapping[str, str]) -> None:
    """Replace this process's variables with another's."""
    os.environ.clear()
    os.environ.update(variables)


def debug_level() -> int:
    """Return `TVMMOBILE_DEBUG`, 0 (quiet) to 4 (everything); anything else counts as 0."""
    text = os.environ.get("TVMMOBILE_DEBUG", "0")
    return int(text) if text in {"0", "1", "2", "3", "4"} else 0
