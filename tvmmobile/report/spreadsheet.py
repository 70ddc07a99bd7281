"""Results as CSV: one line per variant, numbers unrounded, each line saying where it comes from."""

from __future__ import annotations

import csv
import io

from tvmmobile.results import Results

#: Units are in the names; empty cells are unknown. `kind` says whether the latency is `modelled` or `measured`.
COLUMNS = (
    *("name", "model", "alpha", "resolution", "dtype", "threads"),
    *("kind", "device", "board", "cpu", "clock_hz", "timing_model", "modelled_terms"),
    *("latency_us", "latency_min_us", "latency_max_us", "samples", "cycles", "instructions", "l1d_misses", "dram_bytes"),
    *("macs", "parameters", "fma_peak_share", "top1_percent", "top1_source", "peak_memory_bytes", "max_error"),
    *("library_sha256", "weights", "date"),
)


def spreadsheet(results: Results) -> str:
    """The text of `report.csv` (RFC 4180 quoting, lines ended by LF)."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    context = results.context
    for variant in results.variants:
        values = {name: getattr(variant, name) for name in COLUMNS if hasattr(variant, name)}
        values |= {name: getattr(context, name) for name in COLUMNS if hasattr(context, name) and name not in values}
        values["latency_min_us"], values["latency_max_us"] = min(variant.samples_us), max(variant.samples_us)
        values["samples"] = len(variant.samples_us)
        values["fma_peak_share"] = variant.peak_share(context)
        values["top1_percent"] = variant.top1
        writer.writerow(values)
    return stream.getvalue()
