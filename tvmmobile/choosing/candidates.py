"""Candidates for a budget: networks with a precision and a number of threads, and the accuracy that is known of each."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.graph.precision import Precision
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.costs import count
from tvmmobile.networks.models.published import IMAGENET_CLASSES, figures
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.results.report.measured import MeasuredAccuracy
from tvmmobile.running.library import stem_of

#: No kernel does more multiply-adds, counted as the network has them, than this many times what the core can: Winograd's algorithm for
#: 3×3 kernels saves most, 2.25 times with tiles of 2×2 and 4 with 4×4.
MOST_SAVED = 4.0


@dataclass(frozen=True)
class KnownAccuracy:
    """A network's top-1.

    Attributes:
        top1: top-1 accuracy in percent.
        source: publisher of the figure, or the images that `evaluate` measured it on.
        measured: true if it is of these weights in this precision; a published one is of its authors' weights in float32.
    """

    top1: float
    source: str
    measured: bool = False


@dataclass(frozen=True)
class Candidate:
    """A library that may be the best one."""

    model: Model
    options: LibraryOptions
    accuracy: KnownAccuracy

    @property
    def precision(self) -> Precision:
        """Precision in which its kernels compute."""
        return self.options.precision

    @property
    def threads(self) -> int:
        """Number of threads it runs on."""
        return self.options.threads

    @property
    def library(self) -> str:
        """Name of the library without its number of threads."""
        return f"{self.model.spec.variant}_{self.precision.name}"

    def least_us(self, profile: DeviceProfile) -> float:
        """Return a lower bound on a library's latency in microseconds: its multiply-adds at the peak rate of the cores."""
        if self.model.own is not None or not profile.clock_hz:
            return 0.0
        rate = profile.machine.fma_lanes_per_cycle * self.precision.rate_on(profile.machine) * self.threads
        return count(self.model.spec).macs / (rate * MOST_SAVED * profile.clock_hz) * 1e6


def candidates_of(
    models: Sequence[Model], options: Sequence[LibraryOptions], measured: Sequence[MeasuredAccuracy]
) -> tuple[list[Candidate], list[str]]:
    """Return the candidates, and the names of the libraries whose accuracy nobody knows.

    A published accuracy stands for float32 and half precision; one in integers is known only where it was measured. What was measured of a
    library holds for any number of threads.
    """
    known = {library_of(one): KnownAccuracy(one.top1, one.images, measured=True) for one in measured}
    published = _published(models)
    found: list[Candidate] = []
    unknown: list[str] = []
    for model, one in itertools.product(models, options):
        name = stem_of(model.spec.variant, one.precision.name, one.threads)
        accuracy = known.get(_without_threads(name)) or (None if one.precision.is_integer else published.get(model))
        if accuracy is None:
            unknown.append(name)
        else:
            found.append(Candidate(model, one, accuracy))
    return found, unknown


def library_of(measured: MeasuredAccuracy) -> str:
    """Return the name of the library that an accuracy is of, as `Candidate.library` has it."""
    return _without_threads(measured.library.removesuffix(".so"))


def _without_threads(stem: str) -> str:
    return re.sub(r"_t\d+$", "", stem)


def _published(models: Sequence[Model]) -> dict[Model, KnownAccuracy]:
    """Return published accuracies, each from the source that covers most of these networks, so that few sources are compared."""
    printed = {
        model: [figure for figure in figures(*model.spec.key) if figure.top1 is not None]
        for model in models
        if model.own is None and model.spec.classes == IMAGENET_CLASSES
    }
    counts = Counter(figure.source for found in printed.values() for figure in found)
    best = {model: max(found, key=lambda figure: counts[figure.source]) for model, found in printed.items() if found}
    return {model: KnownAccuracy(one.top1 or 0.0, one.source) for model, one in best.items()}
