"""Sentences about an answer, for the terminal, Markdown and the page."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tvmmobile.choosing.answer import NetworkChoice
from tvmmobile.choosing.budget import Budget
from tvmmobile.results.report.wording import clock, plural

#: Prefix of latencies that are partly estimated.
ESTIMATED = "~"
#: Most untuned candidates that are named.
_NAMED = 3


def verdict(choice: NetworkChoice) -> str:
    """Return the answer in one sentence."""
    budget, where = choice.budget, " and ".join(profile.name for profile in choice.profiles)
    if not budget.is_bound and choice.front:
        return f"Networks on {where} that no other is as fast and as accurate as:"
    if not budget.is_bound:
        sizes = f" within {', '.join(_sizes(budget))}" if choice.oversized else ""
        return f"There is no network{' with a known latency' if choice.untuned else ''}{sizes} on {where}."
    bound = f"within {budget.most_us / 1e3:g} ms" if math.isfinite(budget.most_us) else f"with a top-1 of {budget.least_top1:g} %"
    bound += "".join(f", {limit}" for limit in _sizes(budget))
    if choice.best is None:
        return f"There is no network {bound} on {where}."
    best = choice.best.candidate
    what = "The most accurate network" if math.isfinite(budget.most_us) else "The fastest network"
    threads = f" on {best.threads} threads" if best.threads > 1 else ""
    return f"{what} {bound} on {where}: {best.model.spec.variant} in {best.precision.name}{threads}."


def _sizes(budget: Budget) -> Iterator[str]:
    """Yield the limits on sizes in words."""
    for most, what in ((budget.most_memory, "memory"), (budget.most_weights, "weights")):
        if math.isfinite(most):
            yield f"{most / 1e6:g} MB of {what}"


def sources_of(choice: NetworkChoice) -> list[str]:
    """Return the sources of the accuracies of all candidates with known latency, in the order of their numbers."""
    return list(dict.fromkeys(priced.candidate.accuracy.source for priced in (*choice.front, *choice.beaten)))


def origins(choice: NetworkChoice) -> list[str]:
    """Return sentences about the sources of the latencies and accuracies."""
    sentences = [
        f"{profile.name}: {profile.origin.kind} latencies, {profile.cpu} at {clock(profile.clock_hz)}; sums of tuning records."
        for profile in choice.profiles
    ]
    sources = sources_of(choice)
    known = (*choice.front, *choice.beaten)
    for number, source in enumerate(sources, start=1):
        measured = any(priced.candidate.accuracy.measured for priced in known if priced.candidate.accuracy.source == source)
        sentences.append(f"[{number}] {'measured on ' if measured else ''}{source}{'' if measured else ', published, in float32'}")
    shares = [candidate.estimated for candidate in (*choice.front, *choice.beaten) if candidate.estimated]
    if shares:
        sentences.append(
            f"{ESTIMATED} Up to {max(shares):.0%} of a latency is estimated: kernels without a record, from the nearest shapes with one. "
            "tvmmobile tune measures them."
        )
    if any(_sizes(choice.budget)):
        sentences.append("Sizes are the plan's: activations alive at once, without kernels' scratch memory; weights, without code.")
    if len(sources) > 1:
        sentences.append("Accuracies from several sources are of different trainings or images.")
    return sentences


def left_out(choice: NetworkChoice) -> list[str]:
    """Return sentences about the libraries that are not on the front, one for each reason."""
    left = [
        (len(choice.beaten), "slower and no more accurate than one of these"),
        (len(choice.oversized), "larger than " + " or ".join(_sizes(choice.budget))),
        (choice.skipped, "not priced: they cannot change the answer"),
    ]
    sentences = [f"{plural(count, 'library')} {why}." for count, why in left if count]
    for priced in choice.untuned[:_NAMED]:
        spec, lacking = priced.candidate.model.spec, max(latency.unmeasured for latency in priced.latencies.values())
        kernels = plural(lacking, "kernel")
        what = "without a record, or one like it; tvmmobile tune measures them."
        sentences.append(f"{spec.variant} in {priced.candidate.precision.name}: {kernels} {what}")
    if len(choice.untuned) > _NAMED:
        sentences.append(f"{len(choice.untuned) - _NAMED} more have such kernels.")
    if choice.unknown:
        more = f" and {len(choice.unknown) - 1} more" if len(choice.unknown) > 1 else ""
        sentences.append(f"No accuracy is known of {choice.unknown[0]}{more}: measure it with tvmmobile evaluate, and give --accuracy.")
    return sentences
