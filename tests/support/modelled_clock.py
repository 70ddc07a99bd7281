"""A registered board whose clock is a model's: the real agent behind a real sshd, under QEMU with the plugin that virtual boards have.

What the plugin counts in a run becomes a time by another board's model, with noise, and is reported as that board's clock would have it.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from conftest import CommandLine
from registered_boards import SshBoard, register

from tvmmobile.devices.board import hardware
from tvmmobile.devices.protocol import MEASURED, DeviceProfile, Endpoint
from tvmmobile.running import bench
from tvmmobile.running.measure import Agents, KernelCall, Latency, Timing, time_evaluator
from tvmmobile.virtual.board import Board, load_board
from tvmmobile.virtual.modelled import modelled_run
from tvmmobile.virtual.profile import parse_profile
from tvmmobile.virtual.program import qemu_words

#: Of one point, and of its samples around it.
_SAMPLES, _JITTER = 5, 1e-4


@dataclass(frozen=True)
class ModelledClock(Agents):
    """Agents whose clock is the model of `board`, each run off by a factor with this standard deviation of its logarithm."""

    board: str = ""
    noise: float = 0.0
    seed: int = 0

    def _timed(
        self, session: Any, module: Any, function: str, timing: Timing, arguments: Sequence[Any], pool: int | None = None
    ) -> Latency:
        answer = time_evaluator(session, module, function, timing, "model")(*arguments)
        run = modelled_run(parse_profile(bytes(answer)), load_board(self.board), timing.threads)
        rng = random.Random(f"{self.seed} {run.core.cycles}")
        seconds = run.modelled_ms * 1e-3 * rng.lognormvariate(0, self.noise)
        samples = tuple(sorted(seconds * 1e9 * rng.lognormvariate(0, _JITTER) for _ in range(_SAMPLES)))
        return Latency(self.profile.origin.kind, samples[_SAMPLES // 2] * 1e-9, samples_ns=samples)

    def _timed_calls(self, session: Any, machine: Any, timing: Timing) -> tuple[KernelCall, ...]:
        return ()


def agents_of(place: SshBoard) -> list[psutil.Process]:
    """Return the agents that run there, and their sessions."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if any(word.startswith(str(place.directory)) for word in process.cmdline()):
                found.append(process)
    return found


def register_modelled(
    cli: CommandLine, place: SshBoard, monkeypatch: pytest.MonkeyPatch, caches: Board, clock: str, noise: float = 0.0, seed: int = 0
) -> None:
    """Register `desk`, with the caches of one board and the clock that the model of another gives, `clock` (a name or a file)."""
    profiles = place.directory.parent / "profiles"
    profiles.mkdir()
    runner = place.directory.parent / "run"
    words = " ".join(qemu_words(caches, str(profiles)))
    runner.write_text(f'#!/bin/sh\nexec {words} "$@" --profile-dir {profiles} --session-timeout 600\n')
    runner.chmod(0o755)
    register(cli, place, "desk", "--runner", str(runner))
    monkeypatch.setattr(hardware, "EMULATED", MEASURED)

    def agents(profile: DeviceProfile, endpoint: Endpoint) -> Agents:
        return Agents(profile, endpoint) if profile.origin.modelled else ModelledClock(profile, endpoint, clock, noise, seed)

    monkeypatch.setattr(bench, "Agents", agents)
