"""The limit on an integer network's error that `--max-drop` sets."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.system.errors import UserError

_LIMIT = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)(dB|%)")


@dataclass(frozen=True)
class Limit:
    """A limit on an integer network's error against float32 on calibration data.

    Attributes:
        value: least signal-to-noise ratio in dB; or the largest loss of top-1 in percentage points if labels are known, otherwise the
            largest share of inputs that may get another class, in percent.
        unit: `dB` or `%`.
    """

    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"

    def holds(self, outputs: Array, expected: Array, labels: Sequence[int] = ()) -> bool:
        """Return whether outputs meet the limit.

        Args:
            outputs, expected: outputs of the two networks, with one row for each input.
            labels: class of each input; empty if unknown.
        """
        if self.unit == "%":
            count = len(expected)
            found, exact = (scores.reshape(count, -1).argmax(1) for scores in (outputs, expected))
            worse = int((exact == labels).sum()) - int((found == labels).sum()) if labels else int((found != exact).sum())
            return 100 * worse / count <= self.value
        noise = float(np.square(outputs.astype(np.float64) - expected).sum())
        return noise * 10 ** (self.value / 10) <= float(np.square(expected, dtype=np.float64).sum())


def limit_of(given: str, data: str = "") -> Limit:
    """Parse `--max-drop`, such as `30dB` or `1%`.

    Args:
        data: value of `--calibrate`, for the error's hint.

    Raises:
        UserError: `given` is neither.
    """
    match = _LIMIT.fullmatch(given)
    if match is None:
        raise UserError(
            f"--max-drop {given} is neither a signal-to-noise ratio nor a share of the data.",
            f"Give a ratio such as 30dB, or a share such as 1%: {_share_of(data)}.",
        )
    return Limit(float(match[1]), match[2])


def _share_of(data: str) -> str:
    """Describe what a percentage limits on calibration data, which has labels if it is a folder of class folders."""
    folders = os.path.isdir(data) and any(path.is_dir() for path in Path(data).glob("*"))
    if folders:
        return f"points of top-1, if the folders in {data} name the network's classes; else inputs that may get another class"
    where = f"{data} has no class folders, so it counts" if data else "without class folders it counts"
    return f"{where} inputs that may get another class than in float32"
