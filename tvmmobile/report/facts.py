"""Sentences and facts that several shapes of the report share."""

from __future__ import annotations

from tvmmobile.report.analysis import PowerLaw
from tvmmobile.report.view import View
from tvmmobile.results import Context

#: An exponent nearer to 1 than this is called proportional.
_PROPORTIONAL = 0.01


def fit_sentence(fit: PowerLaw, context: Context) -> str:
    """The fitted exponent and what it says, in words."""
    if abs(fit.exponent - 1) < _PROPORTIONAL:
        meaning = "time per multiply-add is the same for small and large variants"
    elif fit.exponent < 1:
        meaning = "a small variant takes more time per multiply-add than a large one"
    else:
        meaning = "a large variant takes more time per multiply-add than a small one"
    return (
        f"Latency ({context.kind}) grows as the multiply-adds to the power {fit.exponent:.3f}: {meaning}. "
        f"Least squares on the logarithms of {fit.points} variants, R² {fit.r_squared:.4f}."
    )


def facts(view: View) -> list[tuple[str, str]]:
    """Where and how the numbers were got, as names and values."""
    context = view.context
    runs = sorted({len(row.variant.samples_us) for row in view.rows})
    found = [
        ("latency", "modelled" if context.kind == "modelled" else f"{context.kind}, median of {_range(runs)} runs"),
        ("device", context.device),
        ("board", context.board),
        ("CPU", f"{context.cpu} at {context.clock_hz / 1e9:g} GHz, {context.fma_lanes_per_cycle} float32 multiply-adds a cycle and core"),
        ("threads", str(context.threads)),
    ]
    if context.kind == "modelled":
        found += [("timing model", context.timing_model or "not stated"), ("modelled terms", context.modelled_terms or "not stated")]
    found += [(f"version of {name}", version) for name, version in context.versions.items()]
    found += [("weights", weights) for weights in dict.fromkeys(row.variant.weights for row in view.rows)]
    return [*found, ("date", context.date)]


def _range(counts: list[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
