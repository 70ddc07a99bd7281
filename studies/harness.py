"""Shared by the studies: places in the checkout, and files of figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.system.entry_points import progress
from tvmmobile.system.files import write_text

#: The checkout, and where the committed figures and their pages are.
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "studies/results"


def title(spec: ModelSpec) -> str:
    """Return a variant as in a table's first column."""
    return f"{spec.name} {spec.alpha}-{spec.resolution}"


def tuning_parser(about: str | None, names: str, work: str) -> argparse.ArgumentParser:
    """Return the command line of a study that tunes chosen networks on one device.

    Args:
        about: the study's docstring.
        names: metavariable of what can be chosen.
        work: default folder for models and libraries.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar=names, help="(default: all)")
    parser.add_argument("--device", default="pi4-virtual", help="(default: pi4-virtual)")
    parser.add_argument("--trials", type=int, default=0, help="per kernel (default: 0)")
    parser.add_argument("--threads", type=int, default=1, help="(default: 1)")
    parser.add_argument("--work", type=Path, default=Path(work), metavar="DIR", help=f"for models and libraries (default: {work})")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the figures as JSON; what is in it is not tried again")
    return parser


Entry = Mapping[str, Any]


def completed(
    file: Path,
    wanted: Mapping[tuple[str, ...], Callable[[], Entry | None]],
    names: Sequence[str] = ("network",),
    page: Callable[[Sequence[Entry]], str] | None = None,
) -> list[Entry]:
    """Compute the entries that a JSON file lacks, written after each; return all.

    Args:
        wanted: function that computes an entry, by its values of `names`; `None` leaves it out.
        names: fields that tell entries apart.
        page: makes the text of a Markdown file beside the JSON file.
    """
    found: list[Entry] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    done = {tuple(entry[name] for name in names) for entry in found}
    for key, compute in wanted.items():
        if key in done:
            continue
        progress(f"{', '.join(key)} …")
        entry = compute()
        if entry is None:
            continue
        found.append(entry)
        progress(str(entry))
        write_text(file, json.dumps(found, indent=1) + "\n")
        if page is not None:
            write_text(file.with_suffix(".md"), page(found))
    return found
