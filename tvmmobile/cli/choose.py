"""`tvmmobile choose`: the best network within a budget."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmmobile.choosing.options import ChooseOptions
from tvmmobile.cli.generated import with_cli_options, word_of
from tvmmobile.cli.network import Variants
from tvmmobile.cli.options import Alphas, Json, names_of
from tvmmobile.pipeline.options.option import HelpOrder

if TYPE_CHECKING:
    from tvmmobile.choosing.answer import NetworkChoice, PricedCandidate
    from tvmmobile.networks.model import Model

#: Rows of the front around the best one.
_AROUND = 3


@with_cli_options(ChooseOptions)
def choose(
    device: Annotated[
        list[str] | None,
        typer.Option("--device", metavar="NAME", help="Board, such as pi4 (default), or several with commas; the slowest one counts."),
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
    """Choose the best network within a latency, or above an accuracy.

    Nothing runs on a device: a latency is the sum of what the records of a library's kernels say; accuracies are published or measured
    ones. The networks are the published variants, or those of --model with every --alpha and --resolution.
    """
    from tvmmobile.choosing.choose import FAMILIES
    from tvmmobile.choosing.choose import choose as run
    from tvmmobile.choosing.networks import networks_of
    from tvmmobile.choosing.report.entries import json_of
    from tvmmobile.choosing.report.files import FILES
    from tvmmobile.cli.progress import Shown
    from tvmmobile.networks.own.files import own_file, side_from
    from tvmmobile.system.console import output

    names, sides = model or FAMILIES, [side_from(text) for text in resolution or ()]
    for name in names:
        own_file(name)

    def networks() -> list[Model]:
        return [network for name in names for network in networks_of(name, alpha or (), sides)]

    found = run(networks, names_of(device), **chosen, listener=Shown())
    if as_json:
        typer.echo(json.dumps(json_of(found), indent=2, ensure_ascii=False))
    else:
        print_choice(found)
        if chosen["out"] is not None:
            output().print(f"Written to {chosen['out']}: {', '.join(FILES)}", soft_wrap=True)


def print_choice(choice: NetworkChoice) -> None:
    """Print the front around the best network, and what was left out."""
    from tvmmobile.choosing.report.sentences import ESTIMATED, left_out, origins, sources_of, verdict
    from tvmmobile.results.report.wording import latency_ms
    from tvmmobile.system.console import output, table_of

    console, sources = output(), sources_of(choice)
    shown = _around(choice)
    headings = [f"{profile.name}\nms" for profile in choice.profiles]
    table = table_of(("", "network", "dtype"), ("threads", *headings, "top-1\n% [n]"))
    for one in shown:
        candidate, accuracy = one.candidate, one.candidate.accuracy
        mark = "→" if one is choice.best else ""
        priced = [one.latencies[profile.name] for profile in choice.profiles]
        latencies = [ESTIMATED * (latency.estimated_us > 0) + latency_ms(latency.latency_us) for latency in priced]
        top1 = f"{accuracy.top1:.1f} [{sources.index(accuracy.source) + 1}]"
        table.add_row(mark, candidate.model.spec.variant, candidate.precision.name, str(candidate.threads), *latencies, top1)
    console.print(verdict(choice))
    if shown:
        console.print(table)
    for sentence in (*origins(choice), *left_out(choice)):
        console.print(sentence)


def _around(choice: NetworkChoice) -> list[PricedCandidate]:
    """Return the front, or the part of it around the best network where there is a budget."""
    front = list(choice.front)
    if choice.best is None:
        return front
    place = front.index(choice.best)
    return front[max(0, place - _AROUND) : place + _AROUND + 1]
