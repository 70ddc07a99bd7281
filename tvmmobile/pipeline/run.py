"""Runs a library on a device with the user's input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from tvmmobile.devices.protocol import Device, DeviceProfile
from tvmmobile.networks.arrays import check_finite
from tvmmobile.networks.signature import Port, words
from tvmmobile.pipeline.agreement import failure_of, session_timeout_s
from tvmmobile.pipeline.options.call import with_options
from tvmmobile.pipeline.options.compiled import TimingArguments, TimingOptions
from tvmmobile.pipeline.request import device_of
from tvmmobile.running.bench import started_agents
from tvmmobile.running.library import Library, checked_library
from tvmmobile.running.measure import Agents, MeasureError, NetworkRun, Startup
from tvmmobile.system.errors import UserError, one_line

Array = npt.NDArray[Any]
#: A network's input, or several inputs by name or in order.
Given = npt.ArrayLike | Mapping[str, npt.ArrayLike] | tuple[npt.ArrayLike, ...]
#: A device: its name, a result of `find_device`, or a started device.
DeviceLike = str | Device | Agents


@dataclass(frozen=True)
class LibraryRun:
    """A library that was run and timed on the device with that profile; `startup` is `None` if modelled."""

    profile: DeviceProfile
    network: NetworkRun
    startup: Startup | None

    @property
    def output(self) -> Array:
        """The network's output, or the first of several."""
        return self.network.outputs[0]

    @property
    def latency_ms(self) -> float:
        """The modelled latency or the samples' median; `profile.origin` says which."""
        return self.network.latency.seconds * 1e3


@contextmanager
def start(device: str | Device = "pi4", timed: bool = True) -> Iterator[Agents]:
    """Yield a started device while the context lasts, for several runs of libraries; starting it takes about a second.

    Args:
        device: its name, or what `find_device` returns; default: the virtual Raspberry Pi 4, unless a board is registered as `pi4`.
        timed: true if latencies are wanted; without them, a virtual board is faster.

    Raises:
        DeviceUnavailable: the device cannot be reached, or does not start.
        UserError: there is no such device, or a program that is needed is not installed.
    """
    with started_agents(device_of(device), timed=timed) as agents:
        yield agents


@contextmanager
def agents_on(device: DeviceLike, library: Library, timed: bool) -> Iterator[Agents]:
    """Yield the agents of a device, started if necessary; raise `UserError` if it has fewer cores than the library has threads."""
    if isinstance(device, Agents):
        check_cores(library, device.profile)
        yield device
        return
    board = device_of(device)
    check_cores(library, board.profile)
    with start(board, timed) as agents:
        yield agents


def check_cores(library: Library, profile: DeviceProfile) -> None:
    """Raise `UserError` for a library of more threads than the device has cores."""
    if library.threads > profile.cores:
        raise UserError(
            f"{library.path.name} uses {library.threads} threads, more than the {profile.cores} cores of {profile.board}.",
            f"Compile it for this device: tvmmobile compile --device {profile.name} --threads {profile.cores}",
        )


def output_of(library: Library, given: Given, device: DeviceLike = "pi4") -> Array | dict[str, Array]:
    """Return a library's output, by name if there are several, without a latency; see `run`."""
    arrays, returns = _inputs(library, given), library.spec.returns
    with agents_on(device, library, timed=False) as agents:
        try:
            (found,) = agents.outputs(library.path, [arrays], library.threads, session_timeout_s(library))
        except MeasureError as error:
            raise failure_of(library, agents.profile, error) from error
    return found[0] if len(returns) == 1 else {port.name: array for port, array in zip(returns, found, strict=True)}


@with_options(TimingOptions)
def run(library: Library, given: Given, device: DeviceLike = "pi4", **options: Unpack[TimingArguments]) -> LibraryRun:
    """Run a library on a device, and time it.

    Args:
        library: a library that `compile` or `tune` made, or `open_libraries` found.
        given: anything that NumPy turns into an array of the input's shape, such as `[1, channels, side, side]`; for several inputs
            arrays by name, or a tuple of all in order.
        device: its name, what `find_device` returns, or what `start` yields; default: the virtual Raspberry Pi 4, unless a board is
            registered as `pi4`.
        options: see `TimingOptions`, which `help` lists.

    Returns:
        The outputs, as NumPy arrays of the library's types and shapes, with the latency and the memory.

    Raises:
        UserError: the input has another shape, or numbers that are not finite in the library's type, or the device has fewer cores than
            the library threads.
        DeviceUnavailable: the device cannot be reached.
        Disagreement: the library does not run there.
    """
    settings, arrays = TimingOptions.of(options), _inputs(checked_library(library), given)
    with agents_on(device, library, timed=True) as agents:
        timing = agents.network_timing(library.threads, settings.repeat, settings.warmup_runs)
        startup, timeout_s = None, session_timeout_s(library)
        try:
            if not agents.profile.origin.modelled:
                startup = agents.measure_startup(library.path, arrays, library.threads, timeout_s)
            return LibraryRun(agents.profile, agents.measure_network(library.path, arrays, timeout_s, timing), startup)
        except MeasureError as error:
            raise failure_of(library, agents.profile, error) from error


def _inputs(library: Library, given: Given) -> list[Array]:
    """Return a library's inputs in order; raise `UserError` where one is missing or cannot be used."""
    takes = library.spec.takes
    if isinstance(given, Mapping):
        named: Mapping[str, npt.ArrayLike] = given
    else:
        arrays = given if isinstance(given, tuple) else (given,)
        if len(arrays) != len(takes):
            raise UserError(f"{len(arrays)} inputs are given, and {library.path.name} takes {len(takes)}.", _by_name(takes))
        named = {port.name: array for port, array in zip(takes, arrays, strict=True)}
    if named.keys() != {port.name for port in takes}:
        raise UserError(f"inputs called {', '.join(map(str, named)) or 'nothing'} are given to {library.path.name}.", _by_name(takes))
    return [_input(library, port, entry.dtype, named[port.name]) for port, entry in zip(takes, library.facts.takes, strict=True)]


def _by_name(takes: Sequence[Port]) -> str:
    return f"Give {', '.join(map(str, takes))}."


def _input(library: Library, port: Port, stored: str, given: npt.ArrayLike) -> Array:
    """Return one input as an array of the port's type; `stored` is the type in which the library takes it."""
    called = "input" if len(library.spec.takes) == 1 else f"input {port.name}"
    try:
        if given is None:
            raise TypeError("it is None")
        found = np.asarray(given)
        if found.dtype.kind == "c":
            raise UserError(f"the {called} holds complex numbers.", "Give real ones.")
        if port.is_float:
            check_finite(f"the {called}", found if found.dtype.kind == "f" else found.astype(np.float64), stored)
        with np.errstate(invalid="ignore"):
            array = np.ascontiguousarray(found, dtype=port.dtype)
        # A fraction, or a class number beyond a byte, would change.
        changed = not port.is_float and not np.array_equal(array, found)
    except (TypeError, ValueError, RuntimeError) as error:  # PyTorch's own error says what its tensor lacks
        remedy = "Give a NumPy array or a detached tensor."
        raise UserError(f"the {called} is not an array of numbers: {one_line(error)}.", remedy) from error
    if array.shape != port.shape:
        remedy = "Give it in that shape, as NCHW." if len(port.shape) == 4 else "Give it in that shape."
        raise UserError(f"the {called} is {words(array.shape)}, and {library.path.name} takes {words(port.shape)}.", remedy)
    if changed:
        raise UserError(f"the {called} holds numbers that are not {port.dtype}.", f"Give it as {port.dtype}.")
    return array
