"""`tvmmobile models`: the costs of networks and their variants, beside published figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from tvmmobile.cli.options import Alphas, Json, Resolutions
from tvmmobile.networks.models.costs import ModelCost, count
from tvmmobile.networks.models.published import COMPARED, NOTES, figures, paper_type_shares
from tvmmobile.networks.models.registry import family, grid
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.models.traits import TRAITS
from tvmmobile.system.errors import UserError

if TYPE_CHECKING:
    from tvmmobile.cli.model_tables import Column

_DEFAULT = "list"
#: Network that --alpha and --resolution alone refer to.
_DEFAULT_FAMILY = "mobilenet_v1"


class _ListByDefault(TyperGroup):
    """A group whose first verb needs no name: `models mobilenet_v2` is `models list mobilenet_v2`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [_DEFAULT, *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


models = typer.Typer(cls=_ListByDefault, add_completion=False, rich_markup_mode=None)


@models.callback()
def _group() -> None:
    """Compare networks: multiply-adds, parameters, accuracy, latency.

    `tvmmobile models` compares all of them, `tvmmobile models NAME` shows the variants of one; both are short for `tvmmobile models list`.
    """


@models.command(_DEFAULT)
def list_models(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Network family whose variants to list; default: compare all families.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Same as NAME.")] = None,
    alpha: Alphas = None,
    resolution: Resolutions = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            "--results", metavar="PATH", help="report.json with latencies to show, or its directory; may be given more than once."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare all networks, or show the variants of one.

    Multiply-adds, parameters, published accuracy, and latencies from results.

    Without --alpha and --resolution: the variants that `tvmmobile tune` takes.
    """
    from tvmmobile.cli.model_tables import latencies_of, print_comparison, print_variants, with_others

    if name and model and name != model:
        raise UserError(f"{name} and --model {model} are two families.", "Give one of them.")
    chosen = name or model or (_DEFAULT_FAMILY if alpha or resolution else None)
    latencies = latencies_of(results or [])
    if chosen is None:
        specs = with_others(COMPARED, latencies)
    elif alpha or resolution:
        specs = list(grid(chosen, alpha or (), resolution or ()))
    else:
        specs = with_others([ModelSpec(chosen, *listed) for listed in TRAITS[family(chosen).name].listed], latencies)
    costs = [count(spec) for spec in specs]
    if as_json:
        _print_json([_as_json(cost) | _latencies_as_json(cost.spec, latencies) for cost in costs])
    elif chosen:
        print_variants(costs, latencies)
    else:
        print_comparison(costs, latencies)


@models.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Network family.")],
    alpha: Alphas = None,
    resolution: Resolutions = None,
    as_json: Json = False,
) -> None:
    """Show each layer of a network, and each layer type.

    Default: α 1.0 at the network's native input side.
    """
    from tvmmobile.cli.model_tables import print_layers

    side = TRAITS[family(name).name].native_side
    costs = [count(spec) for spec in grid(name, alpha or [1.0], resolution or [side])]
    if as_json:
        _print_json([_as_json(cost) | {"layers": _layers_as_json(cost)} for cost in costs])
    else:
        print_layers(costs)


@models.command("cost")
def cost(
    kernel: Annotated[int, typer.Option("--kernel", metavar="D_K", help="Kernel side.")],
    inputs: Annotated[int, typer.Option("--in", metavar="M", help="Input channels.")],
    outputs: Annotated[int, typer.Option("--out", metavar="N", help="Output channels.")],
    side: Annotated[int, typer.Option("--side", metavar="D_F", help="Output side.")],
    alpha: Annotated[float, typer.Option("--alpha", metavar="ALPHA", help="Width multiplier, applied to M and N.")] = 1.0,
    rho: Annotated[float, typer.Option("--rho", metavar="RHO", help="Resolution multiplier, applied to D_F.")] = 1.0,
    groups: Annotated[int, typer.Option("--groups", metavar="G", help="Groups of both the standard and the pointwise convolution.")] = 1,
    as_json: Json = False,
) -> None:
    """Compute what depthwise separable convolutions save.

    Formulas: section 3 of the MobileNets paper, arXiv 1704.04861.
    """
    from tvmmobile.cli.model_tables import print_ways
    from tvmmobile.networks.models.separable import reduction, scaled, ways

    shape = scaled(kernel, inputs, outputs, side, alpha, rho, groups)
    if as_json:
        _print_json(asdict(shape) | {"reduction": reduction(shape), "ways": [asdict(way) for way in ways(shape)]})
    else:
        print_ways(shape)


def _print_json(content: object) -> None:
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def _as_json(cost: ModelCost) -> dict[str, Any]:
    shares = paper_type_shares(*cost.spec.key)
    return {
        "model": cost.spec.name,
        "alpha": cost.spec.alpha,
        "resolution": cost.spec.resolution,
        "macs": cost.macs,
        "parameters": cost.parameters,
        "weights": cost.weights,
        "published": [asdict(found) for found in figures(*cost.spec.key)],
        "note": NOTES.get(cost.spec.name),
        "by_type": [
            asdict(item) | {"paper_percent": asdict(shares[item.label]) if item.label in shares else None} for item in cost.by_type()
        ],
    }


def _latencies_as_json(spec: ModelSpec, columns: Sequence[Column]) -> dict[str, Any]:
    return {"latencies": [one for column in columns for one in column.as_json(spec)]} if columns else {}


def _layers_as_json(cost: ModelCost) -> list[dict[str, Any]]:
    return [
        {"name": item.layer.name, "type": item.layer.type_label, "kernel": item.layer.kernel, "stride": item.layer.stride}
        | {"groups": item.layer.groups, "in_channels": item.layer.in_channels, "out_channels": item.layer.out_channels}
        | {"in_side": item.layer.in_side, "out_side": item.layer.out_side}
        | {"macs": item.macs, "weights": item.weights, "parameters": item.parameters}
        for item in cost.layers
    ]
