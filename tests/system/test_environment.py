"""What the environment's variables mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvmmobile.system.environment import cache_dir, user_data_dir


def test_folders_of_variables_are_whole_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable, folder in (("TVMMOBILE_CACHE", cache_dir), ("TVMMOBILE_DATA", user_data_dir)):
        monkeypatch.setenv(variable, "kept")
        assert folder() == tmp_path / "kept", "agents, in folders of their own, find it as well"
        monkeypatch.setenv(variable, "~/kept")
        assert folder() == tmp_path / "home/kept", "a CI system's variables do not go through a shell"
        monkeypatch.setenv(variable, "")
        assert folder().is_relative_to(tmp_path / "home")
