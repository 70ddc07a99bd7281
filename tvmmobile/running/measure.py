"""Runs a compiled library on a device, a kernel with given arrays or a whole network, and returns outputs and time.

On a virtual board a run's executed blocks and cache misses are counted, and the board's model says how long they take
(virtual/modelled.py); on a real one the clock is read. Every failure is a `MeasureError` whose kind tells a bad library ("crashed",
"timeout", "load") from an unreachable device ("link").
"""

from __future__ import annotations

import functools
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import numpy.typing as npt

from tvmmobile.devices.agents.rpc import HostGone, LinkError, open_session
from tvmmobile.devices.board.storage import not_stored_by
from tvmmobile.devices.protocol import DeviceProfile, Endpoint, Kind, NotStored
from tvmmobile.running.networks import Calling, CNetwork, ReadyNetwork, VmNetwork, calling
from tvmmobile.system.clock import ClockPlan, sample_clock
from tvmmobile.system.files import check_space
from tvmmobile.virtual.board import Board, load_board
from tvmmobile.virtual.calibration.fit import Phase
from tvmmobile.virtual.cores.core_model import HOTTEST, BlockCost
from tvmmobile.virtual.elf import AARCH64
from tvmmobile.virtual.modelled import modelled_regions, modelled_run
from tvmmobile.virtual.profile import MissCounts, parse_profile, profile_of

FailureKind = Literal["crashed", "timeout", "load", "link", "host"]
Array = npt.NDArray[Any]
#: Fields of `Timing` that are not sent to the agent.
_OURS = ("settle", "warm_s", "min_total_ms", "max_total_ms")
#: Least duration of a board's warm-up. `schedutil` asks for the highest clock once a task's use has grown to four fifths, after 2.3 of the
#: half-lives of 32 ms by which Linux weighs it.
WARM_S = 0.1
#: The agent's answer when it ends a session itself (agent.cc, `SayWhy`).
_ENDED = re.compile(r"tvmmobile session (crashed|timeout|starved): ([^\n]*)")
_KILLED = "killed by SIGKILL"
Given = ParamSpec("Given")
Found = TypeVar("Found")


class MeasureError(Exception):
    """Raised when a library cannot be measured.

    Attributes:
        reason: one line, such as `killed by SIGSEGV` or `did not finish within 10 s`.
        kind: `crashed`, `timeout` and `load` are the library's fault; `link` and `host` say nothing about it: with `host`, the way to the
            device is gone for good.
    """

    def __init__(self, reason: str, kind: FailureKind) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind: FailureKind = kind

    def __reduce__(self) -> tuple[type[MeasureError], tuple[str, FailureKind]]:
        return MeasureError, (self.reason, self.kind)  # it travels between worker processes


@dataclass(frozen=True)
class Timing:
    """Settings for timing a run. A virtual board needs a single run: `repeat`, `number` and `min_time_ms` are for real ones.

    Attributes:
        warmup: runs before the timed ones.
        repeat: samples.
        number: least number of runs per sample.
        min_time_ms: least duration of a sample; raises `number` if needed.
        flush_bytes: memory streamed over before each sample, so that weights are cold; on a virtual board, 0 leaves the simulated caches as
            they are and anything else empties them.
        produce: arguments that the previous layer has written; they are brought into the caches after flushing.
        threads: number of threads in TVM's pool.
        settle, warm_s, min_total_ms, max_total_ms: see `ClockPlan`; a model uses none of them.
    """

    warmup: int = 0
    repeat: int = 1
    number: int = 1
    min_time_ms: int = 0
    flush_bytes: int = 0
    produce: tuple[int, ...] = ()
    threads: int = 1
    settle: float = 0.0
    warm_s: float = 0.0
    min_total_ms: int = 0
    max_total_ms: int = 0


ONCE, WARM = Timing(), Timing(warmup=1)


@dataclass(frozen=True)
class Latency:
    """Latency of one run, and its parts.

    Attributes:
        kind: kind of the device's `Origin`.
        seconds: modelled seconds, or the samples' median.
        cycles: modelled core cycles, without the cost of misses; None when measured.
        instructions: executed instructions, exact; None when measured.
        l1d_misses: misses of the simulated first-level data cache; None when measured.
        dram_bytes: bytes that were read from memory and written back to it; None when measured.
        misses: misses of the simulated caches, by kind; None when measured.
        term_ms: the terms of `seconds` by name, in milliseconds (docs/virtual-boards.md); empty when measured.
        samples_ns: raw samples in ns; empty when modelled.
        steady: true if the times had settled before the first sample.
        hottest: the costliest blocks, most cycles first; empty when measured.
        unknown_instructions: executed instructions the model knows only a lower bound for.
        phases: the parts of `cycles` and `misses`, if the model distinguishes phases of a run.
    """

    kind: Kind
    seconds: float
    cycles: int | None = None
    instructions: int | None = None
    l1d_misses: int | None = None
    dram_bytes: int | None = None
    misses: MissCounts | None = None
    term_ms: Mapping[str, float] = field(default_factory=dict)
    samples_ns: tuple[float, ...] = ()
    hottest: tuple[BlockCost, ...] = ()
    unknown_instructions: int = 0
    steady: bool = True
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True)
class KernelRun:
    """Time of one kernel's run, and the requested arrays as the timed run left them."""

    latency: Latency
    outputs: tuple[Array, ...]


