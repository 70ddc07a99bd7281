"""Options of a choice: its budget, the libraries to compare, and files with their accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tvmmobile.networks.preprocessing import Normalisation
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.options.option import HelpOrder, Options, option, option_of, option_of_several
from tvmmobile.pipeline.options.run import RunOptions, path_or_none
from tvmmobile.system.arguments import one_or_several
from tvmmobile.system.errors import UserError


def _paths(given: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    return tuple(map(Path, one_or_several(given)))


def _thread_counts(given: int | Sequence[int]) -> tuple[int, ...]:
    """Return numbers of threads; raise `UserError` for `best`, which would have to be timed on a device."""
    counts = one_or_several(given)
    if "best" in counts:
        raise UserError("--threads best needs latencies on one device, and choose runs nothing.", "Give numbers, such as --threads 1.")
    return counts


@dataclass(frozen=True)
class ChooseOptions(Options):
    """Options of `choose`."""

    under: str | None = option(None, "--under LATENCY", "Longest latency, such as 12ms: find the most accurate network.")
    at_least: str | None = option(None, "--at-least TOP1", "Lowest top-1, such as 70%: find the fastest network.")
    memory: str | None = option(None, "--memory SIZE", "Most memory for activations, such as 4MB, as planned.")
    size: str | None = option(None, "--size SIZE", "Most bytes of weights, such as 4MB; code is not counted.")
    dtypes: tuple[str, ...] = option_of_several(
        (),
        "--dtype NAME",
        "Precision; may be given more than once. Default: float32, and float16 where the core has it.",
        api_doc="Precisions; default: float32, and float16 where all devices compute in it.",
    )
    threads: tuple[int, ...] = option_of_several(
        (1,),
        "--threads N",
        "Number of threads; may be given more than once. Default: 1.",
        of=int,
        parse=_thread_counts,
        api_doc="How many threads a library may run on: one number or several.",
    )
    calibrate: str | None = option_of(LibraryOptions, "calibrate", help="Data that give int8 its scales, as in tune.")
    image: Normalisation | None = option_of(
        LibraryOptions,
        "image",
        help="Compare C libraries that take images; those of --calibrate are normalised alike, as in tune.",
        api_doc="Normalisation of images in C libraries that take them, and of those that give int8 its scales, as in `tune`.",
    )
    accuracy: tuple[Path, ...] = option_of_several(
        (),
        "--accuracy FILE",
        "An evaluation.json, whose top-1 takes the place of the published one; int8 needs it.",
        of=Path,
        parse=_paths,
        api_doc="One file or several that `evaluate` wrote, whose top-1 takes the place of published ones, and is the only one of int8.",
    )
    out: Path | None = option(
        None,
        "-o, --out DIR",
        "Price every candidate, and write a page, Markdown, CSV and JSON of them to DIR.",
        order=HelpOrder.OUT,
        typer_settings={"file_okay": False},
        parse=path_or_none,
        api_doc="Folder for a page and tables of all candidates, all of which are priced then.",
    )
    logs: Path | None = option_of(
        RunOptions, "logs", help="Read tuning logs only in DIR; default: the shipped logs and your own.", order=HelpOrder.LOGS
    )


class ChooseArguments(TypedDict, total=False):
    """For type checkers: the keywords of calls that take `ChooseOptions`; a test holds them equal."""

    under: str | None
    at_least: str | None
    memory: str | None
    size: str | None
    dtypes: str | Sequence[str]
    threads: int | Sequence[int]
    calibrate: str | Path | None
    image: Normalisation | None
    accuracy: str | Path | Sequence[str | Path]
    out: str | Path | None
    logs: str | Path | None
