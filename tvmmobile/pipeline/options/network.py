"""Options that determine a network in addition to its name and size: its inputs and its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tvmmobile.pipeline.options.option import HelpOrder, Options, option
from tvmmobile.pipeline.options.run import path_or_none
from tvmmobile.system.errors import UserError

#: Largest seed that PyTorch's generator takes.
_MOST_SEED = 2**63 - 1


def shape_from(text: str) -> tuple[str, tuple[int, ...]]:
    """Return an input's name and its shape from `audio=1x16000`; raise `UserError` for other texts."""
    name, _, extents = text.rpartition("=")
    if not name or not re.fullmatch(r"[1-9]\d{0,8}([x×,][1-9]\d{0,8})*", extents):
        raise UserError(f"--shape {text} is not an input with its dimensions.", "Give both, such as --shape audio=1x16000.")
    return name, tuple(int(extent) for extent in re.split("[x×,]", extents))


def value_from(text: str) -> tuple[str, float]:
    """Return an input's name and its value from `sr=16000`; raise `UserError` for other texts."""
    name, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not name or not math.isfinite(value):
        raise UserError(f"--value {text} is not an input with a number.", "Give both, such as --value sr=16000.")
    return name, value


@dataclass(frozen=True)
class NetworkOptions(Options):
    """Options of a network, whatever its size."""

    activation: str | None = option(None, "--activation NAME", "Activation of MobileNet v1: relu6 (default) or relu.")
    batch: int | None = option(
        None, "--batch N", "Images at a time, for your own file with a dynamic batch dimension; default: 1.", typer_settings={"min": 1}
    )
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = option(
        None,
        "--shape INPUT=DIMS",
        "Shape of one input of your own file, for dynamic dimensions, such as audio=1x16000; may be given more than once.",
        cli_type=list[str] | None,
        from_cli=lambda texts: dict(map(shape_from, texts)) if texts else None,
        parse=lambda given: tuple((name, tuple(shape)) for name, shape in (given or {}).items()),
        api_doc='Shapes of inputs by name, for a file with other dynamic dimensions, such as `{"audio": (1, 16000)}`.',
    )
    values: tuple[tuple[str, float], ...] = option(
        None,
        "--value INPUT=NUMBER",
        "Value that an input of your own ONNX file always has, such as sr=16000; may be given more than once.",
        cli_type=list[str] | None,
        from_cli=lambda texts: dict(map(value_from, texts)) if texts else None,
        parse=lambda given: tuple((given or {}).items()),
        api_doc='Numbers by name for inputs of an ONNX file that always have one value, such as `{"sr": 16000}`.',
    )
    classes: int = option(1000, "--classes N", "Number of classes.")
    checkpoint: Path | None = option(
        None,
        "--checkpoint FILE",
        "State dict to load weights from; default: weights generated from --seed.",
        order=HelpOrder.WEIGHTS,
        parse=path_or_none,
    )
    seed: int = option(
        0,
        "--seed N",
        "Seed for generated weights and for the search.",
        typer_settings={"min": 0, "max": _MOST_SEED},
        api_doc="Seed for generated weights, and of what a Python file draws.",
    )


class NetworkArguments(TypedDict, total=False):
    """For type checkers: the keywords of calls that take `NetworkOptions`; a test holds them equal."""

    activation: str | None
    batch: int | None
    shapes: Mapping[str, Sequence[int]] | None
    values: Mapping[str, float] | None
    classes: int
    checkpoint: str | Path | None
    seed: int
