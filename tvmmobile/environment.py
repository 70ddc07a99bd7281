"""The one place that reads the process environment."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

#: The version of TVM that every library, log and agent is built with.
TVM_VERSION = "0.27.0.post1"
TVM_FFI_VERSION = "0.1.14.post1"


def cache_dir() -> Path:
    """Where built helpers (agent, plugin, unpacked runtime) are kept; `TVMMOBILE_CACHE` moves it."""
    return Path(os.environ.get("TVMMOBILE_CACHE") or platformdirs.user_cache_dir("tvmmobile"))


def user_data_dir() -> Path:
    """Where the user's own tuning logs and device profiles are kept; `TVMMOBILE_DATA` moves it."""
    return Path(os.environ.get("TVMMOBILE_DATA") or platformdirs.user_data_dir("tvmmobile"))


def debug_level() -> int:
    """`TVMMOBILE_DEBUG`: 0 (quiet) to 4 (everything); anything else counts as 0."""
    text = os.environ.get("TVMMOBILE_DEBUG", "0")
    return int(text) if text in {"0", "1", "2", "3", "4"} else 0
