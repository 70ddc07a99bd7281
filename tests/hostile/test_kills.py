"""Sixty kills of what belongs to a tuning run, at random moments: no record lost, none false, nothing left after the next run."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import psutil
import pytest
from commands import Command, records

KILLS = 60
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
TUNE = ("tune", "--device", "pi4", "--alpha", "0.25", "--resolution", "32", "--classes", "10", "--strategy", "random")
#: How long somebody may live: a third of the kills are that long after the start, the others that long after a new record.
EARLY_S, LATE_S = 10.0, 4.0
#: How long a run may go on without whom it lost.
LIVES_ON_S = 5.0
#: Exit codes of commands that lost something: interrupted, terminated, killed, no device; 0 where it did no harm.
CODES = {0, 130, 143, -signal.SIGKILL, 69}


def victims(command: Command) -> dict[str, list[psutil.Process]]:
    """Processes of a run by what they are: the command, the process that forks the workers, workers, the agents and their sessions."""
    found: dict[str, list[psutil.Process]] = {"main": [psutil.Process(command.pid)], "host": [], "worker": [], "agent": []}
    for child in command.children():
        words = " ".join(child.cmdline())
        if "multiprocessing.forkserver" in words:
            found["worker" if "multiprocessing.forkserver" in " ".join(child.parent().cmdline()) else "host"].append(child)
        elif "qemu-aarch64" in words:
            found["agent"].append(child)
    return found


def kill_one(command: Command, rng: random.Random) -> str:
    """Send a random signal to a random process of the run; what was hit, "" where the run has ended."""
    try:
        chosen = [(kind, process) for kind, processes in victims(command).items() if processes for process in [rng.choice(processes)]]
        kind, process = rng.choice(chosen)
        number = rng.choice(SIGNALS)
        process.send_signal(number)
    except psutil.Error:
        return ""
    return f"{number.name} to {kind}"


def wait(command: Command, within_s: float) -> None:
    """Returns after that time, or when the run ends."""
    deadline = time.monotonic() + within_s
    while command.runs and time.monotonic() < deadline:
        time.sleep(0.02)


def lines(logs: Path) -> list[str]:
    """Every line of the logs, in order."""
    return [line for path in sorted(logs.glob("*/*.jsonl")) for line in path.read_text().splitlines()]


@pytest.mark.long
@pytest.mark.virtual
@pytest.mark.parametrize("seed", [2026])
def test_sixty_kills(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    logs, out = tmp_path / "logs", tmp_path / "out"
    history = []
    for number in range(KILLS):
        command = Command(tmp_path, *TUNE, "--trials", str(4 + number), "--logs", str(logs), "--out", str(out))
        known = len(lines(logs))
        early = number % 3 == 0
        while command.runs and not early and len(lines(logs)) == known:
            time.sleep(0.1)
        wait(command, rng.random() * (EARLY_S if early else LATE_S))
        before = lines(logs)
        hit = kill_one(command, rng)
        wait(command, LIVES_ON_S)
        command.signal(signal.SIGINT)
        code, _ = command.wait(60)
        history.append(f"{hit}: {code}, {len(lines(logs))} records")
        # A signal that comes while Python itself is starting ends it.
        assert code in CODES or (early and code < 0 and command.errors == ""), (history[-1], command.errors)
        assert "Traceback" not in command.errors, (history[-1], command.errors)
        assert lines(logs)[: len(before)] == before, history
        records(logs)  # each line is a record, each schedule there once
    print(*history, sep="\n")
    assert len(lines(logs)) > KILLS

    last = Command(tmp_path, *TUNE, "--trials", "1", "--logs", str(logs), "--out", str(out))
    code, _ = last.wait(600)
    assert code == 0, last.errors
    assert last.leftovers(10) == [] and list(last.temporary.iterdir()) == []
    assert_true(tmp_path, logs)


def assert_true(folder: Path, logs: Path) -> None:
    """Every record says what measuring its schedule again says."""
    failed = [record for record in records(logs) if record.get("latency_us") is None]
    assert failed == []
    measured = {str((record["task"], record["schedule"])): record["latency_us"] for record in records(logs)}
    for path in logs.glob("*/*.jsonl"):  # only records of another timing model are scored again
        path.write_text(path.read_text().replace(records(logs)[0]["model"], "0" * 16))
    command = Command(folder, "logs", "rescore", "--device", "pi4", "--logs", str(logs), "--keep", "1000")
    code, _ = command.wait(1200)
    assert code == 0, command.errors
    again = {str((record["task"], record["schedule"])): record["latency_us"] for record in records(logs)}
    assert again == measured
