"""A compiled library that runs on devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvmmobile.devices.protocol import Device
from tvmmobile.pipeline.bench import bench
from tvmmobile.pipeline.outcome import kernel_results
from tvmmobile.pipeline.run import Given, Place, output_of
from tvmmobile.results.file import KernelResult, Results
from tvmmobile.running.library import Library, find_libraries


class CompiledLibrary(Library):
    """A compiled network: what `compile_models` returns, and `open_libraries` finds on disk."""

    @property
    def kernels(self) -> tuple[KernelResult, ...]:
        """The library's kernels in order of execution, each with its layer type, multiply-adds, schedule, and latency as recorded."""
        return kernel_results(self.manifest(), ())

    def run(self, given: Given, device: Place = "pi4") -> Any:
        """Return the library's output for an input on a device, or for several: an array, or several by name.

        See `pipeline.run.run`, which times it as well.
        """
        return output_of(self, given, device)

    def bench(self, device: str | Device = "pi4", *, repeat: int = 30, warmup_runs: int = 5) -> Results:
        """Check it against PyTorch on a device, and time it; see `pipeline.bench.bench`."""
        return bench(self, device, repeat=repeat, warmup_runs=warmup_runs)


def open_libraries(paths: str | Path | Sequence[str | Path]) -> list[CompiledLibrary]:
    """Return libraries by path, those of a directory by name; raises `UserError` for none, a damaged one, or several thread counts."""
    places = [paths] if isinstance(paths, str | Path) else paths
    return [CompiledLibrary(**vars(library)) for library in find_libraries([Path(place) for place in places])]
