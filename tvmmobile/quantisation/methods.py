"""Chooses the method of quantising a network, by testing each on calibration data held out from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial

import numpy as np

from tvmmobile.graph.layers import Array, Layer
from tvmmobile.kernels.reference import decibels
from tvmmobile.quantisation.calibration import MOST_TENSOR_ELEMENTS, Accepts, CalibrationSamples, Method, largest_tensor, observe, quantised
from tvmmobile.quantisation.equalisation import pairs_of
from tvmmobile.quantisation.flow import Flow
from tvmmobile.quantisation.histogram import RANGES
from tvmmobile.quantisation.integers import IntegerNetwork, reads_input

#: Most samples with which methods are compared, and the least number of them even if tensors are large.
_TRIED, _LEAST_TRIED = 64, 16
#: Decibels by which uncorrected biases must be better to be chosen: with few samples, smaller differences may be chance.
_CLEARLY_DB = 1.0
#: Largest loss of the output's signal-to-noise ratio for 7-bit weights, in decibels. The trained network of docs/quantisation.md loses 1.8,
#: and no top-1.
MOST_LOST_DB = 2.0


class MethodTrials:
    """Tries methods on a network: each is calibrated on one half of some samples, and its error measured on the other half.

    Results are cached, as is what methods share.
    """

    def __init__(self, flow: Flow, samples: CalibrationSamples, accepts: Accepts = lambda layer: True) -> None:
        seen, unseen = _halves(flow, samples)
        self.flow, self._accepts = flow, accepts
        self._batches = list(unseen.batches())
        self._exact = [flow.outputs(*batch) for batch in self._batches]
        self._observed = cache(partial(observe, flow, seen))
        self._networks: dict[Method, IntegerNetwork] = {}
        self._ratios: dict[Method, float] = {}

    def network(self, method: Method) -> IntegerNetwork:
        """Return the network quantised with a method."""
        if method not in self._networks:
            self._networks[method] = quantised(self._observed(method.equalise), method, self._accepts)
        return self._networks[method]

    def ratio_db(self, method: Method) -> float:
        """Return the signal-to-noise ratio of the network's outputs, in decibels."""
        if method not in self._ratios:
            network, signal, noise = self.network(method), 0.0, 0.0
            for batch, exact in zip(self._batches, self._exact, strict=True):
                signal += float(np.square(exact, dtype=np.float64).sum())
                noise += float(np.square(network.outputs(*batch).astype(np.float64) - exact).sum())
            ratio = decibels(signal, noise)
            self._ratios[method] = math.inf if ratio is None else ratio
        return self._ratios[method]

    def share_lost(self, method: Method) -> float:
        """Return `share_lost` of the network's output."""
        return share_lost(np.concatenate([self.network(method).outputs(*batch) for batch in self._batches]), np.concatenate(self._exact))


def best_method(trials: MethodTrials) -> Method:
    """Return the method with the least error of the network's output. Ranges and equalisation are chosen with corrected biases, which are
    kept unless the output is clearly better without the correction.
    """
    methods = [Method(ranges, equalise) for equalise in ((False, True) if any(pairs_of(trials.flow)) else (False,)) for ranges in RANGES]
    method = max(methods, key=trials.ratio_db)
    plain = replace(method, correct=False)
    return plain if trials.share_lost(plain) * 10 ** (_CLEARLY_DB / 10) < trials.share_lost(method) else method


def share_lost(outputs: Array, expected: Array) -> float:
    """Return the ratio of noise to signal power, at most 1, averaged over slices along the axis where this average is largest.

    Slices give scores the same weight as pixel coordinates beside them. The first axis, the batch, is left out unless it is the only one.
    """
    noise, power = (np.square(array, dtype=np.float64) for array in (outputs.astype(np.float64) - expected, expected))

    def along(axis: int) -> float:
        summed = tuple(other for other in range(expected.ndim) if other != axis)
        sums = [array.sum(summed) for array in (noise, power)]
        return float(np.mean(np.minimum(sums[0], sums[1]) / np.maximum(sums[1], np.finfo(np.float64).tiny)))

    return max(map(along, range(min(1, expected.ndim - 1), expected.ndim)))


def with_seven_bit_weights(trials: MethodTrials, method: Method, gains: Callable[[Layer, Array], bool]) -> Method:
    """Return the method with 7-bit weights for layers that gain by them, as far as the output loses at most `MOST_LOST_DB`.

    If not all of them can have 7-bit weights, the network's first layer keeps 8 bits, or the depthwise layers do, or both; if that is not
    enough, so do further layers, those with the fewest multiply-adds first.

    Args:
        gains: returns whether the kernel of an integer layer, given its 8-bit weights, is faster with 7-bit ones.
    """
    network = trials.network(method)
    gaining = {number for number, step in network.steps.items() if step.step.summing and gains(step.layer, step.parameters.weight)}
    if not gaining:
        return method
    first = {number for number in gaining if reads_input(network.steps[number].step)}
    depthwise = {number for number in gaining if network.steps[number].layer.is_depthwise}

    def loses_little(numbers: Iterable[int]) -> bool:
        return trials.ratio_db(method) - trials.ratio_db(replace(method, seven_bit_steps=frozenset(numbers))) <= MOST_LOST_DB

    choices = dict.fromkeys(frozenset(gaining - kept) for kept in (set[int](), first, depthwise, first | depthwise))
    for choice in filter(None, choices):
        if loses_little(choice):
            return replace(method, seven_bit_steps=choice)
    others = sorted(gaining - first - depthwise, key=lambda number: -network.steps[number].layer.macs)
    few, too_many = 0, len(others)
    while too_many - few > 1:
        half = (few + too_many) // 2
        few, too_many = (half, too_many) if loses_little(others[:half]) else (few, half)
    return replace(method, seven_bit_steps=frozenset(others[:few]))


def _halves(flow: Flow, samples: CalibrationSamples) -> tuple[CalibrationSamples, CalibrationSamples]:
    """Split a selection of samples into a half for calibration and a half for testing; a single sample is in both."""
    tried = samples.some(min(_TRIED, max(_LEAST_TRIED, 2 * MOST_TENSOR_ELEMENTS // largest_tensor(flow))))
    numbers = range(tried.count)
    return tried.part(numbers[::2]), tried.part(numbers[1::2] or numbers)
