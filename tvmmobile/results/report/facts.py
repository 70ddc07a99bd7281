"""Sentences and facts that several shapes of the report share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tvmmobile.results.file import Context, VariantResult
from tvmmobile.results.report.kernel_rows import KernelTable, kernel_table
from tvmmobile.results.report.law import TOLERANCE, PowerLaw
from tvmmobile.results.report.view import VariantRow, View
from tvmmobile.results.report.wording import clock, label_of, latency_ms, percent, plural
from tvmmobile.running.formats import VM

#: An exponent nearer to 1 than this is called proportional.
_PROPORTIONAL = 0.01


def fit_sentence(fit: PowerLaw, context: Context) -> str:
    """Return the fitted exponent and its meaning, in words."""
    if abs(fit.exponent - 1) < _PROPORTIONAL:
        meaning = "time per multiply-add is the same for small and large variants"
    elif fit.exponent < 1:
        meaning = "a small variant takes more time per multiply-add than a large one"
    else:
        meaning = "a large variant takes more time per multiply-add than a small one"
    return (
        f"Latency ({context.kind}) grows as the multiply-adds to the power {fit.exponent:.3f}: {meaning}. "
        f"Least squares on the logarithms of {plural(fit.points, 'variant')}, R² {fit.r_squared:.4f}."
    )


def law_sentence(view: View) -> str:
    """Return how many variants depart from the α²ρ² law, and which one does so most; "" if the law does not apply."""
    rows = [(row, row.departure) for row in view.rows if row.departure]
    if not rows:
        return ""
    far = [(row, departure) for row, departure in rows if departure.departs]
    if not far:
        return f"All variants are within {100 * TOLERANCE:g} % of the α²ρ² law through the largest one."
    row, most = max(far, key=lambda pair: abs(pair[1].ratio - 1))
    return (
        f"{len(far)} of {plural(len(rows), 'variant')} depart from the α²ρ² law through the largest one by more than "
        f"{100 * TOLERANCE:g} %; {label_of(row.variant)} most: {latency_ms(row.variant.latency_us)} ms {view.context.kind} for the law's "
        f"{latency_ms(most.law_us)}, {most.ratio:.2f} times it: {most.macs_ratio:.2f} times the multiply-adds that α²ρ² leaves, "
        f"and each takes {most.time_ratio:.2f} times as long."
    )


def sum_sentence(table: KernelTable, variant: VariantResult, context: Context) -> str:
    """Compare the sum of the kernels' times with the whole in a sentence; "" where no kernel was timed."""
    if table.sum_share is not None:
        if table.sum_share <= 1:
            rest = f"the rest is {_between([variant])}"
        else:
            rest = "concurrent work counts twice" if variant.threads > 1 else "timing each one costs a little"
        return f"Within the network ({context.kind}) its kernels add up to {_part(table.sum_share)} % of its latency; {rest}."
    timed = [row.latency_us for row in table.rows if row.latency_us is not None]
    if not timed:
        return ""
    share = sum(timed) / variant.latency_us
    return (
        f"Kernels as in their tuning records ({context.kind}), each alone and with cold caches: together {percent(share)} % of the "
        "network's latency. They were not timed within the network."
    )


def sums_sentence(view: View) -> str:
    """Compare these sums over all variants in a sentence; "" where no variant's kernels were timed within the network."""
    shares = [share for row in view.rows if (share := kernel_table(row.variant, view.context).sum_share) is not None]
    if not shares:
        return ""
    low, high = _part(min(shares)), _part(max(shares))
    whole = f"{low} %" if low == high else f"{low} to {high} %"
    rest = f"; the rest is {_between([row.variant for row in view.rows])}" if max(shares) <= 1 else ""
    return f"Within the network ({view.context.kind}) the kernels add up to {whole} of its latency{rest}."


def _between(variants: Iterable[VariantResult]) -> str:
    """Return the time that a run spends outside its kernels."""
    return "the virtual machine between them" if all(variant.format == VM for variant in variants) else "what lies between them"


