"""`tvmmobile choose`: the best network within a budget."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmmobile.choosing.options import ChooseOptions
from tvmmobile.cli.generated import takes, word_of
from tvmmobile.cli.network import Variants
from tvmmobile.cli.options import Alphas, Json
from tvmmobile.pipeline.options.option import HelpOrder

if TYPE_CHECKING:
    from tvmmobile.choosing.choose import NetworkChoice, PricedCandidate

#: Rows of the front around the best one.
_AROUND = 3


@takes(ChooseOptions)
def choose(
    device: Annotated[
        list[str] | None,
        typer.Option("--device", metavar="NAME", help="Board, such as pi4 (default); given more than once, the slowest one counts."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Network family, or your own file; may be given more than once. Default: MobileNet v1, v2 and v3.",
        ),
    ] = None,
    alpha: Alphas = None,
    resolution: Annotated[list[str] | None, word_of(Variants, "resolution")] = None,
    as_json: Annotated[Json, HelpOrder.SEARCH] = False,
    **chosen: Any,
) -> None:
    """Choose the best network within a budget, from tuning logs and known accuracies.

    Nothing runs on a device: a latency is the sum of what the records of a library's kernels say. The networks are the published variants,
    or those of --model with every --alpha and --resolution.
    """
    from tvmmobile.choosing.choose import FAMILIES
    from tvmmobile.choosing.choose import choose as run
    from tvmmobile.cli.progress import Shown
    from tvmmobile.networks.own.files import side_from
    from tvmmobile.pipeline.load import variants

    sides = [side_from(text) for text in resolution or ()]
    networks = [one for name in model or FAMILIES for one in variants(name, alpha or (), sides)]
    found = run(networks, device or ["pi4"], **chosen, listener=Shown())
    if as_json:
        typer.echo(json.dumps(json_of(found), indent=2, ensure_ascii=False))
    else:
        print_choice(found)


def print_choice(choice: NetworkChoice) -> None:
    """Print the front around the best network, and what was left out."""
    from tvmmobile.results.report.wording import latency_ms, plural
    from tvmmobile.system.console import output, table_of

    console, sources = output(), list(dict.fromkeys(one.candidate.accuracy.source for one in choice.front))
    shown = _around(choice)
    headings = [f"{profile.name}\nms" for profile in choice.profiles]
    table = table_of(("", "network", "dtype"), ("threads", *headings, "top-1\n% [n]"))
    for one in shown:
        candidate, accuracy = one.candidate, one.candidate.accuracy
        mark = "→" if one is choice.best else ""
        latencies = [latency_ms(one.latencies[profile.name].latency_us) for profile in choice.profiles]
        top1 = f"{accuracy.top1:.1f} [{sources.index(accuracy.source) + 1}]"
        table.add_row(mark, candidate.model.spec.variant, candidate.precision.name, str(candidate.threads), *latencies, top1)
    console.print(_verdict(choice))
    if shown:
        console.print(table)
    for profile in choice.profiles:
        console.print(
            f"{profile.name}: {profile.origin.kind} latencies, {profile.cpu} at {profile.clock_hz / 1e9:g} GHz; sums of tuning records."
        )
    for number, source in enumerate(sources, start=1):
        measured = any(one.candidate.accuracy.measured for one in choice.front if one.candidate.accuracy.source == source)
        console.print(f"[{number}] {'measured on ' if measured else ''}{source}{'' if measured else ', published, in float32'}")
    if len(sources) > 1:
        console.print("Accuracies from several sources are of different trainings or images.")
    left = [(choice.beaten, "slower and no more accurate than one of these"), (choice.skipped, "not priced: they cannot change the answer")]
    for count, why in left:
        if count:
            console.print(f"{plural(count, 'library') if count > 1 else '1 library'} {why}.")
    _print_unusable(choice)


def _print_unusable(choice: NetworkChoice) -> None:
    from tvmmobile.results.report.wording import plural
    from tvmmobile.system.console import output

    for one in choice.untuned[:_AROUND]:
        spec, lacking = one.candidate.model.spec, max(latency.unmeasured for latency in one.latencies.values())
        output().print(
            f"{spec.variant} in {one.candidate.precision.name}: {plural(lacking, 'kernel')} without a record; tvmmobile tune measures them."
        )
    if len(choice.untuned) > _AROUND:
        output().print(f"{len(choice.untuned) - _AROUND} more have kernels without a record.")
    if choice.unknown:
        more = f" and {len(choice.unknown) - 1} more" if len(choice.unknown) > 1 else ""
        output().print(f"No accuracy is known of {choice.unknown[0]}{more}: measure it with tvmmobile evaluate, and give --accuracy.")


def _verdict(choice: NetworkChoice) -> str:
    budget, where = choice.budget, " and ".join(profile.name for profile in choice.profiles)
    if not budget.is_bound:
        return f"Networks on {where} that no other is as fast and as accurate as:"
    bound = f"within {budget.most_us / 1e3:g} ms" if math.isfinite(budget.most_us) else f"with a top-1 of {budget.least_top1:g} %"
    if choice.best is None:
        return f"No network is {bound} on {where}."
    best = choice.best.candidate
    what = "The most accurate network" if math.isfinite(budget.most_us) else "The fastest network"
    return f"{what} {bound} on {where}: {best.model.spec.variant} in {best.precision.name}."


def _around(choice: NetworkChoice) -> list[PricedCandidate]:
    """Return the front, or the part of it around the best network where there is a budget."""
    front = list(choice.front)
    if choice.best is None:
        return front
    place = front.index(choice.best)
    return front[max(0, place - _AROUND) : place + _AROUND + 1]


def json_of(choice: NetworkChoice) -> dict[str, Any]:
    """Return the answer as `--json` prints it; latencies are in microseconds."""
    return {
        "devices": [profile.name for profile in choice.profiles],
        "best": None if choice.best is None else _entry(choice.best),
        "front": [_entry(one) for one in choice.front],
        "beaten": choice.beaten,
        "skipped": choice.skipped,
        "untuned": [_entry(one) for one in choice.untuned],
        "unknown_accuracy": list(choice.unknown),
    }


def _entry(one: PricedCandidate) -> dict[str, Any]:
    candidate = one.candidate
    return {
        "variant": candidate.model.spec.variant,
        "dtype": candidate.precision.name,
        "threads": candidate.threads,
        "top1_percent": candidate.accuracy.top1,
        "top1_source": candidate.accuracy.source,
        "top1_measured": candidate.accuracy.measured,
        "latency_us": {name: latency.latency_us for name, latency in one.latencies.items()},
        "kernels_without_record": {name: latency.unmeasured for name, latency in one.latencies.items()},
    }
