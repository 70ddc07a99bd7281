"""Runs a study by its name: `./studies/run NAME …`; without a name it lists the studies."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Each study's file, by its name: those with a `main` that `harness.study` makes.
STUDIES = {path.stem: path for path in sorted(ROOT.glob("studies/*/*.py")) if "\n@study(" in path.read_text(encoding="utf-8")}


def listing() -> str:
    """Return each study with the first sentence about it."""
    lines = [f"  {name:<22}{path.read_text(encoding='utf-8').splitlines()[0].strip(chr(34))}" for name, path in STUDIES.items()]
    return "\n".join(["usage: ./studies/run NAME …, --help for its options", "", *lines])


def main() -> int:
    """Run from the command line; return the exit code."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(listing())
        return 0
    if name not in STUDIES:
        print(f"studies: error: there is no study {name!r}.\nRun ./studies/run for their names.", file=sys.stderr)
        return 1
    sys.argv = [name, *arguments]
    sys.path[0] = str(ROOT)
    return int(importlib.import_module(f"studies.{STUDIES[name].parent.name}.{name}").main())


if __name__ == "__main__":
    sys.exit(main())
