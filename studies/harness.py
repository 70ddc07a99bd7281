"""Shared by the studies: places in the checkout, and files of figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.system.entry_points import progress
from tvmmobile.system.files import write_text

#: The checkout, and where the committed figures and their pages are.
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "studies/results"


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
