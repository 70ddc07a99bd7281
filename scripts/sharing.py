"""Shared by the scripts: reporting errors and progress, and Markdown tables."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tvmmobile.system.errors import UserError


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
