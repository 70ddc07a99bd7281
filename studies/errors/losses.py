"""What a network in fewer bits loses beside float32: right answers, and signal to noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tvmmobile.accuracy.significance import top1_loss
from tvmmobile.graph.layers import Array
from tvmmobile.kernels.reference import decibels


@dataclass(frozen=True)
class AnswerLoss:
    """Answers of a network beside those of float32.

    Attributes:
        float32, right: percent that float32 and the network get right.
        lost, margin, p_value: points that are lost, half of their 95 % interval, and McNemar's probability.
        same: percent with float32's answer.
    """

    float32: float
    right: float
    lost: float
    margin: float
    p_value: float
    same: float


def answer_loss(labels: Sequence[object] | Array, exact: Sequence[object] | Array, found: Sequence[object] | Array) -> AnswerLoss:
    """Compare a network's answers and float32's with the right ones."""
    rights, exacts, founds = map(np.asarray, (labels, exact, found))
    hits = [exacts == rights, founds == rights, founds == exacts]
    loss = top1_loss(list(hits[0]), list(hits[1]))
    assert loss is not None
    float32, right, same = (100 * float(np.mean(one)) for one in hits)
    return AnswerLoss(float32, right, loss.points, loss.margin, loss.p_value, same)


class SignalToNoise:
    """Adds up the powers of float32's outputs and of what others differ from them."""

    def __init__(self) -> None:
        self._signal = self._noise = 0.0

    def add(self, exact: Array, outputs: Array) -> None:
        """Add some outputs."""
        self._signal += float(np.square(exact, dtype=np.float64).sum())
        self._noise += float(np.square(outputs.astype(np.float64) - exact).sum())

    @property
    def decibels(self) -> float | None:
        """The ratio so far; `None` without noise."""
        return decibels(self._signal, self._noise)
