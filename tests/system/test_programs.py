"""Programs of the system that are run to their end."""

from __future__ import annotations

import signal

import pytest

from tvmmobile.system.programs import signal_name


@pytest.mark.parametrize(("number", "name"), [(signal.SIGSEGV, "SIGSEGV"), (40, "signal 40"), (64, "SIGRTMAX")])
def test_names_of_signals(number: int, name: str) -> None:
    assert signal_name(number) == name
