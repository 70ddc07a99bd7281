"""A compiled library that runs on devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tvmmobile.pipeline.stages import kernel_results
from tvmmobile.results.file import KernelResult
from tvmmobile.running.library import Library, find_libraries


class CompiledLibrary(Library):
    """A compiled network, as `compile` returns it and `open_libraries` finds it on disk."""

    @property
    def kernels(self) -> tuple[KernelResult, ...]:
        """Its kernels in order of execution, each with its layer type, multiply-adds, schedule, and latency as recorded."""
        return kernel_results(self.manifest(), ())


def open_libraries(paths: str | Path | Sequence[str | Path]) -> list[CompiledLibrary]:
    """Libraries by path, those of a directory by name; see `find_libraries`.

    Raises:
        UserError: there is none, one is damaged, or they are not for one thread count.
    """
    places = [paths] if isinstance(paths, str | Path) else paths
    return [CompiledLibrary(**vars(library)) for library in find_libraries([Path(place) for place in places])]
