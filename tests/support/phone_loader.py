"""Programs for Android's own loader and C library, which `--android DIR` names."""

from __future__ import annotations

from pathlib import Path

import pytest


def android_folder(request: pytest.FixtureRequest) -> Path:
    """Return the folder of `--android`; skips the test without it."""
    folder = request.config.getoption("--android")
    if folder is None:
        pytest.skip("no Android loader: --android DIR")
    return Path(folder).resolve()


def android_link(root: Path) -> list[str]:
    """Return the command that links a program for it, up to its sources; `-lc` comes behind them."""
    start = Path(__file__).with_name("android_start.c")
    options = ["-pie", "-Wl,--dynamic-linker=/system/bin/linker64", "-Wl,--hash-style=both", "-Wl,--allow-shlib-undefined"]
    return [*options, str(start), f"-L{root / 'system/lib64'}"]
