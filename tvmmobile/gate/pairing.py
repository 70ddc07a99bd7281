"""Pairs the variants of two results, with the reason where one cannot be compared; refuses results that differ in more than speed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tvmmobile.gate.statistics import check_samples
from tvmmobile.results.file import Context, Results, VariantKey, VariantResult, by_key
from tvmmobile.results.report.wording import clock
from tvmmobile.system.errors import UserError


@dataclass(frozen=True)
class Pairing:
    """A variant in one or both files; `note` says why it has no verdict ("" with one), `undecided` that it may yet be slower."""

    base: VariantResult | None
    new: VariantResult | None
    note: str = ""
    undecided: bool = False

    @property
    def either(self) -> VariantResult:
        """The new variant, or the old one if there is none."""
        found = self.new or self.base
        assert found is not None
        return found


def pair_up(base: Results, new: Results) -> tuple[Pairing, ...]:
    """Return the variants of both, the new file's first, with the reason if one is not compared; raises as `compare_results`."""
    old, now = (_usable(results) for results in (base, new))
    _check_settings(old, now)
    keys = [*now, *(key for key in old if key not in now)]
    if not any(key in old and key in now for key in keys):
        raise _refusal("they have no variant in common")
    return tuple(_pairing(old.get(key), now.get(key)) for key in keys)


def _pairing(base: VariantResult | None, new: VariantResult | None) -> Pairing:
    if base is None or new is None:
        return Pairing(base, new, f"only in the {'new' if base is None else 'old'} results")
    if base.library_sha256 == new.library_sha256 and base.library_sha256:
        return Pairing(base, new, "the same library")
    for side, variant in (("old", base), ("new", new)):
        if variant.invalid:
            return Pairing(base, new, f"the {side} run does not count: {variant.invalid}", undecided=True)
    old, now = _governors(base), _governors(new)
    if old and now and old != now:
        raise _refusal(f"the clocks of {new.name} were governed by {', '.join(old)!r} and {', '.join(now)!r}")
    return Pairing(base, new)


def check_comparable(base: Context, new: Context) -> None:
    """Raise `UserError` if results with these two contexts cannot be compared."""
    for name, old, now in (
        ("devices", base.device, new.device),
        ("boards", base.board, new.board),
        ("kinds of latency", base.kind, new.kind),
        ("CPUs", base.cpu, new.cpu),
        ("clocks", clock(base.clock_hz), clock(new.clock_hz)),
        ("thread counts", base.threads, new.threads),
        ("timing models", base.timing_model or "none", new.timing_model or "none"),
    ):
        if old != now:
            raise _refusal(f"the {name} differ, {old!r} and {now!r}")


def _usable(results: Results) -> dict[VariantKey, VariantResult]:
    found = by_key(results.variants)
    for variant in results.variants:
        if variant is not found[variant.key]:
            raise _refusal(f"{variant.name} appears twice")
        try:
            check_samples(variant.samples_us)
        except (ValueError, TypeError) as error:
            raise _refusal(f"{variant.name} cannot be used: {error}") from error
    return found


def _check_settings(base: Mapping[VariantKey, VariantResult], new: Mapping[VariantKey, VariantResult]) -> None:
    """Refuse a network that both have, but with no common dtype, thread count or format."""
    for place, name in ((3, "dtypes"), (4, "thread counts"), (5, "formats")):
        old, now = (_settings(keys, place) for keys in (base, new))
        for network in now:
            if network in old and not now[network] & old[network]:
                label = f"{network[0]} {network[1]}-{network[2]}"
                raise _refusal(f"the {name} of {label} differ, {_listed(old[network])} and {_listed(now[network])}")


def _settings(keys: Iterable[VariantKey], place: int) -> dict[tuple[str, float, str], set[object]]:
    """Return each network's settings at one position of the key."""
    found: dict[tuple[str, float, str], set[object]] = {}
    for key in keys:
        found.setdefault(key[:3], set()).add(key[place])
    return found


def _governors(variant: VariantResult) -> tuple[str, ...]:
    """Return cpufreq's distinct governors during a run, from the board states that name one."""
    return tuple(sorted({str(state["governor"]) for state in _states(variant) if state.get("governor")}))


def is_unwatched(pairing: Pairing) -> bool:
    """Return whether a board on either side hides clocks and governor: runs may then differ by more than on other boards."""
    states = [state for side in (pairing.base, pairing.new) if side for state in _states(side)]
    return any(not state.get("governor") and not any(_listed_in(state, "clocks_hz")) for state in states)


def _states(variant: VariantResult) -> list[Mapping[str, Any]]:
    """Return the boards' states before and after a run; the file may hold anything here."""
    found: list[Any] = [state for moment in ("before", "after") for state in _listed_in(variant.conditions, moment)]
    return [state for state in found if isinstance(state, Mapping)]


def _listed_in(found: Mapping[str, Any], name: str) -> list[Any]:
    """Return a list by its name; an empty one if there is none, or something else."""
    value = found.get(name)
    return list(value) if isinstance(value, list | tuple) else []


def _refusal(reason: str) -> UserError:
    return UserError(f"these results cannot be compared: {reason}.", "Time both with tvmmobile bench on the same device in the same way.")


def _listed(values: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, values)))
