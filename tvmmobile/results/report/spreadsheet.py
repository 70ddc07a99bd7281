"""Results as CSV: one line per variant, and one per kernel; numbers unrounded, each line saying where it comes from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tvmmobile.results.file import Context, Results, VariantResult
from tvmmobile.results.report.kernel_rows import kernel_table
from tvmmobile.results.report.zeros import zero_kernels

_WHERE = ("kind", "device", "board", "cpu", "clock_hz", "timing_model", "modelled_terms")
#: Units are in the names; empty cells are unknown. `kind` says whether the latency is `modelled` or `measured`; `samples_us` are separated
#: by blanks; `term_ms`, `conditions` and `versions` are JSON. Where kernels leave zeros out, `dense_us` follows.
COLUMNS = (
    *("name", "model", "alpha", "resolution", "dtype", "threads", "format", *_WHERE),
    *("latency_us", "latency_min_us", "latency_max_us", "samples", "invalid", "cycles", "instructions", "l1d_misses", "dram_bytes"),
    *("macs", "parameters", "fma_peak_share", "top1_percent", "top1_source", "peak_memory_bytes", "max_error"),
    *("reference", "network_sha256", "library_sha256", "weights", "date", "kernels", "kernels_us", "memory_bytes_per_s", "memory_source"),
    *("samples_us", "term_ms", "conditions", "versions"),
)
#: `latency_us` is `network_us` where the variant's kernels were timed within the network, else `record_us`; `moved_bytes` are `dram_bytes`
#: where all were counted, else `least_bytes`. `course` is JSON: trials and the best latency by then. Where kernels leave zeros out, `zeros`
#: follows: their share of a kernel's weights.
KERNEL_COLUMNS = (
    *("variant", "model", "alpha", "resolution", "dtype", "threads", "format", *_WHERE, "date"),
    *("position", "name", "layer_type", "macs", "latency_us", "network_us", "record_us", "gflops", "fma_peak_share", "time_share"),
    *("l1d_misses", "dram_bytes", "least_bytes", "moved_bytes", "flop_per_byte", "limit", "limit_share"),
    *("schedule", "fallback", "rank_correlation", "course"),
)


#: Characters that begin a formula, in full width as well.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def spreadsheet(results: Sequence[Results]) -> str:
    """Return the text of `report.csv`."""
    columns = (*COLUMNS, *(["dense_us"] if _sparse(results) else []))
    return csv_text(columns, (_line(columns, variant, result.context) for result in results for variant in result.variants))


def kernel_spreadsheet(results: Sequence[Results]) -> str:
    """Return the text of `report-kernels.csv`: every kernel of every variant, in order of execution."""
    columns = (*KERNEL_COLUMNS, *(["zeros"] if _sparse(results) else []))
    lines = (line for result in results for variant in result.variants for line in _kernel_lines(columns, variant, result.context))
    return csv_text(columns, lines)


def csv_text(columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    """Return a heading and lines of these columns (RFC 4180 quoting, lines ended by LF); no text in it is a formula to a spreadsheet."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _plain(value) if isinstance(value, str) else value for name, value in line.items()} for line in lines)
    return stream.getvalue()


def _plain(text: str) -> str:
    """Return text that a spreadsheet shows literally: an apostrophe precedes text that would start a formula (OWASP, CSV injection), and
    control characters, which may hide or break a cell, become blanks.
    """
    shown = "".join(character if character.isprintable() else " " for character in text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def _sparse(results: Sequence[Results]) -> bool:
    """Return whether some kernel leaves zeros out; without such kernels there are no columns on them."""
    return any(zero_kernels(variant) for result in results for variant in result.variants)


def _line(columns: Sequence[str], variant: VariantResult, context: Context) -> dict[str, Any]:
    values = _common(columns, variant, context)
    return values | {
        "latency_min_us": min(variant.samples_us),
        "latency_max_us": max(variant.samples_us),
        "samples": len(variant.samples_us),
        "fma_peak_share": variant.peak_share(context),
        "top1_percent": variant.top1,
        "kernels": len(variant.kernels),
        "samples_us": " ".join(map(repr, variant.samples_us)),
        **{name: _json(values[name]) for name in ("term_ms", "conditions", "versions")},
    }


def _kernel_lines(columns: Sequence[str], variant: VariantResult, context: Context) -> Iterable[dict[str, Any]]:
    common = _common(columns, variant, context)
    for position, row in enumerate(kernel_table(variant, context).rows):
        kernel = row.kernel
        own = {name: getattr(kernel, name) for name in columns if hasattr(kernel, name)}
        yield (
            common
            | own
            | {
                "variant": variant.name,
                "position": position,
                "layer_type": kernel.kind,
                "latency_us": row.latency_us,
                "record_us": kernel.latency_us,
                "gflops": row.gflops,
                "fma_peak_share": row.peak_share,
                "time_share": row.time_share,
                "moved_bytes": row.moved_bytes,
                "flop_per_byte": row.intensity,
                "limit": row.limit,
                "limit_share": row.limit_share,
                "course": _json(kernel.course),
                # The kernel has a kind of its own; in these files the word says where a latency comes from.
                "kind": context.kind,
            }
        )


def _common(columns: Sequence[str], variant: VariantResult, context: Context) -> dict[str, Any]:
    """Return the columns that are attributes of the variant, or else of the context."""
    values = {name: getattr(variant, name) for name in columns if hasattr(variant, name)}
    return values | {name: getattr(context, name) for name in columns if hasattr(context, name) and name not in values}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if value else ""
