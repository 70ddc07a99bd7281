"""One run of a system on a virtual board. What QEMU counted is kept in the cache, so that only what has changed runs again."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from studies.digests import digest_of
from studies.harness import ROOT
from studies.peers.profile_program import skips_start
from studies.peers.results import Figures
from studies.peers.systems import EXAMPLES, System
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.system.doctor import require
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.errors import Disagreement, UserError
from tvmmobile.system.files import write_bytes, write_text
from tvmmobile.virtual.board import Board
from tvmmobile.virtual.calibration.fit import run_hash
from tvmmobile.virtual.calibration.terms import overlaps
from tvmmobile.virtual.cores.core_model import model_hash
from tvmmobile.virtual.plugin.build import build_plugin
from tvmmobile.virtual.profile import INSTRUCTION_BYTES, parse_profile
from tvmmobile.virtual.program import model_program, qemu_words
from tvmmobile.virtual.sysroot import core_files, wheels_digest

RUN_TIMEOUT_S = 3600
_FORMAT = 1
#: Raise it when `Figures` get a field that is taken from a cached run.
_FIGURES = 2
_PROFILER = Path(__file__).with_name("profile_program.py")
_DIFFERENCE = re.compile(r"^largest difference from PyTorch: (\S+)$", re.MULTILINE)
#: A program ends in order within this time, else it is killed.
_STOP_S = 5.0


@dataclass(frozen=True)
class PeerRun:
    """One run.

    Attributes:
        board: the virtual board.
        board_name: name or path that `load_board` reads it from.
        system: the system that runs.
        files: the network, the file to name first; `image.npy` and `logits.npy` lie beside it.
        sysroot: sysroot with the system's wheels.
        threads: number of threads that it may use, each on a core of its own.
        attempt: 0, 1 … of the same run.
    """

    board: Board
    board_name: str
    system: System
    files: tuple[Path, ...]
    sysroot: Path
    threads: int
    attempt: int = 0

    def command(self) -> list[str]:
        """Return the guest's command line."""
        program = self.system.program
        half = [] if self.system.dtype == FLOAT32.name else ["--half"]
        start = ["python3"] if program.suffix == ".py" else []
        return [*start, str(program), str(self.files[0]), "--threads", str(self.threads), *half]

    def key(self) -> str:
        """Identifies all that decides what QEMU counts: cores, caches, plugin, wheels, program, network, input, threads; 16 hex digits.

        The timing model and the clock do not: when they change, the same counts are modelled again, and boards that are otherwise equal
            share them.
        """
        image = self.files[0].parent
        programs = [self.system.program, EXAMPLES / "region.py", _PROFILER]
        files = digest_of([*self.files, image / "image.npy", image / "logits.npy", *programs])
        # The plugin's file is named by its content, wherever it lies.
        options = [word.replace(str(cache_dir()), "") for word in qemu_words(self.board, "", skips_start(self.threads))[1:]]
        # Programs decide by ratios of clocks alone, which other files show.
        files_of_cores = {name: text for name, text in core_files(self.board).items() if not name.endswith("_freq")}
        sysroot = _digest([wheels_digest(self.system.requirements), files_of_cores])
        environment = sorted((name, text.replace(str(ROOT), "")) for name, text in self.system.environment.items())
        recipe = [_FORMAT, options, sysroot, environment, files, self.threads, self.attempt, self.system.dtype]
        return _digest(recipe)


def _digest(recipe: object) -> str:
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]


def figures_of(job: PeerRun) -> tuple[Figures, bool]:
    """Return a run's figures, and whether QEMU had to run for them.

    Raises:
        UserError: the program cannot run or fails, or a tool is missing.
        Disagreement: its output is not PyTorch's.
    """
    place = _place(job)
    models = f"{run_hash(job.board, job.threads)}-{model_hash(job.board)}-{_FIGURES}"
    known = place.with_name(f"{place.name}-{models}.json")
    try:
        return _checked(Figures.read(json.loads(known.read_text(encoding="utf-8"))), job), False
    except (OSError, TypeError, ValueError, AttributeError):
        pass  # never made, or damaged
    profile, maps, difference, ran = _counted(job)
    run = model_program(parse_profile(profile), maps, job.board, hottest=1, threads=job.threads)
    figures = _checked(Figures.of(run, difference, job.system.key), job)
    write_text(known, json.dumps(asdict(figures), allow_nan=False))
    return figures, ran


