"""A compiled library that runs on devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, Unpack

from tvmmobile.devices.protocol import Device
from tvmmobile.pipeline.bench import bench
from tvmmobile.pipeline.listener import QUIET, Listener
from tvmmobile.pipeline.options.call import with_options
from tvmmobile.pipeline.options.compiled import BenchArguments, BenchOptions
from tvmmobile.pipeline.outcome import kernel_results
from tvmmobile.pipeline.run import DeviceLike, Given, output_of
from tvmmobile.results.file import KernelResult, Results
from tvmmobile.running.library import Library, find_libraries
from tvmmobile.system.arguments import one_or_several


class CompiledLibrary(Library):
    """A compiled network, made by `compile` or `tune`, or found on disk by `open_libraries`."""

    @classmethod
    def of(cls, library: Library) -> Self:
        """Return a library that can be run and timed, given its files."""
        return cls(**vars(library))

    @property
    def kernels(self) -> tuple[KernelResult, ...]:
        """The library's kernels in order of execution, each with its layer type, multiply-adds, schedule, and latency as recorded."""
        return kernel_results(self.facts.kernels, ())

    @property
    def kernels_by_device(self) -> dict[str, tuple[KernelResult, ...]]:
        """The kernels for each device that the library was compiled for, by the device's name; `kernels` are those for the first."""
        facts = self.facts
        return {each.device: kernel_results(each.kernels, ()) for each in facts.sets or (facts,)}

    @property
    def fastest_threads(self) -> dict[str, int]:
        """The number of threads with which a C library is fastest, by the records of each device that it was compiled for; keys are device
        names.

        `init` uses it if the options request that, see docs/several-cores.md. Libraries of older versions lack it.
        """
        facts = self.facts
        counts = {each.device: each.fastest_threads for each in facts.sets or (facts,)}
        return {device: count for device, count in counts.items() if count is not None}

    def run(self, given: Given, device: DeviceLike = "pi4") -> Any:
        """Return the library's output for an input: an array, or several by name. `tm.run` also gives latency and memory.

        Args:
            given: anything that NumPy turns into an array of the input's shape; for several inputs arrays by name, or a tuple of all in
                order.
            device: its name, what `tm.find_device` returns, or what `tm.start` yields; default: the virtual Raspberry Pi 4, unless a board
                is registered as `pi4`.

        Raises:
            UserError: the input has another shape, or numbers that are not finite in the library's type, or the device has fewer cores
                than the library threads.
            DeviceUnavailable: the device cannot be reached.
            Disagreement: the library does not run there.
        """
        return output_of(self, given, device)

    @with_options(BenchOptions)
    def bench(self, device: str | Device = "pi4", *, listener: Listener = QUIET, **options: Unpack[BenchArguments]) -> Results:
        """Check the library against PyTorch on a device, and time it; `tm.bench` takes several.

        Args:
            device: its name, or what `tm.find_device` returns; default: the virtual Raspberry Pi 4, unless a board is registered as `pi4`.
            options: see `BenchOptions`, which `help` lists.
            listener: is told of progress.

        Returns:
            The library's latency, as results with one variant.

        Raises:
            UserError: an argument is wrong.
            DeviceUnavailable: the device cannot be reached.
            Disagreement: the library does not compute what PyTorch computes; it is not timed then.
        """
        return bench(self, device, listener=listener, **options)


def open_libraries(paths: str | Path | Sequence[str | Path]) -> list[CompiledLibrary]:
    """Open libraries on disk.

    Args:
        paths: one or several: libraries, each with its manifest and reference beside it, or directories of them.

    Returns:
        The libraries in the order of `paths`, those of a directory by name.

    Raises:
        UserError: there is no library, one is damaged, or two have the same name.
    """
    return [CompiledLibrary.of(library) for library in find_libraries([Path(place) for place in one_or_several(paths)])]