@dataclass(frozen=True)
class KernelCall:
    """A kernel's call in its network: seconds modelled or the runs' median; misses and bytes as in `Latency`, `None` if measured."""

    symbol: str
    seconds: float
    l1d_misses: int | None = None
    dram_bytes: int | None = None


@dataclass(frozen=True)
class NetworkRun:
    """Results of one network's run.

    Attributes:
        latency: latency of the run.
        outputs: the network's outputs.
        peak_memory_bytes: rise of the session's resident memory above an idle session's: library, weights, activations, and on a
            virtual board the code QEMU translated.
        calls: calls of kernels, in order of execution, from further runs that were timed call by call.
    """

    latency: Latency
    outputs: tuple[Array, ...]
    peak_memory_bytes: int
    calls: tuple[KernelCall, ...]


@dataclass(frozen=True)
class Startup:
    """A library's start-up time by a board's clock; never modelled.

    Attributes:
        init_seconds: time from the library's file on the board to a virtual machine that is ready, as seen from here: a few of the link's
            round trips are part of it.
        first_seconds: the first run, by the board's clock; it allocates the activations and touches the weights for the first time.
    """

    init_seconds: float
    first_seconds: float


def _again_if_killed(verb: Callable[Given, Found]) -> Callable[Given, Found]:
    """Run again if the session was killed, as the kernel does when memory runs out: no fault of a library causes that signal."""

    @functools.wraps(verb)
    def tried(*given: Given.args, **named: Given.kwargs) -> Found:
        try:
            return verb(*given, **named)
        except MeasureError as error:
            if error.reason != _KILLED:
                raise
        return verb(*given, **named)

    return tried


