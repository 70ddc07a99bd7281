"""Writes an answer's files."""

from __future__ import annotations

import json
from pathlib import Path

from tvmmobile.choosing.answer import NetworkChoice
from tvmmobile.choosing.report.entries import csv_of, json_of
from tvmmobile.choosing.report.page import markdown_of, page_of
from tvmmobile.system.files import write_text

#: Files that `write_choice` writes.
FILES = ("choice.json", "choice.csv", "choice.md", "choice.html")


def write_choice(choice: NetworkChoice, out: Path) -> None:
    """Write `FILES` into the folder `out`, each atomically."""
    json_text = json.dumps(json_of(choice), indent=2, ensure_ascii=False) + "\n"
    # All texts are made before a file is written, so that a failure leaves older files as they were.
    for name, text in zip(FILES, (json_text, csv_of(choice), markdown_of(choice), page_of(choice)), strict=True):
        write_text(out / name, text)
