"""Measures how a library deviates from its original in more detail than by the largest difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.precision import Precision
from tvmmobile.kernels.reference import decibels
from tvmmobile.results.file import Count, NotNegative, PositiveCount


@dataclass(frozen=True)
class OutputDifference:
    """One output, compared with the original's.

    Attributes:
        values: number of values.
        mean: mean absolute difference, relative to the original's largest magnitude; `None` if either output is not finite.
        signal: mean square of the original's values; `None` under the same condition.
        noise: mean square of the differences; `None` under the same condition.
        infinities: values of the library's that are infinite.
        nans: values of the library's that are not a number.
        subnormals: values of the library's that are not 0 and smaller than the precision's least normal number.
    """

    values: PositiveCount
    mean: NotNegative | None
    signal: NotNegative | None
    noise: NotNegative | None
    infinities: Count
    nans: Count
    subnormals: Count


@dataclass(frozen=True)
class Differences:
    """The outputs for all images, compared with the original's.

    Attributes:
        values: number of values.
        mean: average of the images' means; `None` if no output is finite.
        signal_to_noise_db: ratio of the mean squares of signal and noise, in decibels; `None` without finite outputs or without a
            difference.
        infinities: values of the library's that are infinite.
        nans: values of the library's that are not a number.
        subnormals: values of the library's that are not 0 and smaller than the precision's least normal number.
    """

    values: Count = 0
    mean: NotNegative | None = None
    signal_to_noise_db: float | None = None
    infinities: Count = 0
    nans: Count = 0
    subnormals: Count = 0


def difference_of(output: npt.NDArray[Any], expected: npt.NDArray[Any], precision: Precision) -> OutputDifference:
    """Compare a library's output for an image with its original's; both have one shape."""
    values, wanted = output.astype(np.float64), expected.astype(np.float64)
    mean = signal = noise = None
    if np.isfinite(values).all() and np.isfinite(wanted).all():
        off = values - wanted
        mean = float(np.abs(off).mean()) / (float(np.abs(wanted).max()) or 1.0)
        signal, noise = float(np.square(wanted).mean()), float(np.square(off).mean())
    return OutputDifference(
        values=values.size,
        mean=mean,
        signal=signal,
        noise=noise,
        infinities=int(np.isinf(values).sum()),
        nans=int(np.isnan(values).sum()),
        subnormals=subnormals_in(values, precision),
    )


def subnormals_in(values: npt.NDArray[Any], precision: Precision) -> int:
    """Return the number of nonzero values below the least normal number."""
    return int(((values != 0) & (np.abs(values) < precision.limits.tiny)).sum())


def differences_of(found: Sequence[OutputDifference]) -> Differences:
    """Combine the differences of all images."""
    finite = [difference for difference in found if difference.mean is not None]
    return Differences(
        values=sum(difference.values for difference in found),
        mean=sum(difference.mean or 0.0 for difference in finite) / len(finite) if finite else None,
        signal_to_noise_db=decibels(
            *(sum(difference.values * (getattr(difference, name) or 0.0) for difference in finite) for name in ("signal", "noise"))
        ),
        infinities=sum(difference.infinities for difference in found),
        nans=sum(difference.nans for difference in found),
        subnormals=sum(difference.subnormals for difference in found),
    )
