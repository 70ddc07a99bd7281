"""Reports errors and progress of programs besides the command line."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

from tvmmobile.system.errors import UserError


def reporting_errors(main: Callable[[], int]) -> Callable[[], int]:
    """Decorate `main`: a `UserError` is printed as `PROGRAM: error: …` and its exit code returned."""

    @functools.wraps(main)
    def reported() -> int:
        try:
            return main()
        except UserError as error:
            message, remedy = error.as_typed
            print(f"{Path(sys.argv[0]).stem}: error: {message}", *filter(None, [remedy]), sep="\n", file=sys.stderr)
            return error.exit_code

    return reported


def progress(sentence: str) -> None:
    """Print a line of progress to stderr."""
    print(sentence, file=sys.stderr, flush=True)
