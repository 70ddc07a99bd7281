"""Published figures, each with its source, from `published.toml`.

Figures of different sources are never mixed: they are separate trainings and separate counts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.networks.models.spec import ModelSpec

_FILE = tomllib.loads(Path(__file__).with_name("published.toml").read_text(encoding="utf-8"))
#: The MobileNets paper.
PAPER = "arXiv 1704.04861"
#: All accuracies here are for ImageNet's classes; they do not apply to classifiers for others.
IMAGENET_CLASSES = 1000
#: Notes on a source, shown with its figures.
REMARKS: Mapping[str, str] = {source["name"]: source["remark"] for source in _FILE["sources"] if "remark" in source}
#: Why a count differs from the published figure.
NOTES: Mapping[str, str] = _FILE["notes"]
#: The networks compared in one table.
COMPARED = tuple(ModelSpec(*row) for row in _FILE["compared"])


@dataclass(frozen=True)
class Published:
    """One published network.

    Attributes:
        source: a paper, or a file of a repository.
        top1: ImageNet top-1 accuracy in percent; as all that follow, `None` where the source has no figure.
        macs_m: million multiply-adds, as printed.
        params_m: million parameters, as printed.
        tables: tables in the source, if it is a paper.
    """

    source: str
    top1: float | None
    macs_m: float | None
    params_m: float | None
    tables: str = ""

    @property
    def label(self) -> str:
        """The source in a word, for the heading of a column."""
        return _LABELS[self.source]


@dataclass(frozen=True)
class TypeShare:
    """One row of the paper's table 2: shares of a layer type in percent."""

    macs: float
    params: float


_LABELS: Mapping[str, str] = {source["name"]: source["label"] for source in _FILE["sources"]}
_FIGURES: dict[tuple[str, float, int], list[Published]] = {}
for _source in _FILE["sources"]:
    for _row in _source["figures"]:
        _found = Published(_source["name"], _row.get("top1"), _row.get("macs_m"), _row.get("params_m"), _row.get("tables", ""))
        _FIGURES.setdefault((_row["model"], _row["alpha"], _row["side"]), []).append(_found)


def figures(name: str, alpha: float, resolution: int) -> tuple[Published, ...]:
    """Return everything published about a variant: the paper's figures first, then those of slim, then those of others."""
    return tuple(_FIGURES.get((name, alpha, resolution), ()))


def paper_figures(name: str, alpha: float, resolution: int) -> Published | None:
    """Return a paper's figures for a variant, or None where it has none."""
    return next((figure for figure in figures(name, alpha, resolution) if figure.label == "paper"), None)


def slim_figures(name: str, alpha: float, resolution: int) -> Published | None:
    """Return the figures in tensorflow/models for a variant that its authors trained, or None where there is none."""
    return next((figure for figure in figures(name, alpha, resolution) if figure.label == "slim"), None)


def paper_type_shares(name: str, alpha: float, resolution: int) -> dict[str, TypeShare]:
    """Return the paper's shares by layer type as printed; empty where it prints none."""
    if (name, alpha, resolution) != ("mobilenet_v1", 1.0, 224):
        return {}
    return {label: TypeShare(*shares) for label, shares in _FILE["type_shares"].items()}
