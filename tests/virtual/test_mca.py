"""Tests of what is read where llvm-mca is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tvmmobile.system import doctor
from tvmmobile.system.errors import UserError
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.calibration.fit import run_hash
from tvmmobile.virtual.cores.mca import SHIPPED_VERSION, disassemble, mca_version


@pytest.fixture
def without_llvm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("PATH", str(tmp_path))
    for cached in (doctor.version_of, mca_version):
        cached.cache_clear()
    yield
    for cached in (doctor.version_of, mca_version):
        cached.cache_clear()


def test_without_llvm_the_shipped_logs_are_current(without_llvm: None, repository: Path) -> None:
    """A real board's search starts from its virtual twin's records; nothing is modelled for that."""
    assert mca_version() == SHIPPED_VERSION
    for name in ("pi4", "pi3bplus", "pi5"):
        shipped = (repository / f"tuning_logs/{name}-virtual/float32_t1.jsonl").read_text(encoding="utf-8")
        assert run_hash(load_board(name)) in shipped, name


def test_without_llvm_nothing_is_modelled(without_llvm: None) -> None:
    with pytest.raises(UserError, match="llvm-mc is missing; virtual boards need"):
        disassemble([0xD503201F])
