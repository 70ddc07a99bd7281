"""Lists the candidates for a budget: networks with a precision, a number of threads, and a known accuracy."""

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

#: Bound on a kernel's multiply-adds as the network defines them, divided by those that it executes. Winograd's algorithm for 3×3 kernels
#: saves most: 2.25 times with tiles of 2×2 outputs, 4 times with 4×4.
MOST_SAVED = 4.0


@dataclass(frozen=True)
class KnownAccuracy:
    """A network's top-1.

    Attributes:
        top1: top-1 accuracy in percent.
        source: publisher of the figure, or the images with which `evaluate` measured it.
        measured: true if it was measured with these weights in this precision; published ones are of the authors' weights in float32.
    """

    top1: float
    source: str
    measured: bool = False


@dataclass(frozen=True)
class Candidate:
    """A library to compare: a network with options and an accuracy."""

    model: Model
    options: LibraryOptions
    accuracy: KnownAccuracy

    @property
    def precision(self) -> Precision:
        """Precision in which its kernels compute."""
        return self.options.precision

    @property
    def threads(self) -> int:
        """Number of threads on which it runs."""
        return self.options.threads

    @property
    def library(self) -> str:
        """Name of the library, without its number of threads."""
        return f"{self.model.spec.variant}_{self.precision.name}"

    def least_us(self, profile: DeviceProfile) -> float:
        """Return a lower bound on the latency in microseconds: the network's multiply-adds at the cores' peak rate; 0 if unknown."""
        if self.model.own is not None or not profile.clock_hz:
            return 0.0
        rate = profile.machine.fma_lanes_per_cycle * self.precision.rate_on(profile.machine) * self.threads
        return count(self.model.spec).macs / (rate * MOST_SAVED * profile.clock_hz) * 1e6


def candidates_of(
    models: Sequence[Model], options: Sequence[LibraryOptions], measured: Sequence[MeasuredAccuracy]
) -> tuple[list[Candidate], list[str]]:
    """Return all pairs of a network and options as candidates, and the names of those libraries whose accuracy is not known.

    A published accuracy counts for float32 and half precision; integers need a measured one. Measured accuracies count for any number of
    threads.
    """
    measured_of = {library_of(accuracy): KnownAccuracy(accuracy.top1, accuracy.images, measured=True) for accuracy in measured}
    published = _published(models)
    candidates: list[Candidate] = []
    unknown: list[str] = []
    for model, library in itertools.product(models, options):
        name = stem_of(model.spec.variant, library.precision.name, library.threads)
        accuracy = measured_of.get(_without_threads(name)) or (None if library.precision.is_integer else published.get(model))
        if accuracy is None:
            unknown.append(name)
        else:
            candidates.append(Candidate(model, library, accuracy))
    return candidates, unknown


def library_of(measured: MeasuredAccuracy) -> str:
    """Return the name of the library with this accuracy, in the form of `Candidate.library`."""
    return _without_threads(measured.library.removesuffix(".so"))


def _without_threads(stem: str) -> str:
    return re.sub(r"_t\d+$", "", stem)


def _published(models: Sequence[Model]) -> dict[Model, KnownAccuracy]:
    """Return published accuracies, each from the source that covers most of these networks, so that few sources are mixed."""
    figures_of = {
        model: [figure for figure in figures(*model.spec.key) if figure.top1 is not None]
        for model in models
        if model.own is None and model.spec.classes == IMAGENET_CLASSES
    }
    counts = Counter(figure.source for printed in figures_of.values() for figure in printed)
    best = {model: max(printed, key=lambda figure: counts[figure.source]) for model, printed in figures_of.items() if printed}
    return {model: KnownAccuracy(figure.top1 or 0.0, figure.source) for model, figure in best.items()}
