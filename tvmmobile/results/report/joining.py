"""Result files of one context as one result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvmmobile.results.file import Context, Results, VariantResult
from tvmmobile.results.report.wording import clean
from tvmmobile.system.errors import UserError


@dataclass(frozen=True)
class Joined:
    """Several results as one.

    Attributes:
        remarks: what a reader should know of it, a sentence each: which variants were there twice, which versions differ.
    """

    results: Results
    remarks: tuple[str, ...]


def differences(first: Context, second: Context) -> list[str]:
    """What sets numbers got in these two places apart, a clause each; empty for one and the same context."""
    pairs = (
        ("device", first.device, second.device),
        ("board", first.board, second.board),
        ("kind of latency", first.kind, second.kind),
        ("CPU", first.cpu, second.cpu),
        ("clock", f"{first.clock_hz / 1e9:g} GHz", f"{second.clock_hz / 1e9:g} GHz"),
        ("float32 multiply-adds a cycle", first.fma_lanes_per_cycle, second.fma_lanes_per_cycle),
        ("threads", first.threads, second.threads),
        ("timing model", first.timing_model or "none", second.timing_model or "none"),
    )
    return [f"{name} {clean(str(mine))} and {clean(str(theirs))}" for name, mine, theirs in pairs if mine != theirs]


def join(results: Sequence[Results]) -> Joined:
    """All variants of the results; one that is there more than once counts as the latest of them has it.

    Raises:
        UserError: they are of more than one context.
    """
    ordered = sorted(results, key=lambda one: one.context.date)
    latest = ordered[-1].context
    for one in ordered[:-1]:
        apart = differences(one.context, latest)
        if apart:
            raise UserError(
                f"these results are of two contexts and cannot be joined: {'; '.join(apart)}.",
                "Leave out --join to see two results side by side, or join files of one device.",
            )
    found: dict[tuple[object, ...], VariantResult] = {}
    dates: dict[tuple[object, ...], list[str]] = {}
    for one in ordered:
        for variant in one.variants:
            key = (variant.model, variant.alpha, variant.resolution, variant.dtype, variant.threads)
            found[key] = variant
            dates.setdefault(key, []).append(one.context.date)
    remarks = [
        f"{found[key].name} is there {len(when)} times, from {', '.join(when)}; the latest counts."
        for key, when in dates.items()
        if len(when) > 1
    ]
    versions = {name: _versions(ordered, name) for one in ordered for name in one.context.versions}
    remarks += [f"The version of {name} differs: {text}." for name, text in versions.items() if ", " in text]
    known = [one.context for one in ordered if one.context.memory_bytes_per_s is not None] or [latest]
    context = replace(latest, versions=versions, memory_bytes_per_s=known[-1].memory_bytes_per_s, memory_source=known[-1].memory_source)
    return Joined(Results(context, tuple(found.values())), tuple(remarks))


def _versions(results: Sequence[Results], name: str) -> str:
    return ", ".join(dict.fromkeys(one.context.versions[name] for one in results if name in one.context.versions))
