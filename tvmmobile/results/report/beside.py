"""Combines results: joins those with the same context, or sets two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvmmobile.results.file import Context, Results, VariantKey, VariantResult, by_key, changed_versions, joined_versions
from tvmmobile.results.report.view import View
from tvmmobile.results.report.wording import clean, clock, label_of
from tvmmobile.system.errors import UserError

#: The smallest change that can fill a bar.
_FULL_BAR = 0.1


@dataclass(frozen=True)
class JoinedResults:
    """Several results as one.

    Attributes:
        remarks: notes for the reader, one sentence each: which variants occurred twice, which versions differ.
    """

    results: Results
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class VariantPair:
    """Figures of a variant in either result or both.

    Attributes:
        change: new over old latency, less 1; `None` where one is missing or does not count, or the two are of different kinds.
    """

    name: str
    old: VariantResult | None
    new: VariantResult | None
    change: float | None


@dataclass(frozen=True)
class SideBySide:
    """Two results, variant by variant.

    Attributes:
        headings: headings of the two columns: old and new, or the devices where these differ.
        remarks: their differences, one sentence each.
    """

    old: View
    new: View
    headings: tuple[str, str]
    pairs: tuple[VariantPair, ...]
    remarks: tuple[str, ...]

    @property
    def new_name(self) -> str:
        """The second result, in words."""
        if self.old.context.device == self.new.context.device:
            return f"the new result, of {self.new.context.date}"
        return f"the result of {self.new.context.device}, of {self.new.context.date}"

    def bar(self, pair: VariantPair) -> float:
        """Return the length of a pair's bar, from 0 to 1: its change relative to the largest, or to `_FULL_BAR` if all are small."""
        longest = max([_FULL_BAR, *(abs(one.change) for one in self.pairs if one.change is not None)])
        return abs(pair.change or 0.0) / longest

    @property
    def compared(self) -> bool:
        """True if some variant has a change."""
        return any(pair.change is not None for pair in self.pairs)


def differences(first: Context, second: Context) -> list[str]:
    """Return the differences between two contexts, one clause each; empty if there are none."""
    pairs = (
        ("device", first.device, second.device),
        ("board", first.board, second.board),
        ("kind of latency", first.kind, second.kind),
        ("CPU", first.cpu, second.cpu),
        ("clock", clock(first.clock_hz), clock(second.clock_hz)),
        ("float32 multiply-adds a cycle", first.fma_lanes_per_cycle, second.fma_lanes_per_cycle),
        ("threads", first.threads, second.threads),
        ("timing model", first.timing_model or "none", second.timing_model or "none"),
    )
    return [f"{name} {clean(str(mine))} and {clean(str(theirs))}" for name, mine, theirs in pairs if mine != theirs]


def join(results: Sequence[Results]) -> JoinedResults:
    """Return all variants of the results, each from the latest result with it; raise `UserError` if their contexts differ."""
    ordered = sorted(results, key=lambda result: result.context.date)
    latest = ordered[-1].context
    for one in ordered[:-1]:
        differing = differences(one.context, latest)
        if differing:
            raise UserError(
                f"these results have different contexts and cannot be joined: {'; '.join(differing)}.",
                "Join results of one device; tvmmobile report without --join shows two side by side.",
            )
    found = by_key(variant for one in ordered for variant in one.variants)
    dates: dict[VariantKey, list[str]] = {}
    for one in ordered:
        for variant in one.variants:
            dates.setdefault(variant.key, []).append(one.context.date)
    remarks = [
        f"{found[key].name} appears {len(when)} times, from {', '.join(when)}; the latest counts."
        for key, when in dates.items()
        if len(when) > 1
    ]
    versions = joined_versions(one.context for one in ordered)
    remarks += [f"The version of {name} differs: {text}." for name, text in versions.items() if ", " in text]
    known = [one.context for one in ordered if one.context.memory_bytes_per_s is not None] or [latest]
    context = replace(latest, versions=versions, memory_bytes_per_s=known[-1].memory_bytes_per_s, memory_source=known[-1].memory_source)
    return JoinedResults(Results(context, tuple(found.values())), tuple(remarks))


def side_by_side(old: View, new: View) -> SideBySide:
    """Pair the variants of two results, in the new result's order."""
    mine, theirs = (by_key(row.variant for row in view.rows) for view in (old, new))
    same_kind = old.context.kind == new.context.kind
    pairs = []
    for key in dict.fromkeys((*theirs, *mine)):
        before, after = mine.get(key), theirs.get(key)
        known = before and after and not (before.invalid or after.invalid) and same_kind
        change = after.latency_us / before.latency_us - 1 if known and before and after else None
        either = after or before
        assert either is not None
        pairs.append(VariantPair(_name(either), before, after, change))
    differing = differences(old.context, new.context)
    versions = ", ".join(f"{name} {before} and {now}" for name, before, now in changed_versions(old.context, new.context))
    remarks = [f"They differ in {'; '.join(differing)} (old and new)."] if differing else []
    remarks += [f"Versions: {versions}."] if versions else []
    remarks += [] if same_kind else ["Modelled and measured latencies are not compared with one another."]
    if same_kind and not differing:
        remarks.append("Run tvmmobile compare to tell changes from noise.")
    names = ("old", "new") if old.context.device == new.context.device else (old.context.device, new.context.device)
    headings = f"{names[0]}, ms {old.context.kind}", f"{names[1]}, ms {new.context.kind}"
    return SideBySide(old, new, headings, tuple(pairs), tuple(remarks))


def _name(variant: VariantResult) -> str:
    return f"{variant.model} {label_of(variant)} {variant.precision} t{variant.threads} {variant.format}"
