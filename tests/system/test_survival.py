"""Native code that crashes is tried elsewhere first."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tvmmobile.system.survival import survives


def _raise() -> None:
    raise ValueError


@pytest.mark.parametrize(
    ("call", "survived"),
    [(lambda: None, True), (_raise, True), (os.abort, False), (lambda: os.kill(os.getpid(), signal.SIGSEGV), False)],
    ids=["returns", "raises", "aborts", "crashes"],
)
def test_a_call_is_survived(call: Any, survived: bool, capfd: pytest.CaptureFixture[str]) -> None:
    assert survives(call) is survived
    assert capfd.readouterr().err == ""
