"""Results of tuning: latencies, together with the libraries that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

from tvmmobile.pipeline.compiled_library import CompiledLibrary
from tvmmobile.results.file import Results


@dataclass(frozen=True, repr=False)
class TunedResults(Results):
    """Results of tuning, and the libraries that were timed: `results.libraries[0].run(image, device)`.

    Attributes:
        libraries: one per variant, in the order of `variants`. Each `path` is in `out` or, without it, in a folder that lasts as long as
            this process. A result file does not name them; `open_libraries` finds those in a folder.
    """

    libraries: tuple[CompiledLibrary, ...]


@dataclass(frozen=True)
class TunedTogether:
    """Results of tuning for several devices.

    Attributes:
        results: one per device, in the order given, each with the libraries for that device alone.
        libraries: one per network, with the kernels of all devices; of one device alone, those of its results.
    """

    results: tuple[TunedResults, ...]
    libraries: tuple[CompiledLibrary, ...]