@dataclass(frozen=True)
class Agents:
    """Reaches the agents of a started device from any process of this machine; each verb opens a session of its own with a free one.

    Every verb takes `library`, a `.so` for the device, and `timeout_s`, the time limit of the whole session, including loading; on a
    virtual board, time in which it waits for a processor of this machine does not count, up to `Endpoint.longest_s`. Every verb raises
    `MeasureError` if it fails; see its kind. For a C library with a bad manifest, verbs raise `UserError`, and for one that the device's
    disk has no room for, `DeviceUnavailable`.

    Attributes:
        profile: the device's.
        endpoint: the tracker that hands out agents.
    """

    profile: DeviceProfile
    endpoint: Endpoint

    @_again_if_killed
    def measure_kernel(
        self, library: Path, function: str, arrays: Sequence[Array], timeout_s: float, timing: Timing = ONCE, outputs: Sequence[int] = (-1,)
    ) -> KernelRun:
        """Run a packed function of a library with C-contiguous `arrays`; those whose indices are in `outputs` come back."""
        with self.session(timeout_s) as session:
            _upload(session, library)
            with _loading(library.name):
                module = session.load_module(library.name)
            tensors = [session.put(array) for array in arrays]
            latency = self._timed(session, module, function, timing, tensors)
            return KernelRun(latency, tuple(session.get(tensors[index]) for index in outputs))

    @_again_if_killed
    def measure_network(self, library: Path, inputs: Sequence[Array], timeout_s: float, timing: Timing = WARM) -> NetworkRun:
        """Run a network's library; in TVM's virtual machine a run to warm up allocates the
        activations."""
        convention = calling(library, self.profile)
        with self.session(timeout_s) as session:
            network = _network(session, library, convention, timing.threads, self.profile.cpus)
            network.set_inputs(inputs)
            latency = self._timed(session, network.module, network.function, timing, network.arguments, network.threads)
            outputs = network.outputs()
            peak = int(session.get_function("tvmmobile.peak_memory")()) - int(session.get_function("tvmmobile.baseline_memory")())
            # Nothing stops the timing by kernels early, so that it has no more runs than the network got in its time.
            calls = replace(timing, repeat=min(timing.repeat, len(latency.samples_ns) or 1))
            return NetworkRun(latency, outputs, peak, self._timed_calls(session, network, calls) if network.observable else ())

    def measure_startup(self, library: Path, inputs: Sequence[Array], threads: int, timeout_s: float) -> Startup:
        """Load a library that is known to run on the board and run it once, timed by the board's clock."""
        convention = calling(library, self.profile)
        with self.session(timeout_s) as session:
            _upload_network(session, library, convention)
            begin = time.monotonic()
            network = _ready(session, library, convention, threads, self.profile.cpus)
            init_seconds = time.monotonic() - begin
            network.set_inputs(inputs)
            answer = time_evaluator(session, network.module, network.function, Timing(threads=network.threads), "clock")(*network.arguments)
            (first_ns,) = json.loads(bytes(answer))["samples_ns"]
            return Startup(init_seconds, first_ns * 1e-9)

    @_again_if_killed
    def outputs(self, library: Path, inputs: Sequence[Sequence[Array]], threads: int, timeout_s: float) -> list[tuple[Array, ...]]:
        """Return a network's outputs for each set of inputs; no latency, so a virtual board need not model one."""
        found, convention = [], calling(library, self.profile)
        with self.session(timeout_s) as session:
            network = _network(session, library, convention, threads, self.profile.cpus)
            run = time_evaluator(session, network.module, network.function, Timing(threads=network.threads), "clock")
            for arrays in inputs:
                network.set_inputs(arrays)
                run(*network.arguments)
                found.append(network.outputs())
        return found

    def copy_rate(self, timeout_s: float) -> float:
        """Measure the bytes per second that one core reads and writes while copying a large array."""
        with self.session(timeout_s) as session:
            return float(session.get_function("tvmmobile.copy_rate")())

    def network_timing(self, threads: int, repeat: int, warmup: int) -> Timing:
        """Return the timing of a whole network; `repeat` and `warmup` apply to clocks, a model needs one warm-up and one run."""
        if self.profile.origin.modelled:
            return Timing(warmup=1, threads=threads)
        return Timing(warmup, repeat, threads=threads, settle=0.02, warm_s=WARM_S, min_total_ms=500, max_total_ms=20_000)

    def kernel_timing(self, threads: int) -> Timing:
        """Return the timing of a single kernel: cold weights, input as left by the layer before; one run if the clock is modelled.

        A kernel's arguments are the activation, then its weights, then the output, which other layers have used in between.
        """
        cold = Timing(flush_bytes=4 * self.profile.machine.largest_cache_bytes, produce=(0,), threads=threads)
        if self.profile.origin.modelled:
            return cold
        return replace(cold, warmup=1, repeat=10, settle=0.05, warm_s=WARM_S, min_total_ms=20, max_total_ms=3000)

    @contextmanager
    def session(self, timeout_s: float) -> Iterator[Any]:
        """Open a session whose failures become `MeasureError`s; a full disk is `DeviceUnavailable` there, and `OSError` on this machine."""
        try:
            with open_session(self.endpoint, timeout_s) as session:
                yield session
        except Exception as error:
            if self.profile.origin.modelled:
                check_space(Path(tempfile.gettempdir()), error.size if isinstance(error, NotStored) else 0)
            elif isinstance(error, NotStored):
                raise not_stored_by(self.profile.name, error) from error
            if isinstance(error, MeasureError):
                raise
            if not isinstance(error, LinkError | OSError):  # TVM raises errors of any kind from C++ on either end of the connection
                raise session_error(error) from error
            raise MeasureError(str(error), "host" if isinstance(error, HostGone) else "link") from error

    def _timed(
        self, session: Any, module: Any, function: str, timing: Timing, arguments: Sequence[Any], pool: int | None = None
    ) -> Latency:
        """Run a function as `timing` says, on its number of threads of TVM's pool; on a board as often as its clock needs."""
        threads, timing = timing.threads, replace(timing, threads=timing.threads if pool is None else pool)
        if self.profile.origin.modelled:
            answer = time_evaluator(session, module, function, timing, "model")(*arguments)
            return _modelled(bytes(answer), load_board(self.profile.board_file), threads)
        if timing.warmup:
            warm_up = replace(timing, warmup=timing.warmup - 1, repeat=1, number=1, min_time_ms=0)
            time_evaluator(session, module, function, warm_up, "clock")(*arguments)

        def run(count: int) -> list[float]:
            answer = time_evaluator(session, module, function, replace(timing, warmup=0, repeat=count), "clock")(*arguments)
            return [float(sample) for sample in json.loads(bytes(answer))["samples_ns"]]

        sampled = sample_clock(run, ClockPlan(timing.settle, timing.warm_s, timing.repeat, timing.min_total_ms, timing.max_total_ms))
        seconds = statistics.median(sampled.samples_ns) * 1e-9
        return Latency(self.profile.origin.kind, seconds, samples_ns=sampled.samples_ns, steady=sampled.steady)

    def _timed_calls(self, session: Any, network: ReadyNetwork, timing: Timing) -> tuple[KernelCall, ...]:
        """Run a network further times, and time each kernel separately. The cost between kernels is in no kernel's time."""
        mode = "model" if self.profile.origin.modelled else "clock"
        run = time_evaluator(session, network.module, network.function, replace(timing, threads=network.threads), mode, calls=True)
        answer = json.loads(bytes(run(*network.arguments)))
        if mode == "clock":
            medians = (statistics.median(samples) * 1e-9 for samples in zip(*answer["samples_ns"], strict=True))
            return tuple(KernelCall(*call) for call in zip(answer["calls"], medians, strict=True))
        board = load_board(self.profile.board_file)
        # The profile also includes regions that were opened earlier, for the whole network.
        regions = modelled_regions(profile_of(answer["profile"]), board, timing.threads)[-len(answer["calls"]) :]
        return tuple(
            KernelCall(symbol, region.modelled_ms * 1e-3, region.misses.l1d, region.misses.dram_bytes(board.caches.line_bytes))
            for symbol, region in zip(answer["calls"], regions, strict=True)
        )


