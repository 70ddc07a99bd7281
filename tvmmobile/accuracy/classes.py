"""A classifier's answer: its most likely classes and their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmmobile.system.errors import Disagreement, UserError


@dataclass(frozen=True)
class Ranked:
    """One class of an answer.

    Attributes:
        index: number of the class, from 0.
        label: its name; None if unknown.
        probability: the class's probability after softmax.
    """

    index: int
    label: str | None
    probability: float


def read_labels(path: Path, classes: int) -> list[str]:
    """Return the names in a file, one a line, in the order of the classes; raise `UserError` if their number differs."""
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}.", "Give a UTF-8 file with one class per line.") from error
    if len(lines) != classes:
        hint = "Its first line may be a background class, which this network does not have." if len(lines) == classes + 1 else ""
        raise UserError(f"{path} has {len(lines)} lines; the network has {classes} classes.", hint or "Give one line for each class.")
    return [line.strip() for line in lines]


def most_likely(logits: npt.NDArray[Any], count: int, labels: Sequence[str] | None) -> list[Ranked]:
    """Return the `count` largest of `logits`, largest first, ties by index; raise `Disagreement` if they are not finite."""
    values = logits.astype(np.float64).reshape(-1)
    if not np.isfinite(values).all():
        raise Disagreement("the network's output holds values that are not finite.", "Check the library: tvmmobile bench LIBRARY")
    shares = np.exp(values - values.max())
    shares /= shares.sum()
    order = np.argsort(-values, kind="stable")[:count]
    return [Ranked(int(index), None if labels is None else labels[index], float(shares[index])) for index in order]
