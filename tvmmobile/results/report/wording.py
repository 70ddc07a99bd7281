"""Formats numbers and their origin. A modelled latency never appears without the word `modelled`."""

from __future__ import annotations

import math

from tvmmobile.results.file import Context, VariantResult

#: Written where a value is not known.
UNKNOWN = "–"


def clean(text: str) -> str:
    """Return text on one line without invisible characters: a name must not reverse or hide the number that follows it."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(character for character in line if character.isprintable())


def origin(context: Context) -> str:
    """Return `modelled` or `measured on <board>`, for headings."""
    return "modelled" if context.kind == "modelled" else f"{context.kind} on {context.board}"


def origin_caption(context: Context) -> str:
    """Return one line on where latencies come from, without a full stop."""
    core = f"{context.cpu} at {clock(context.clock_hz)}"
    if context.kind != "modelled":
        return f"{context.kind} on {context.board} ({context.device}), {core}"
    return f"modelled: {core}" + (f", {context.modelled_terms}" if context.modelled_terms else "")


def clock(clock_hz: float) -> str:
    """Format a core's clock; a machine that hides it has an unknown one."""
    return f"{clock_hz / 1e9:g} GHz" if clock_hz >= 1 else "an unknown clock"


def latency_ms(latency_us: float | None) -> str:
    """Format microseconds in milliseconds, with two decimals, or four below a tenth of a millisecond."""
    if latency_us is None or not math.isfinite(latency_us):
        return UNKNOWN
    return f"{latency_us / 1e3:.{2 if latency_us >= 100 else 4}f}"


def microseconds(latency_us: float | None) -> str:
    """Format microseconds with one decimal."""
    return UNKNOWN if latency_us is None else f"{latency_us:.1f}"


def millions(count: int | None) -> str:
    """Format a count in millions."""
    return UNKNOWN if count is None else f"{count / 1e6:.{1 if count >= 10e6 else 2}f}"


def percent(share: float | None) -> str:
    """Format a share of 1 in percent, with one decimal and without the sign."""
    return f"{100 * share:.1f}" if share is not None and math.isfinite(share) else UNKNOWN


def signed(change: float) -> str:
    """Format a change, a share of 1, in percent with its sign and mark; a change that rounds to 0 has no sign."""
    text = f"{change:+.1%}"
    return "0.0%" if text in ("+0.0%", "-0.0%") else text


def mebibytes(count: int) -> str:
    """Format bytes in MiB."""
    return f"{count / 2**20:.1f}"


def scientific(value: float, decimals: int = 1) -> str:
    """Format a number with that many decimals and an exponent."""
    return f"{value:.{decimals}e}" if math.isfinite(value) else UNKNOWN


def plural(count: int, thing: str) -> str:
    """Return a count with its noun: `1 thread`, `2 threads`; `1 library`, `2 libraries`."""
    if count == 1:
        return f"1 {thing}"
    return f"{count} {thing[:-1]}ies" if thing.endswith("ry") else f"{count} {thing}s"


def label_of(variant: VariantResult) -> str:
    """Return α and side as the paper writes them, e.g. `1.0-224`."""
    return f"{variant.alpha}-{variant.side}"