def session_error(error: Exception) -> MeasureError:
    """Return the failure behind an exception of TVM's client, such as a timeout that the agent reports."""
    text = str(error)
    ended = _ENDED.search(text)
    if ended:
        if ended.group(1) == "starved":
            return MeasureError(f"this machine is too busy: a session {ended.group(2)}", "link")
        return MeasureError(ended.group(2), "timeout" if ended.group(1) == "timeout" else "crashed")
    if _is_outage(text):
        return MeasureError(f"the agent went away: {_first_line(text)}", "link")
    return MeasureError(_first_line(text) or type(error).__name__, "crashed")


def _is_outage(text: str) -> bool:
    """Return whether TVM's client says that its connection ended (rpc_endpoint.cc, socket.h), as it does when the agent itself is gone."""
    signs = ("Channel closes", "previously closed", "code == RPCCode::kReturn", "SockChannel::")
    return any(sign in text for sign in signs)


def _first_line(text: str) -> str:
    """Return the first line of an error, without the traceback."""
    lines = [
        line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("RPCError: Error caught", "Traceback", "  "))
    ]
    return lines[0] if lines else ""


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Turn the agent's errors into `load` failures; outages, crashes and deadlines keep their kind."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or _ENDED.search(str(error)) or _is_outage(str(error)):
            raise
        raise MeasureError(f"{name} cannot be loaded on the device: {_first_line(str(error))}", "load") from error


def _upload(session: Any, library: Path) -> None:
    with library.open("rb") as stream:
        header = stream.read(20)
    # The device's loader reports "no such file" for a library for another processor.
    if header[:4] != b"\x7fELF" or int.from_bytes(header[18:20], "little") != AARCH64:
        raise MeasureError(f"{library.name} is not an AArch64 library", "load")
    session.upload_file(library)


def _network(session: Any, library: Path, convention: Calling, threads: int, cpus: int) -> ReadyNetwork:
    """Upload and load a network's library; raise a `load` `MeasureError` if the device's loader refuses it."""
    _upload_network(session, library, convention)
    return _ready(session, library, convention, threads, cpus)


def _upload_network(session: Any, library: Path, convention: Calling) -> None:
    """Upload a network's library and its caller."""
    _upload(session, library)
    if convention.c is not None:
        session.upload_file(convention.c.adapter)


def _ready(session: Any, library: Path, convention: Calling, threads: int, cpus: int) -> ReadyNetwork:
    """Return an uploaded network's library, ready to be run."""
    with _loading(library.name):
        if convention.c is None:
            return VmNetwork(session, session.load_module(library.name), threads, convention)
        module = session.load_module(convention.c.adapter.name)
        return CNetwork(session, module, library.name, convention.c, threads, convention, cpus, convention.number)


def time_evaluator(session: Any, module: Any, function: str, timing: Timing, mode: str, *, calls: bool = False) -> Callable[..., Any]:
    """Return a function of the session that runs a module's function with given arguments as `timing` says, and answers with its times."""
    spec = {name: value for name, value in asdict(timing).items() if name not in _OURS} | {"mode": mode, "calls": calls}
    with _loading(f"{function}()"):
        evaluator: Callable[..., Any] = session.get_function("tvmmobile.evaluator")(module, function, json.dumps(spec))
    return evaluator


def _modelled(answer: bytes, board: Board, threads: int) -> Latency:
    run = modelled_run(parse_profile(answer), board, threads, HOTTEST)
    return Latency(
        "modelled",
        run.modelled_ms * 1e-3,
        cycles=run.core.cycles,
        instructions=run.core.instructions,
        l1d_misses=run.misses.l1d,
        dram_bytes=run.dram_bytes,
        misses=run.misses,
        term_ms=run.term_ms,
        hottest=run.core.hottest,
        unknown_instructions=run.core.unknown_instructions,
        phases=run.phases,
    )
