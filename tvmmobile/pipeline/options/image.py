"""The normalisation of images that `--image`, `--mean` and `--std` give."""

from __future__ import annotations

import math

from tvmmobile.networks.preprocessing import Normalisation, Triple
from tvmmobile.pipeline.options.option import Option
from tvmmobile.system.errors import UserError

MEAN = Option(None, "--mean R,G,B", "With --image: per-channel mean to subtract; default: 0.5.", cli_type=str | None, cli_default=None)
STD = Option(
    None, "--std R,G,B", "With --image: per-channel standard deviation to divide by; default: 0.5.", cli_type=str | None, cli_default=None
)


def normalisation_for(image: bool, mean: str | None, std: str | None) -> Normalisation | None:
    """Return the normalisation of a library that takes images, else `None`; raise `UserError` unless one or three numbers are given."""
    if image:
        return Normalisation(triple("--mean", "0.5" if mean is None else mean), triple("--std", "0.5" if std is None else std))
    for option, value in (("--mean", mean), ("--std", std)):
        if value is not None:
            raise UserError(f"{option} is for libraries that take images.", "Give --image as well.")
    return None


def triple(option: str, text: str) -> Triple:
    """Return three numbers from a text with one or three."""
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= 3
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise UserError(f"{option} {text} is not one number or three.", f"For example: {option} 0.485,0.456,0.406")
    return values[0], values[1], values[2]
