"""`tvmmobile models`: what each variant costs, beside what was published."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmmobile.cli.options import Alphas, Json, Model, Resolutions
from tvmmobile.models.costs import ModelCost, count
from tvmmobile.models.published import PAPER, SLIM, Published, paper_figures, paper_type_shares, slim_figures
from tvmmobile.models.registry import grid
from tvmmobile.models.spec import ModelSpec

if TYPE_CHECKING:
    from rich.table import Table

_LEGEND = f"""Counted: multiply-adds (MACs) of one image; parameters with batch norm and bias.
paper: {PAPER}. –: not published.
slim: retrained networks, {SLIM};
its multiply-adds differ from a count in places."""


def models(
    model: Model = "mobilenet_v1",
    alpha: Alphas = None,
    resolution: Resolutions = None,
    layers: Annotated[bool, typer.Option("--layers", help="Show each layer and layer type; of 1.0-224 unless told otherwise.")] = False,
    as_json: Json = False,
) -> None:
    """Show the variants of a network: multiply-adds, parameters and published accuracy.

    Without --alpha and --resolution: the paper's 16 variants.
    """
    if layers:
        alpha, resolution = alpha or [1.0], resolution or [224]
    costs = [count(spec) for spec in grid(model, alpha or (), resolution or ())]
    if as_json:
        typer.echo(json.dumps([_as_json(cost, layers) for cost in costs], indent=2, ensure_ascii=False))
    elif layers:
        _print_layers(costs)
    else:
        _print_variants(costs)


def _figures(spec: ModelSpec) -> tuple[Published | None, Published | None]:
    key = (spec.name, spec.alpha, spec.resolution)
    return paper_figures(*key), slim_figures(*key)


def _print_variants(costs: list[ModelCost]) -> None:
    from tvmmobile.console import output, table_of

    published = ("paper", "slim")
    table = table_of((), ("α", "side", "MACs, M\ncounted", *published, "params, M\ncounted", *published, "top-1, %\npaper", "slim"))
    for number, cost in enumerate(costs):
        paper, slim = _figures(cost.spec)
        last_of_alpha = number + 1 == len(costs) or costs[number + 1].spec.alpha != cost.spec.alpha
        table.add_row(
            str(cost.spec.alpha),
            str(cost.spec.resolution),
            f"{cost.macs / 1e6:.1f}",
            *(str(found.macs_m) if found else "–" for found in (paper, slim)),
            f"{cost.parameters / 1e6:.2f}",
            *(str(found.params_m) if found else "–" for found in (paper, slim)),
            *(f"{found.top1:.1f}" if found else "–" for found in (paper, slim)),
            end_section=last_of_alpha,
        )
    console = output()
    console.print(costs[0].spec.name)
    console.print(table)
    console.print(_LEGEND)


def _print_layers(costs: list[ModelCost]) -> None:
    from tvmmobile.console import output

    console = output()
    for cost in costs:
        spec = cost.spec
        console.print(
            f"{spec.name} {spec.alpha}-{spec.resolution}: {cost.macs / 1e6:.1f} M multiply-adds, {cost.parameters / 1e6:.2f} M parameters"
        )
        console.print(_layer_table(cost))
        console.print(_type_table(cost))
        if paper_type_shares(spec.name, spec.alpha, spec.resolution):
            console.print(
                f"paper: {PAPER}, table 2. It prints 1.19 for the 3×3 convolution;\nits column then sums to 99.29, and a count gives 1.91."
            )
    console.print("Shares of parameters count weights alone, without batch norm and bias.")


def _layer_table(cost: ModelCost) -> Table:
    from tvmmobile.console import table_of

    table = table_of(("layer", "type/stride"), ("input", "output", "MACs, M", "weights, k"))
    for item in cost.layers:
        layer = item.layer
        table.add_row(
            layer.name,
            f"{layer.type_label}/{layer.stride}" if layer.stride > 1 else layer.type_label,
            f"{layer.in_side}²×{layer.in_channels}",
            f"{layer.out_side}²×{layer.out_channels}",
            f"{item.macs / 1e6:.3f}",
            f"{item.weights / 1e3:.1f}",
        )
    return table


def _type_table(cost: ModelCost) -> Table:
    from tvmmobile.console import table_of

    shares = paper_type_shares(cost.spec.name, cost.spec.alpha, cost.spec.resolution)
    paper = ("paper",) if shares else ()
    table = table_of(("layer type",), ("layers", "MACs, M", "share, %", *paper, "weights, k", "share, %", *paper))
    for item in cost.by_type():
        share = shares.get(item.label)
        cells = [item.label, str(item.layers), f"{item.macs / 1e6:.3f}", f"{item.macs_percent:.2f}"]
        cells += [f"{share.macs:.2f}"] if share else []
        cells += [f"{item.weights / 1e3:.1f}", f"{item.weights_percent:.2f}"]
        cells += [f"{share.params:.2f}"] if share else []
        table.add_row(*cells)
    return table


def _as_json(cost: ModelCost, layers: bool) -> dict[str, Any]:
    paper, slim = _figures(cost.spec)
    shares = paper_type_shares(cost.spec.name, cost.spec.alpha, cost.spec.resolution)
    entry: dict[str, Any] = {
        "model": cost.spec.name,
        "alpha": cost.spec.alpha,
        "resolution": cost.spec.resolution,
        "macs": cost.macs,
        "parameters": cost.parameters,
        "weights": cost.weights,
        "published": [asdict(found) for found in (paper, slim) if found],
        "by_type": [
            asdict(item) | {"paper_percent": asdict(shares[item.label]) if item.label in shares else None} for item in cost.by_type()
        ],
    }
    if layers:
        entry["layers"] = [
            {"name": item.layer.name, "type": item.layer.type_label, "kernel": item.layer.kernel, "stride": item.layer.stride}
            | {"in_channels": item.layer.in_channels, "out_channels": item.layer.out_channels}
            | {"in_side": item.layer.in_side, "out_side": item.layer.out_side}
            | {"macs": item.macs, "weights": item.weights, "parameters": item.parameters}
            for item in cost.layers
        ]
    return entry
