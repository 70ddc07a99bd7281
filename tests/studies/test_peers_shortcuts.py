"""Shares of channels from a library's manifest."""

from __future__ import annotations

from typing import Any

import pytest

from studies.peers.shortcuts import section, shortcuts_of


def layer(number: int, kind: str, channels: int, narrow: bool = False, **shortcuts: float) -> dict[str, Any]:
    return {"number": number, "kind": kind, "channels": channels, "narrow": narrow, "shortcuts": shortcuts}


MANIFEST = {
    "quantisation": {
        "layers": [
            layer(0, "conv 3x3", 8, four_products=0.0, unconverted=1.0),
            layer(1, "depthwise 3x3", 8, three_taps=1.0, unconverted=1.0),
            layer(2, "conv 1x1", 10, True, four_products=1.0, unconverted=1.0),
            layer(3, "depthwise 5x5", 24, three_taps=0.5, unconverted=0.0),
            layer(4, "conv 1x1", 30, four_products=0.2, unconverted=0.0),
            layer(5, "average pool", 30, unconverted=1.0),
            layer(6, "fully connected", 5, four_products=0.4, unconverted=1.0),
            {"number": 7, "kind": "conv 1x1", "channels": 1000},
        ]
    }
}


def test_shares_are_means_over_channels() -> None:
    found = shortcuts_of(MANIFEST)
    assert list(found) == ["1×1", "depthwise", "first", "dense"]
    assert found["1×1"] == {"four_products": pytest.approx(0.4), "narrow": 0.25, "unconverted": 0.25}
    assert found["depthwise"] == {"three_taps": 0.625, "narrow": 0.0, "unconverted": 0.25}
    assert found["dense"]["four_products"] == 0.4


def test_other_convolutions_have_a_column_where_there_are_some() -> None:
    layers = [*MANIFEST["quantisation"]["layers"], layer(8, "conv 3x3", 4, unconverted=0.5)]
    assert shortcuts_of({"quantisation": {"layers": layers}})["other convolutions"] == {"unconverted": 0.5}


@pytest.mark.parametrize("manifest", [{}, {"quantisation": {"layers": [{"number": 0, "layer": "an older library's"}]}}])
def test_libraries_without_such_entries(manifest: dict[str, Any]) -> None:
    assert shortcuts_of(manifest) == {} and list(section({"1.0-224": shortcuts_of(manifest)})) == []
