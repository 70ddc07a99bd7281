"""Runs a library once on this machine, on its reference input: under QEMU as its core, or directly where this machine is AArch64."""

from __future__ import annotations

import functools
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.devices.agent.build import LOADER, SYSROOT_LIBRARIES, build_bundle, bundle_path, loader_words
from tvmmobile.devices.virtual_board import VirtualDevice
from tvmmobile.kernels.ranked import ranking_of
from tvmmobile.kernels.reference import network_error
from tvmmobile.running.bench import started_agents
from tvmmobile.running.library import Array, Library
from tvmmobile.running.measure import MeasureError
from tvmmobile.running.networks import DISAGREES, LACKING, LACKS, checker
from tvmmobile.system.doctor import TOOLS, install_command, installed, require
from tvmmobile.system.emulators import slowdown
from tvmmobile.system.errors import DeviceUnavailable, UserError
from tvmmobile.system.programs import signal_name
from tvmmobile.system.survival import die_with_parent
from tvmmobile.virtual.board import Board, board_names, load_board

_QEMU = "qemu-aarch64"
#: QEMU's name of a core with every instruction that it knows.
_ANY_CORE = "max"
_ERROR = re.compile(r"^error (\S+) of", re.MULTILINE)
#: Error that `check.c` prints for outputs that are not finite.
_NOT_FINITE = 1e300


class NotRunnable(Exception):
    """Raised when this machine cannot run the library; the message says why, without a full stop."""


@dataclass(frozen=True)
class RunHere:
    """Results of a library's run on its reference input.

    Attributes:
        error: error of its outputs, see `network_error`.
        place: the machine or emulator that it ran on, such as `QEMU's cortex-a72`.
    """

    error: float
    place: str


def run_here(library: Library, timeout_s: float, number: int = 0) -> RunHere:
    """Run a library once and compare its outputs with the reference.

    Args:
        library: the library on disk.
        timeout_s: the longest that it may take.
        number: place of the set of kernels that runs, in a library with several.

    Raises:
        NotRunnable: QEMU is missing, or a file that it needs cannot be built.
        MeasureError: the library crashes, does not end in time or cannot be loaded.
    """
    core, found = library.facts.cores[number], None
    kernels = [f"--set={number + 1}"] * bool(library.facts.sets)
    if library.is_c and platform.machine() == "aarch64":
        try:
            found = RunHere(_check(library, (), timeout_s, kernels), "this machine")
        except MeasureError as error:
            if error.reason != LACKING:
                raise
    if found is None and not installed(_QEMU):
        raise NotRunnable(f"{_QEMU} was not found; {install_command([tool for tool in TOOLS if tool.name == _QEMU])}")
    board = board_with(core)
    place = f"QEMU's {board.qemu_cpu}"
    if found is None and library.is_c:
        found = RunHere(_check(library, (str(require(_QEMU)), "-cpu", board.qemu_cpu), timeout_s, kernels), place)
    inputs, expected = library.reference()
    # The program compares place by place; rows that nearly tie may be in another order.
    if found is not None and (found.error <= library.tolerance or ranking_of(expected) is None or not installed(_QEMU)):
        return found
    outputs = outputs_here(library.path, inputs, library.threads, core, timeout_s)
    return RunHere(network_error(outputs, expected, library.facts.quantised), place)


def outputs_here(path: Path, inputs: tuple[Array, ...], threads: int, core: str, timeout_s: float) -> tuple[Array, ...]:
    """Return a library's outputs under QEMU, as `Agents.outputs` does; raise like `run_here`."""
    try:
        with started_agents(VirtualDevice("here", board_with(core)), timed=False) as agents:
            (outputs,) = agents.outputs(path, [inputs], threads, timeout_s)
    except DeviceUnavailable as error:
        raise NotRunnable(error.as_typed[0].rstrip(".")) from error
    return outputs


@functools.cache
def board_with(core: str) -> Board:
    """Return a modelled board with that core, or else one whose core has every instruction that QEMU knows."""
    boards = {board.mcpu: board for board in map(load_board, reversed(board_names()))}
    return boards.get(core) or next(iter(boards.values())).model_copy(update={"qemu_cpu": _ANY_CORE})


def check_options(library: Library) -> list[str]:
    """Return the options of `check.c` for a library."""
    return [f"--tolerance={library.tolerance:g}", *["--quantised"] * library.facts.quantised]


def _check(library: Library, emulator: tuple[str, ...], timeout_s: float, options: Sequence[str] = ()) -> float:
    """Return the error that `check.c` finds; raise like `run_here`."""
    timeout_s *= slowdown()
    try:
        folder, program = _runtime(), checker()
    except UserError as error:
        message, remedy = error.as_typed
        raise NotRunnable(f"{message.rstrip('.')}; {remedy}") from error
    command = [*emulator, *loader_words(str(folder)), str(program), *check_options(library), *options]
    command += [str(library.path.absolute()), library.facts.program.prefix, str(library.threads), "0"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False, preexec_fn=die_with_parent
        )
    except subprocess.TimeoutExpired:
        raise MeasureError(f"did not finish within {timeout_s:.0f} s", "timeout") from None
    found = _ERROR.search(done.stdout)
    if done.returncode not in (0, DISAGREES) or found is None:
        raise _failure(done.returncode, done.stderr)
    off = float(found[1])
    return off if off < _NOT_FINITE else float("inf")


def _failure(code: int, output: str) -> MeasureError:
    """Return the error for a program that ended by a signal, or with one of the codes with which `check.c` reports a failed library."""
    if code < 0:
        return MeasureError(f"killed by {signal_name(-code)}", "crashed")  # in the agent's words
    if code == LACKS:
        return MeasureError(LACKING, "load")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return MeasureError(lines[-1] if lines else f"status {code}", "load")


def _runtime() -> Path:
    """Return a folder with a loader and a C library for AArch64: the agent's if it is built, else the cross compiler's."""
    if not bundle_path().is_dir() and (SYSROOT_LIBRARIES / LOADER).is_file():
        return SYSROOT_LIBRARIES
    return build_bundle()