def instructions_of(job: PeerRun) -> int:
    """Count the instructions of all threads in a run's region; nothing is modelled. Raises `UserError` as `figures_of`."""
    profile = parse_profile(_counted(job)[0])
    return sum(block.count * len(block.code) // INSTRUCTION_BYTES for block in profile.executed())


def _place(job: PeerRun) -> Path:
    return cache_dir() / "peers/runs" / job.key()


def _counted(job: PeerRun) -> tuple[bytes, str, float, bool]:
    """Return the output of `count_run`, from the cache if it is there, and whether QEMU had to run."""
    cached = _place(job).with_suffix(".gz")
    try:
        content = json.loads(gzip.decompress(cached.read_bytes()))
        return content["profile"].encode("latin-1"), content["maps"], float(content["difference"]), False
    except (OSError, EOFError, ValueError, KeyError, gzip.BadGzipFile):
        profile, maps, difference = count_run(job)
        content = {"profile": profile.decode("latin-1"), "maps": maps, "difference": difference}
        write_bytes(cached, gzip.compress(json.dumps(content).encode(), compresslevel=3, mtime=0))
        return profile, maps, difference, True


def _checked(figures: Figures, job: PeerRun) -> Figures:
    check_difference(figures.difference, job)
    return figures


def check_difference(difference: float, job: PeerRun) -> None:
    """Raise `Disagreement` for an output that is too far from PyTorch's, relative to its largest magnitude."""
    if not difference <= job.system.tolerance:
        raise Disagreement(
            f"{job.system.key}'s output is {difference:.1e} of its largest magnitude off PyTorch's; {job.system.tolerance:g} is allowed.",
            f"Look at {job.files[0]}.",
        )


def count_run(job: PeerRun) -> tuple[bytes, str, float]:
    """Run the program under QEMU; return the plugin's counts, the memory map, and the output's difference from PyTorch's."""
    build_plugin(phases=overlaps(job.board))  # here, where a compiler is found
    with tempfile.TemporaryDirectory(prefix="tvmmobile-peers-") as scratch:
        command = [sys.executable, str(_PROFILER), job.board_name, str(job.sysroot), scratch, str(job.threads), *job.command()]
        output = run_to_the_end(command, environment_of(job, scratch), job)
        profile, maps = Path(scratch, "profile").read_bytes(), Path(scratch, "maps").read_text(encoding="utf-8")
    return profile, maps, difference_in(output, job)


def difference_in(output: str, job: PeerRun) -> float:
    """Read a program's difference from PyTorch, relative to the largest magnitude; raise `UserError` if it printed none."""
    match = _DIFFERENCE.search(output)
    if match is None:
        raise UserError(f"{job.system.key} did not say how far it is from PyTorch.", f"See {job.system.program}.")
    return float(match[1]) / (float(np.abs(np.load(job.files[0].parent / "logits.npy")).max()) or 1.0)


def environment_of(job: PeerRun, scratch: str) -> dict[str, str]:
    """Return the program's whole environment: the same everywhere, because it is part of its memory, and thus of what is modelled."""
    tools = os.pathsep.join(dict.fromkeys(str(require(name).parent) for name in ("qemu-aarch64", "llvm-mca")))
    return {
        "PATH": f"{tools}{os.pathsep}{os.defpath}",
        "TMPDIR": scratch,
        "TVMMOBILE_CACHE": str(cache_dir()),
        "PYTHONPATH": str(EXAMPLES),
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",  # numpy's, which has nothing to do here
        **job.system.environment,
    }


def run_to_the_end(command: list[str], environment: dict[str, str], job: PeerRun) -> str:
    """Run a program and return its output; it and its children have ended when this returns or raises."""
    name = f"{job.system.key} on {job.board.name}"
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C is for this process, which then ends that one
    )
    try:
        output, errors = process.communicate(timeout=RUN_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        _end(process)
        raise UserError(f"{name} did not finish within {RUN_TIMEOUT_S} s.", "Run it again on an idle machine.") from error
    except BaseException:
        _end(process)
        raise
    if process.returncode:
        last = next((line.strip() for line in reversed(f"{output}\n{errors}".splitlines()) if line.strip()), "")
        cause = next((line.strip() for line in reversed(errors.splitlines()[:-1]) if line.strip()), "")
        raise UserError(f"{name} failed: {' '.join(filter(None, (cause, last)))}", f"Run {job.system.program.name} by hand to see more.")
    return output


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and the programs it started: they are its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            break
    process.communicate()
