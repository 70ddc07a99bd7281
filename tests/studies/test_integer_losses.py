"""The study integer_losses: the row of a network."""

from __future__ import annotations

from studies.errors import integer_losses


def test_each_network_is_a_row() -> None:
    entry = {"network": "net 1.0-32", "inputs": 8, "layers": 5, "floats": 1, "equalised": True}
    entry |= {"decibels": 20.04, "least": 11.96, "same_top": 7}
    assert integer_losses.table([entry]).splitlines()[2] == "| net 1.0-32 | yes | 5 | 1 | 20.0 | 12.0 | 7 of 8 |"
