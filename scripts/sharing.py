"""Shared by the scripts: reporting errors and progress, files of figures, and Markdown tables."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import write_text


def telling(main: Callable[[], int]) -> Callable[[], int]:
    """Decorate `main`: a `UserError` is printed as `SCRIPT: error: …` and its exit code returned."""

    @functools.wraps(main)
    def told() -> int:
        try:
            return main()
        except UserError as error:
            print(f"{Path(sys.argv[0]).stem}: error: {error}", file=sys.stderr)
            return error.exit_code

    return told


def progress(sentence: str) -> None:
    """Print on stderr what takes time."""
    print(sentence, file=sys.stderr, flush=True)


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[object]], texts: int = 1) -> list[str]:
    """The lines of a Markdown table; the columns after the first `texts` are flushed right."""
    rule = ["---"] * texts + ["---:"] * (len(headings) - texts)
    return [f"| {' | '.join(map(str, cells))} |" for cells in (headings, rule, *rows)]


def title(spec: ModelSpec) -> str:
    """A variant as in a table's first column."""
    return f"{spec.name} {spec.alpha}-{spec.resolution}"


def completed(file: Path, wanted: Mapping[str, Callable[[], Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """The entries of a JSON file, with those that it lacks; written after each.

    Args:
        wanted: by the `network` of an entry, what computes it.
    """
    found: list[Mapping[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    done = {entry["network"] for entry in found}
    for network, compute in wanted.items():
        if network not in done:
            found.append(compute())
            progress(str(found[-1]))
            write_text(file, json.dumps(found, indent=1) + "\n")
    return found
