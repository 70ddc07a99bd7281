"""Shared by the studies: their command lines, places in the checkout, and files of figures."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.system.entry_points import progress, reporting_errors
from tvmmobile.system.files import write_text

#: The checkout, and where the committed figures and their pages are.
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "studies/results"

Options = argparse.Namespace
#: An option's flag or name, and what `add_argument` takes.
Option = tuple[str, dict[str, Any]]


def option(name: str, default: Any = None, about: str = "", **settings: Any) -> Option:
    """Return an option of a study; its type is the default's, and its help names the default."""
    if default is False:
        return name, {"action": "store_true", "help": about}
    if isinstance(default, int | float | Path):
        settings = {"type": type(default), **settings}
    if default not in (None, []) and "(default:" not in about:
        shown = default.relative_to(ROOT) if isinstance(default, Path) and default.is_relative_to(ROOT) else default
        about = f"{about} (default: {' '.join(map(str, shown)) if isinstance(shown, list) else shown})".lstrip()
    return name, {"default": default, "help": about, **settings}


def tuning_options(names: str, work: str) -> tuple[Option, ...]:
    """Return the options of a study that tunes chosen networks on one device.

    Args:
        names: metavariable of what can be chosen.
        work: default folder for models and libraries.
    """
    return (
        option("names", [], "(default: all)", nargs="*", metavar=names),
        option("--device", "pi4-virtual"),
        option("--trials", 0, "per kernel"),
        option("--threads", 1),
        option("--work", Path(work), "for models and libraries", metavar="DIR"),
        option("--out", None, "the figures as JSON; what is in it is not tried again", type=Path, metavar="FILE"),
    )


def parsed(options: Sequence[Option], about: str | None, words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a study's command line, which its module's docstring describes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, settings in options:
        parser.add_argument(name, **settings)
    return parser.parse_args(words)


def study(*options: Option) -> Callable[[Callable[[argparse.Namespace], int | None]], Callable[[], int]]:
    """Make a study's `main` of a function of its options: it reads the command line, reports errors, and returns the exit code."""

    def decorate(run: Callable[[argparse.Namespace], int | None]) -> Callable[[], int]:
        @functools.wraps(run)
        def main() -> int:
            return run(parsed(options, sys.modules[run.__module__].__doc__)) or 0

        return reporting_errors(main)

    return decorate


def title(spec: ModelSpec) -> str:
    """Return a variant as in a table's first column."""
    return f"{spec.name} {spec.alpha}-{spec.resolution}"


def write_json(file: Path | None, content: Any, **settings: Any) -> None:
    """Write figures as JSON, if there is a file for them; `settings` are those of `json.dumps`."""
    if file is not None:
        write_text(file, json.dumps(content, **{"indent": 1, **settings}) + "\n")


Entry = Mapping[str, Any]
Key = tuple[str, ...]
#: Functions that compute entries, by what tells these apart; one that returns `None` leaves its entry out.
Wanted = Mapping[Key, Callable[[], Entry | None]]


def missing_entries(wanted: Wanted, done: set[Key]) -> Iterator[tuple[Key, Entry]]:
    """Compute the entries that are not done one after another, and print each."""
    for key, compute in wanted.items():
        if key not in done:
            progress(f"{', '.join(key)} …")
            if (entry := compute()) is not None:
                progress(str(entry))
                yield key, entry


def completed(
    file: Path, wanted: Wanted, names: Sequence[str] = ("network",), page: Callable[[Sequence[Entry]], str] | None = None
) -> list[Entry]:
    """Compute the entries that a JSON file lacks, written after each; return all.

    Args:
        wanted: functions that compute entries, by their values of `names`.
        names: fields that tell entries apart.
        page: makes the text of a Markdown file beside the JSON file.
    """
    found: list[Entry] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    for _, entry in missing_entries(wanted, {tuple(entry[name] for name in names) for entry in found}):
        found.append(entry)
        write_json(file, found)
        if page is not None:
            write_text(file.with_suffix(".md"), page(found))
    return found
