"""scripts/kernel_digests: the same kernels have the same digests, and others have others."""

from __future__ import annotations

import shutil
from pathlib import Path

import kernel_digests
import pytest

from tvmmobile.system.environment import SHIPPED_LOGS


def test_kernels_have_digests_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "pi5-virtual/float16_t4.jsonl"  # of a precision that the board's core has, and others lack
    log.parent.mkdir()
    shutil.copy(SHIPPED_LOGS / log.relative_to(tmp_path), log)
    first = list(kernel_digests.digests(tmp_path, 50))
    assert len(first) > 1 and len({line.split()[0] for line in first}) == len(first)
    assert all("_float16_t4" in line and line.split()[1] == "pi5-virtual" for line in first)
    emit = kernel_digests.kernel_function
    monkeypatch.setattr(kernel_digests, "kernel_function", lambda *kernel: emit(*kernel).with_attr("changed", 1))
    second = list(kernel_digests.digests(tmp_path, 50))
    assert [line.split()[1:] for line in first] == [line.split()[1:] for line in second]
    assert all(one.split()[0] != other.split()[0] for one, other in zip(first, second, strict=True))
