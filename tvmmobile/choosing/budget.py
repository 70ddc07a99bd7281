"""The budget of a choice: a latency not to exceed or an accuracy to reach, and limits on memory."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from tvmmobile.system.errors import UserError

_UNITS = {"us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6}
_SIZES = {"kB": 1e3, "MB": 1e6, "KiB": 2.0**10, "MiB": 2.0**20}


@dataclass(frozen=True)
class Budget:
    """Limits for a choice; the defaults limit nothing.

    Attributes:
        most_us: longest latency in microseconds.
        least_top1: lowest top-1 in percent.
        most_memory, most_weights: largest sizes in bytes, see `PlannedSizes`.
    """

    most_us: float = math.inf
    least_top1: float = 0.0
    most_memory: float = math.inf
    most_weights: float = math.inf

    @classmethod
    def of(cls, under: str | None, at_least: str | None, memory: str | None = None, size: str | None = None) -> Budget:
        """Parse options such as `12ms`, `70%`, `4MB` and `900kB`.

        Raises:
            UserError: a text is invalid, or both `under` and `at_least` are given.
        """
        if under is not None and at_least is not None:
            raise UserError(
                "--under and --at-least exclude each other.", "Give the one that must hold; the other one is made as good as possible."
            )
        return cls(
            math.inf if under is None else _microseconds(under),
            0.0 if at_least is None else _percent(at_least),
            math.inf if memory is None else _bytes("--memory", memory),
            math.inf if size is None else _bytes("--size", size),
        )

    @property
    def is_bound(self) -> bool:
        """True if latency or accuracy is limited, so that one network is the best."""
        return math.isfinite(self.most_us) or self.least_top1 > 0


def _bytes(option: str, text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(kB|MB|KiB|MiB)", text.strip())
    if match is None or float(match[1]) == 0:
        raise UserError(f"{option} {text} is not a size.", "Give a number with its unit, such as 4MB, 512kB or 4MiB.")
    return float(match[1]) * _SIZES[match[2]]


def _microseconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|µs|ms|s)", text.strip())
    if match is None or float(match[1]) == 0:
        raise UserError(f"--under {text} is not a latency.", "Give a number with its unit, such as 12ms or 900us.")
    return float(match[1]) * _UNITS[match[2]]


def _percent(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%?", text.strip())
    if match is None or not 0 < float(match[1]) <= 100:
        raise UserError(f"--at-least {text} is not an accuracy.", "Give a top-1 in percent, such as 70%.")
    return float(match[1])
