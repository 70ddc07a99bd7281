"""Histories for tests: results of commits, made by hand, and processes that add them until they are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha1
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from report_samples import sample_results

from tvmmobile.history.commits import Commit
from tvmmobile.history.file import open_history
from tvmmobile.results.file import Results

BEGIN = 1_790_000_000
_FORK = multiprocessing.get_context("fork")


def commit(number: int) -> Commit:
    """Return the commit of that number: one an hour."""
    return Commit(sha1(str(number).encode()).hexdigest(), time=BEGIN + 3600 * number, subject=f"Change number {number}")


def results(
    number: int, factors: Sequence[float] = (1.0,), *, measured: bool = True, kernel: int = 0, schedule: str = "", kernels: int = 99
) -> Results:
    """Results of a commit: a variant for each factor of its latency, which is due to one of its kernels with a `schedule` of its own.

    Args:
        kernels: number of kernels that are kept of each variant.
    """
    found = sample_results(len(factors), measured=measured)
    variants = []
    for variant, factor in zip(found.variants, factors, strict=True):
        listed = list(variant.kernels)
        one, lost = listed[kernel], (factor - 1) * variant.latency_us
        listed[kernel] = replace(one, network_us=(one.network_us or 0.0) + lost, schedule=schedule or one.schedule)
        samples = tuple(sample + lost for sample in variant.samples_us)
        variants.append(replace(variant, samples_us=samples, kernels=tuple(listed[:kernels]), format="c"))
    date = datetime.fromtimestamp(BEGIN + 3600 * number + 60, UTC).isoformat()
    return Results(replace(found.context, date=date), tuple(variants))


def stepped(
    path: Path, commits: int = 40, at: int = 25, size: float = 0.05, variants: int = 2, measured: bool = True, kernels: int = 99
) -> None:
    """Fill a history: the first variant becomes slower at a commit by one kernel with a new schedule, the others do not."""
    random = np.random.default_rng(3)
    with open_history(path, add=True) as history:
        for number in range(commits):
            noise = random.normal(0, 0.01 if measured else 0.0, variants)
            levels = [1 + size * (number >= at), *[1.0] * (variants - 1)]
            factors = [float(level * np.exp(one)) for level, one in zip(levels, noise, strict=True)]
            schedule = "conv@1(rows=9)" if number >= at else ""
            history.add(
                results(number, factors, measured=measured, kernel=min(3, kernels - 1), schedule=schedule, kernels=kernels),
                commit(number),
                "bench",
            )


def git_in(folder: Path, *words: str) -> str:
    """Return git's output."""
    settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *settings, *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


class Writers:
    """Processes that add results to one history, each noting what it has added once `add` returned; some are killed on the way.

    Args:
        folder: folder of the history and the notes.
        processes, each: number of processes, and of results of each.
    """

    def __init__(self, folder: Path, processes: int, each: int) -> None:
        self.path, self._notes, self._count, self._each = folder / "history.sqlite", folder / "notes", processes, each
        self._notes.mkdir()
        self.kills = 0

    def noted(self, writer: int) -> list[int]:
        """Numbers of the results that a writer was told are there."""
        path = self._notes / str(writer)
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def run(self, kills: int, between_s: float) -> None:
        """Start the writers, kill one at a time and start it again where it was, then let all of them end."""
        running = [self._started(writer) for writer in range(self._count)]
        random = np.random.default_rng(0)
        for number in range(kills):
            time.sleep(between_s * float(random.uniform(0.5, 1.5)))
            writer = number % self._count
            if running[writer].is_alive():
                os.kill(running[writer].pid or 0, signal.SIGKILL)
                self.kills += 1
            running[writer].join()
            running[writer] = self._started(writer)
        for process in running:
            process.join()
            assert process.exitcode == 0

    def _started(self, writer: int) -> BaseProcess:
        process = _FORK.Process(target=self._write, args=(writer,))
        process.start()
        return process

    def _write(self, writer: int) -> None:
        notes = os.open(self._notes / str(writer), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in self._left(writer):
            with open_history(self.path, add=True) as history:
                (variant,) = results(number).variants
                one = replace(variant, name=f"writer {writer}", model=f"writer {writer}", kernels=variant.kernels[:3])
                history.add(replace(results(number), variants=(one,)), commit(number), "bench")
            os.write(notes, f"{number}\n".encode())

    def _left(self, writer: int) -> Iterator[int]:
        done = set(self.noted(writer))
        return (number for number in range(self._each) if number not in done)