def _part(share: float) -> str:
    """Format a share in percent; near 100 % with one more decimal, so that a remainder shows."""
    text = percent(share)
    return f"{100 * share:.2f}" if text == "100.0" and share < 1 else text


def facts(view: View) -> list[tuple[str, str]]:
    """Return where and how the numbers were obtained, as names and values."""
    context = view.context
    runs = sorted({len(row.variant.samples_us) for row in view.rows})
    found = [
        ("latency", "modelled" if context.kind == "modelled" else f"{context.kind}, median of {_range(runs)} runs"),
        ("device", context.device),
        ("board", context.board),
        ("CPU", f"{context.cpu} at {clock(context.clock_hz)}, {context.fma_lanes_per_cycle} float32 multiply-adds a cycle and core"),
        ("threads", str(context.threads)),
    ]
    if context.memory_bytes_per_s is not None:
        source = f", {context.memory_source}" if context.memory_source else ""
        found.append(("memory", f"{context.memory_bytes_per_s / 1e9:.3g} GB/s{source}"))
    if context.kind == "modelled":
        found += [("timing model", context.timing_model or "not stated"), ("modelled terms", context.modelled_terms or "not stated")]
    found += _conditions([row.variant for row in view.rows])
    valid = sum(row.valid for row in view.rows)
    if context.kind != "modelled" or valid < len(view.rows):
        found.append(("valid", f"{valid} of {plural(len(view.rows), 'variant')}"))
    found += [(f"version of {name}", version) for name, version in context.versions.items()]
    found += [("weights", weights) for weights in dict.fromkeys(row.variant.weights for row in view.rows)]
    return [*found, ("date", context.date)]


def condition_sentence(row: VariantRow) -> str:
    """Return the boards' state around a variant's runs, in words; "" where nothing is known of it."""
    return "; ".join(f"{name} {value}" for name, value in _conditions([row.variant]))


def _conditions(variants: list[VariantResult]) -> list[tuple[str, str]]:
    """Describe the boards before and after the runs of these variants."""
    found = []
    before, after = (_temperatures(variants, moment) for moment in ("before", "after"))
    if before or after:
        parts = [f"{text} {moment}" for text, moment in ((before, "before"), (after, "after")) if text]
        found.append(("temperature", f"{', '.join(parts)} the runs"))
    states = [state for variant in variants for moment in ("before", "after") for state in _states(variant, moment)]
    governors = _distinct(state.get("governor") for state in states)
    throttled = _distinct(word for state in states for word in _words(state.get("throttled")))
    known = [hertz for state in states for hertz in _words(state.get("clocks_hz"))]
    clocks = sorted({float(hertz) for hertz in known if isinstance(hertz, int | float) and hertz > 0})
    if clocks:
        ends = dict.fromkeys(f"{hertz / 1e9:.3g}" for hertz in (clocks[0], clocks[-1]))
        found.append(("clocks", f"{' to '.join(ends)} GHz"))
    if governors:
        found.append(("governor", governors))
    if states:
        found.append(("held down", throttled or "nothing"))
    if hidden := [name for name, known in (("clocks", clocks), ("governor", governors), ("temperature", before or after)) if not known]:
        found += [("unknown", ", ".join(hidden))] if states else []
    if any(variant.conditions.get("steady") is False for variant in variants):
        found.append(("settled", "times had not settled within the runs before"))
    return found


def _temperatures(variants: list[VariantResult], moment: str) -> str:
    found = sorted(
        float(value)
        for variant in variants
        for state in _states(variant, moment)
        if isinstance(value := state.get("temperature_c"), int | float)
    )
    if not found:
        return ""
    return " to ".join(dict.fromkeys(f"{value:.0f}" for value in (found[0], found[-1]))) + " °C"


def _states(variant: VariantResult, moment: str) -> list[Mapping[str, Any]]:
    """Return the boards' states; the file may hold anything here."""
    return [state for state in _words(variant.conditions.get(moment)) if isinstance(state, Mapping)]


def _words(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _distinct(values: Iterable[Any]) -> str:
    return ", ".join(sorted({str(value) for value in values if value}))


def _range(counts: list[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
