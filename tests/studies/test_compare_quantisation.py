"""The study compare_quantisation: methods and their table."""

from __future__ import annotations

from studies.errors import compare_quantisation


def test_each_method_is_a_row_with_both_networks() -> None:
    row = {"ranges": "percentile", "per_channel": True, "equalised": True, "corrected": False}
    row |= {"lost": 0.125, "interval": 0.5, "same": 99.0, "signal_to_noise_db": 30.04}
    lines = compare_quantisation.table({"rows": [row, row | {"lost": 2.0}]}).splitlines()
    assert (
        lines[2] == "| percentile | per channel | yes | no | 0.12 ± 0.50 | 99.00 | 30.0 | 2.00 ± 0.50 | 99.00 | 30.0 |" and len(lines) == 3
    )
    assert len(list(compare_quantisation.methods())) == len(set(compare_quantisation.methods())) == 14
