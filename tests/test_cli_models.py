"""`tvmmobile models`."""

from __future__ import annotations

import json

import pytest
from conftest import CommandLine


def test_sixteen_variants_beside_the_paper(cli: CommandLine) -> None:
    outcome = cli("models")
    lines = outcome.out.splitlines()
    assert outcome.code == 0 and max(map(len, lines)) <= 80 and "…" not in outcome.out
    rows = [line.split() for line in lines]
    assert ["1.0", "224", "568.7", "569", "569", "4.23", "4.2", "4.24", "70.6", "70.9"] in rows
    assert ["0.25", "128", "13.6", "–", "14", "0.47", "–", "0.47", "–", "41.5"] in rows
    assert sum(row[:1] in (["1.0"], ["0.75"], ["0.5"], ["0.25"]) for row in rows) == 16
    assert "arXiv 1704.04861" in outcome.out and "mobilenet_v1.md" in outcome.out


def test_layers_and_layer_types_beside_the_paper(cli: CommandLine) -> None:
    outcome = cli("models", "--layers")
    lines = outcome.out.splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in outcome.out
    rows = [line.split() for line in lines]
    assert ["conv", "1×1", "13", "539.492", "94.86", "94.86", "3139.6", "74.59", "74.59"] in rows
    assert ["conv", "3×3", "1", "10.838", "1.91", "1.19", "0.9", "0.02", "0.02"] in rows
    assert "99.29" in outcome.out
    assert sum("blocks." in line for line in lines) == 26


@pytest.mark.parametrize(("alpha", "resolution"), [("0.33", "512"), ("0.25", "33")])
def test_any_variant_without_the_papers_shares(cli: CommandLine, alpha: str, resolution: str) -> None:
    outcome = cli("models", "--layers", "--alpha", alpha, "--resolution", resolution)
    assert outcome.code == 0 and "1.19" not in outcome.out and max(map(len, outcome.out.splitlines())) <= 80


def test_json(cli: CommandLine) -> None:
    both = json.loads(cli("models", "--alpha", "1", "--alpha", "0.5", "--resolution", "224", "--json").out)
    assert [(entry["alpha"], entry["macs"]) for entry in both] == [(1.0, 568740352), (0.5, 149497088)]
    assert [figures["source"][:5] for figures in both[0]["published"]] == ["arXiv", "tenso"]
    assert both[0]["by_type"][2]["paper_percent"] == {"macs": 1.19, "params": 0.02}
    detailed = json.loads(cli("models", "--layers", "--json").out)
    assert sum(layer["macs"] for layer in detailed[0]["layers"]) == detailed[0]["macs"]
