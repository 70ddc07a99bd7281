"""Two results side by side: each variant in both, and what became of its latency."""

from __future__ import annotations

from dataclasses import dataclass

from tvmmobile.results.file import Context
from tvmmobile.results.report.joining import differences
from tvmmobile.results.report.view import VariantRow, View
from tvmmobile.results.report.wording import label_of

#: Smaller changes than this do not fill a bar.
_FULL_BAR = 0.1


@dataclass(frozen=True)
class VariantPair:
    """A variant of either result or both.

    Attributes:
        change: new over old latency, less 1; `None` where one is missing or does not count, or the two are of different kinds.
    """

    name: str
    old: VariantRow | None
    new: VariantRow | None
    change: float | None


@dataclass(frozen=True)
class Beside:
    """Two results.

    Attributes:
        headings: of the two columns: old and new, or the devices where these differ.
        remarks: what sets the two apart, a sentence each.
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
        """How long a pair's bar is, from 0 to 1: its change beside the largest, or beside `_FULL_BAR` where all are small."""
        longest = max([_FULL_BAR, *(abs(one.change) for one in self.pairs if one.change is not None)])
        return abs(pair.change or 0.0) / longest

    @property
    def compared(self) -> bool:
        """Some variant has a change."""
        return any(pair.change is not None for pair in self.pairs)


def side_by_side(old: View, new: View) -> Beside:
    """The variants of the new result first, in its order."""
    mine, theirs = ({_key(row): row for row in view.rows} for view in (old, new))
    same_kind = old.context.kind == new.context.kind
    pairs = []
    for key in dict.fromkeys((*theirs, *mine)):
        before, after = mine.get(key), theirs.get(key)
        known = before and after and before.valid and after.valid and same_kind
        change = after.variant.latency_us / before.variant.latency_us - 1 if known and before and after else None
        either = after or before
        assert either is not None
        pairs.append(VariantPair(_name(either), before, after, change))
    apart = differences(old.context, new.context)
    versions = _versions(old, new)
    remarks = [f"They differ in {'; '.join(apart)} (old and new)."] if apart else []
    remarks += [f"Versions: {versions}."] if versions else []
    remarks += [] if same_kind else ["Modelled and measured latencies are not compared with one another."]
    if same_kind and not apart:
        remarks.append("Whether a change is more than noise, tvmmobile compare says.")
    return Beside(old, new, _headings(old.context, new.context), tuple(pairs), tuple(remarks))


def _headings(old: Context, new: Context) -> tuple[str, str]:
    names = ("old", "new") if old.device == new.device else (old.device, new.device)
    return f"{names[0]}, ms {old.kind}", f"{names[1]}, ms {new.kind}"


def _key(row: VariantRow) -> tuple[object, ...]:
    variant = row.variant
    return variant.model, variant.alpha, variant.resolution, variant.dtype, variant.threads


def _name(row: VariantRow) -> str:
    variant = row.variant
    return f"{variant.model} {label_of(variant)} {variant.dtype} t{variant.threads}"


def _versions(old: View, new: View) -> str:
    mine, theirs = old.context.versions, new.context.versions
    return ", ".join(
        f"{name} {mine.get(name, 'not stated')} and {theirs.get(name, 'not stated')}"
        for name in dict.fromkeys((*mine, *theirs))
        if mine.get(name) != theirs.get(name)
    )
