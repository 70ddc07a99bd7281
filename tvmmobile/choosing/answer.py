"""The answer of `choose`: libraries with their predicted latencies, and the best of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tvmmobile.choosing.budget import Budget
from tvmmobile.choosing.candidates import Candidate
from tvmmobile.choosing.pricing import PlannedLatency
from tvmmobile.devices.protocol import DeviceProfile


@dataclass(frozen=True)
class PricedCandidate:
    """A candidate with its latency on every device, by the device's name."""

    candidate: Candidate
    latencies: Mapping[str, PlannedLatency]

    @property
    def worst_us(self) -> float:
        """Latency in microseconds on the slowest device; infinite if unknown on one of them."""
        return max(math.inf if latency.latency_us is None else latency.latency_us for latency in self.latencies.values())

    @property
    def is_known(self) -> bool:
        """True if all kernels have records, or estimates from the nearest ones, on all devices."""
        return math.isfinite(self.worst_us)

    @property
    def estimated(self) -> float:
        """The largest estimated share of a device's latency, 0 to 1."""
        return max(latency.estimated_us / latency.latency_us if latency.latency_us else 0.0 for latency in self.latencies.values())

    def fits(self, budget: Budget) -> bool:
        """Return whether memory and weights are within the budget on all devices."""
        return all(
            latency.memory_bytes <= budget.most_memory and latency.weight_bytes <= budget.most_weights
            for latency in self.latencies.values()
        )


@dataclass(frozen=True)
class NetworkChoice:
    """The answer of `choose`.

    Attributes:
        budget: the requested budget.
        profiles: the devices, in the order in which they were named.
        best: the best candidate within the budget; `None` if there is none, or neither latency nor accuracy is limited.
        front: Pareto front of latency and accuracy among candidates with known latency, by ascending latency.
        beaten: the other candidates with known latency.
        untuned: candidates whose latency is unknown, as a kernel has neither a record nor an estimate.
        oversized: candidates with more memory or weights than the budget allows.
        skipped: number of candidates that were not priced, because no latency of theirs could change the answer.
        unknown: names of libraries whose accuracy is unknown.
    """

    budget: Budget
    profiles: tuple[DeviceProfile, ...]
    best: PricedCandidate | None
    front: tuple[PricedCandidate, ...]
    beaten: tuple[PricedCandidate, ...]
    untuned: tuple[PricedCandidate, ...]
    skipped: int
    unknown: tuple[str, ...]
    oversized: tuple[PricedCandidate, ...] = ()
