"""A library on a device, with the user's input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmmobile.devices.protocol import Device, DeviceProfile
from tvmmobile.pipeline.request import device_of
from tvmmobile.pipeline.stages import failure_of, session_timeout_s
from tvmmobile.running.bench import started_agents
from tvmmobile.running.library import Library
from tvmmobile.running.measure import Agents, MeasureError, NetworkRun, Startup
from tvmmobile.system.errors import UserError

#: A device by name, as `find_device` returns it, or started.
Place = str | Device | Agents


@dataclass(frozen=True)
class LibraryRun:
    """A library that was run and timed on the device of that profile; `startup` is `None` where modelled."""

    profile: DeviceProfile
    network: NetworkRun
    startup: Startup | None

    @property
    def output(self) -> npt.NDArray[Any]:
        """The network's output."""
        return self.network.output

    @property
    def latency_ms(self) -> float:
        """Modelled, or the samples' median: `profile.origin` says which."""
        return self.network.latency.seconds * 1e3


@contextmanager
def start(device: str | Device = "pi4", timed: bool = True) -> Iterator[Agents]:
    """A started device while the context lasts, for several runs of libraries; starting it takes about a second.

    Unless they are `timed`, a virtual board is faster. Raises `DeviceUnavailable` or `UserError`, see `Device.started`.
    """
    with started_agents(device_of(device), timed=timed) as agents:
        yield agents


@contextmanager
def agents_on(place: Place, library: Library, timed: bool) -> Iterator[Agents]:
    """The agents of a device, started if need be; raises `UserError` where it has fewer cores than the library threads."""
    if isinstance(place, Agents):
        check_cores(library, place.profile)
        yield place
        return
    board = device_of(place)
    check_cores(library, board.profile)
    with start(board, timed) as agents:
        yield agents


def check_cores(library: Library, profile: DeviceProfile) -> None:
    """Raises `UserError` for a library of more threads than the device has cores."""
    if library.threads > profile.cores:
        raise UserError(
            f"{library.path.name} uses {library.threads} threads, more than the {profile.cores} cores of {profile.board}.",
            f"Compile it for this device: tvmmobile compile --device {profile.name} --threads {profile.cores}",
        )


def output_of(library: Library, image: npt.ArrayLike, device: Place = "pi4") -> npt.NDArray[np.float32]:
    """What a library returns for an input, without a latency; see `run`."""
    array = _input(library, image)
    with agents_on(device, library, timed=False) as agents:
        try:
            (found,) = agents.outputs(library.path, [array], library.threads, session_timeout_s(library))
        except MeasureError as error:
            raise failure_of(library, agents.profile, error) from error
    return found


def run(library: Library, image: npt.ArrayLike, device: Place = "pi4", *, repeat: int = 30, warmup_runs: int = 5) -> LibraryRun:
    """Run a library on a device, and time it; `repeat` and `warmup_runs` are as of `bench`.

    Raises `DeviceUnavailable`, `Disagreement` where the library does not run there, and `UserError` for an input of another shape or a
    device with fewer cores than the library threads.

    Args:
        image: what NumPy makes a float32 array of, in the shape of the library's input, `[1, channels, side, side]`.
        device: its name, what `find_device` returns, or what `start` yields.
    """
    array = _input(library, image)
    with agents_on(device, library, timed=True) as agents:
        timing = agents.network_timing(library.threads, repeat, warmup_runs)
        startup, timeout_s = None, session_timeout_s(library)
        try:
            if not agents.profile.origin.modelled:
                startup = agents.measure_startup(library.path, array, library.threads, timeout_s)
            return LibraryRun(agents.profile, agents.measure_network(library.path, array, timeout_s, timing), startup)
        except MeasureError as error:
            raise failure_of(library, agents.profile, error) from error


def _input(library: Library, image: npt.ArrayLike) -> npt.NDArray[np.float32]:
    try:
        array = np.ascontiguousarray(image, dtype=np.float32)
    except (TypeError, ValueError, RuntimeError) as error:  # PyTorch's own error says what its tensor lacks
        raise UserError(f"the input is not an array of numbers: {error}.", "Give a NumPy array or a detached tensor.") from error
    if array.shape != library.spec.input_shape:
        given, wanted = (list(shape) for shape in (array.shape, library.spec.input_shape))
        raise UserError(f"the input is {given}, and {library.path.name} takes {wanted}.", "Give it in that shape, as NCHW.")
    return array
