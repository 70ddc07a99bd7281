"""Tests whether a library classifies worse than its original, or only seems to by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from tvmmobile.results.file import Count, NotNegative

#: Half the width of a 95 % interval, in standard errors.
_STANDARD_ERRORS = 1.96


@dataclass(frozen=True)
class Top1Loss:
    """A library's loss of top-1 against its original, on the same images.

    Attributes:
        only_original: number of images that only the original classifies correctly.
        only_library: number of images that only the library classifies correctly.
        points: loss of top-1 in percentage points; negative if the library is better.
        margin: half the width of the 95 % confidence interval of `points`.
        p_value: probability of a difference at least as large if both classify equally well (McNemar's exact test).
    """

    only_original: Count
    only_library: Count
    points: float
    margin: NotNegative
    p_value: Annotated[float, Field(ge=0, le=1)]


def top1_loss(original: Sequence[bool], library: Sequence[bool]) -> Top1Loss | None:
    """Return the loss, from whether each classified each image correctly; `None` without images.

    The interval is that of a difference of paired proportions with half an image added to each kind of disagreement (Agresti and Min,
    Statistics in Medicine 2005), so it has a width even without disagreement.
    """
    from scipy.stats import binomtest

    pairs = list(zip(original, library, strict=True))
    if not pairs:
        return None
    lost, won = (sum(pair == wanted for pair in pairs) for wanted in ((True, False), (False, True)))
    more_lost, more_won, count = lost + 0.5, won + 0.5, len(pairs) + 2
    error = math.sqrt(more_lost + more_won - (more_lost - more_won) ** 2 / count) / count
    p_value = float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0
    return Top1Loss(lost, won, 100 * (lost - won) / len(pairs), 100 * _STANDARD_ERRORS * error, min(p_value, 1.0))
