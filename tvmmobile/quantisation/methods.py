"""Chooses the method with which a network is quantised, by trying methods on calibration data that they have not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial

import numpy as np

from tvmmobile.graph.layers import Array, Layer
from tvmmobile.graph.network import INPUT
from tvmmobile.kernels.reference import decibels
from tvmmobile.quantisation.calibration import MOST_TENSOR_ELEMENTS, Accepts, Images, Method, largest_tensor, observe, quantised
from tvmmobile.quantisation.equalisation import pairs_of
from tvmmobile.quantisation.flow import Flow
from tvmmobile.quantisation.histogram import RANGES
from tvmmobile.quantisation.integers import IntegerNetwork, reads_input

#: Images on which methods are compared: at most, and with large tensors at least.
_TRIED, _LEAST_TRIED = 64, 16
#: Decibels by which uncorrected biases must improve the output to be chosen: both are computed from few inputs.
_CLEARLY_DB = 1.0
#: Decibels of the output's signal-to-noise ratio that 7-bit weights may cost. The
#: trained network of docs/quantisation.md loses 1.8, and no top-1.
MOST_LOST_DB = 2.0


class Trials:
    """Tries methods on a network: each is calibrated on half of some images, and the others show what it costs.

    What methods have in common is computed once.
    """

    def __init__(self, flow: Flow, images: Images, accepts: Accepts = lambda layer: True) -> None:
        seen, unseen = _halves(flow, images)
        self.flow, self._accepts = flow, accepts
        self._batches = list(unseen.batches())
        self._exact = [flow.outputs(batch) for batch in self._batches]
        self._observed = cache(partial(observe, flow, seen))
        self._networks: dict[Method, IntegerNetwork] = {}
        self._ratios: dict[Method, float] = {}

    def network(self, method: Method) -> IntegerNetwork:
        """Return the network that a method makes."""
        if method not in self._networks:
            self._networks[method] = quantised(self._observed(method.equalise), method, self._accepts)
        return self._networks[method]

    def ratio_db(self, method: Method) -> float:
        """Return the signal-to-noise ratio of the last step's output, in decibels."""
        if method not in self._ratios:
            network, signal, noise = self.network(method), 0.0, 0.0
            for batch, exact in zip(self._batches, self._exact, strict=True):
                *_, (step, output) = network.run({INPUT: batch})
                signal += float(np.square(exact, dtype=np.float64).sum())
                noise += float(np.square(network.real(step.number, output).astype(np.float64) - exact).sum())
            ratio = decibels(signal, noise)
            self._ratios[method] = math.inf if ratio is None else ratio
        return self._ratios[method]

    def share_lost(self, method: Method) -> float:
        """Return what `share_lost` says of the network's output."""
        return share_lost(np.concatenate([self.network(method).outputs(batch) for batch in self._batches]), np.concatenate(self._exact))


def best_method(trials: Trials) -> Method:
    """Find the method with the least error in the network's output. Ranges and equalisation are chosen with corrected biases, which are
    kept unless the output is clearly better without them.
    """
    methods = [Method(ranges, equalise) for equalise in ((False, True) if any(pairs_of(trials.flow)) else (False,)) for ranges in RANGES]
    method = max(methods, key=trials.ratio_db)
    plain = replace(method, correct=False)
    return plain if trials.share_lost(plain) * 10 ** (_CLEARLY_DB / 10) < trials.share_lost(method) else method


def share_lost(outputs: Array, expected: Array) -> float:
    """Return the noise's share of the output's power, at most 1, averaged over slices along the axis where it is largest.

    Slices give scores the same weight as pixel coordinates beside them. The first axis, the batch, is not tried.
    """
    noise, power = (np.square(array, dtype=np.float64) for array in (outputs.astype(np.float64) - expected, expected))

    def along(axis: int) -> float:
        others = tuple(other for other in range(expected.ndim) if other != axis)
        found = [array.sum(others) for array in (noise, power)]
        return float(np.mean(np.minimum(found[0], found[1]) / np.maximum(found[1], np.finfo(np.float64).tiny)))

    return max(map(along, range(min(1, expected.ndim - 1), expected.ndim)))


def with_seven_bit_weights(trials: Trials, method: Method, gains: Callable[[Layer, Array], bool]) -> Method:
    """Give smaller weights to the layers that gain by them if the network's output loses little, judged as in `best_method`.
    If not all of them can have smaller weights, the network's first layer keeps its bits, or the depthwise layers do, or both; failing
    that, so do others as well, those with the fewest multiply-adds first.

    Args:
        gains: returns whether the kernel of an integer layer with such weights is faster with smaller ones.
    """
    network = trials.network(method)
    found = {number for number, step in network.steps.items() if step.step.summing and gains(step.layer, step.parameters.weight)}
    if not found:
        return method
    first = {number for number in found if reads_input(network.steps[number].step)}
    depthwise = {number for number in found if network.steps[number].layer.is_depthwise}

    def loses_little(some: Iterable[int]) -> bool:
        return trials.ratio_db(method) - trials.ratio_db(replace(method, seven_bit_steps=frozenset(some))) <= MOST_LOST_DB

    choices = dict.fromkeys(frozenset(found - kept) for kept in (set[int](), first, depthwise, first | depthwise))
    for some in filter(None, choices):
        if loses_little(some):
            return replace(method, seven_bit_steps=some)
    others = sorted(found - first - depthwise, key=lambda number: -network.steps[number].layer.macs)
    few, too_many = 0, len(others)
    while too_many - few > 1:
        half = (few + too_many) // 2
        few, too_many = (half, too_many) if loses_little(others[:half]) else (few, half)
    return replace(method, seven_bit_steps=frozenset(others[:few]))


def _halves(flow: Flow, images: Images) -> tuple[Images, Images]:
    """Split some images into a half to calibrate on and a half to try methods on; a single image is in both."""
    tried = images.some(min(_TRIED, max(_LEAST_TRIED, 2 * MOST_TENSOR_ELEMENTS // largest_tensor(flow))))
    numbers = range(tried.count)
    return tried.part(numbers[::2]), tried.part(numbers[1::2] or numbers)
