"""Lists the candidates for a budget: networks with a precision, a number of threads, and a known accuracy."""

from __future__ import annotations

import itertools
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
from tvmmobile.running.library import any_threads, stem_of, without_threads
from tvmmobile.system.errors import UserError

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
        return any_threads(self.model.spec.variant, self.precision.name)

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

    Raises:
        UserError: different accuracies of one library were measured.
    """
    measured_of = _measured(measured)
    published = _published(models)
    candidates: list[Candidate] = []
    unknown: list[str] = []
    for model, library in itertools.product(models, options):
        parts = model.spec.variant, library.precision.name
        accuracy = measured_of.get(any_threads(*parts)) or (None if library.precision.is_integer else published.get(model))
        if accuracy is None:
            unknown.append(stem_of(*parts, library.threads))
        else:
            candidates.append(Candidate(model, library, accuracy))
    return candidates, unknown


def _measured(measured: Sequence[MeasuredAccuracy]) -> dict[str, KnownAccuracy]:
    """Return measured accuracies by the name of the library without its number of threads."""
    found: dict[str, KnownAccuracy] = {}
    for one in measured:
        name, accuracy = without_threads(one.library), KnownAccuracy(one.top1, one.images, measured=True)
        first = found.setdefault(name, accuracy)
        if first != accuracy:
            figures_of = " and ".join(f"{each.top1:g} % on {each.source}" for each in (first, accuracy))
            raise UserError(f"two accuracies of {name} are given: {figures_of}.", "Leave one of them out.")
    return found


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
