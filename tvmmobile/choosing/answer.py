"""The answer of `choose`: libraries with their prices, and which of them is the best."""

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
        """Latency in microseconds on the slowest device; infinite if no kernel like one of its own was tuned."""
        return max(math.inf if latency.latency_us is None else latency.latency_us for latency in self.latencies.values())

    @property
    def is_known(self) -> bool:
        """True if all kernels have records on all devices, or are like others that have."""
        return math.isfinite(self.worst_us)

    @property
    def estimated(self) -> float:
        """The largest share of a latency that no record of its kernels supports."""
        return max(latency.estimated_us / latency.latency_us if latency.latency_us else 0.0 for latency in self.latencies.values())

    def fits(self, budget: Budget) -> bool:
        """Return whether memory and weights are small enough on all devices."""
        return all(
            latency.memory_bytes <= budget.most_memory and latency.weight_bytes <= budget.most_weights
            for latency in self.latencies.values()
        )


@dataclass(frozen=True)
class NetworkChoice:
    """The answer of `choose`.

    Attributes:
        budget: the budget that was asked for.
        profiles: the devices, in the order in which they were named.
        best: the best candidate within the budget; `None` if there is none, or no bound was given.
        front: those that no other one beats, by ascending latency, among all whose latency is known.
        beaten: the others whose latency is known.
        untuned: those with kernels of which nothing alike was tuned.
        oversized: those that need more memory, or have more weights, than they may.
        skipped: number of networks that were not priced: too slow or too inaccurate whatever the records say.
        unknown: names of libraries whose accuracy is not known.
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
