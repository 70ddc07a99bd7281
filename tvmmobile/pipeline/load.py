"""Loads networks: variants of a built-in family, or the user's own from a file or as a PyTorch object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from tvmmobile.networks.model import Model
from tvmmobile.networks.models.registry import family, grid
from tvmmobile.networks.models.traits import TRAITS
from tvmmobile.networks.own.files import Side, own_file, side_given
from tvmmobile.pipeline.options.call import with_options
from tvmmobile.pipeline.options.network import NetworkArguments, NetworkOptions
from tvmmobile.system.arguments import one_or_several
from tvmmobile.system.errors import UserError, shown

if TYPE_CHECKING:
    import torch


@with_options(NetworkOptions)
def load(
    network: str | Path | torch.nn.Module | torch.export.ExportedProgram,
    example: torch.Tensor | tuple[torch.Tensor, ...] | None = None,
    *,
    alpha: float = 1.0,
    resolution: Side | str | None = None,
    name: str = "",
    **options: Unpack[NetworkArguments],
) -> Model:
    """Load one network.

    Args:
        network: a family such as `mobilenet_v1`; a file: `net.pt2`, `net.onnx`, `net.tflite` or `net.py:factory` (which is executed); a
            `torch.nn.Module`, which is exported in eval mode and left as it is; or an exported program.
        example: the input that a module is exported with, such as float32 `[1, channels, side, side]`, or a tuple of its inputs.
        alpha: width multiplier of a family.
        resolution: input side in pixels, or height and width, as numbers or as `160` or `96x128`; without it, the family's own or what the
            file says.
        name: name for a module or a program; without it, the name of its class or `network`.
        options: see `NetworkOptions`, which `help` lists.

    Returns:
        What `compile` and `tune` take. The weights of a built-in family, and so its `checkpoint`, are first read there.

    Raises:
        UserError: there is no such variant, or the network cannot be read or compiled.
    """
    if not isinstance(network, str | Path):
        from tvmmobile.networks.own.objects import write_object

        network = str(write_object(network, example, name))
    elif example is not None or name:
        raise UserError(f"example and name are for PyTorch objects, not for {network}.", "Leave them out.")
    elif resolution is None and own_file(str(network)) is None:
        resolution = TRAITS[family(str(network)).name].native_side
    sides = [] if resolution is None else [side_given(resolution)]
    (found,) = variants_of(str(network), [_alpha(alpha)], sides, NetworkOptions.of(options))
    return found


@with_options(NetworkOptions)
def variants(
    network: str | Path,
    alphas: float | Sequence[float] = (),
    resolutions: int | Sequence[Side] = (),
    **options: Unpack[NetworkArguments],
) -> list[Model]:
    """Load several variants of one network: every α with every input side.

    Args:
        network: a family such as `mobilenet_v1`, or a file as `load` takes it.
        alphas: one width multiplier or several; without any, the published ones.
        resolutions: one input side in pixels or several; without any, the published ones. Without both, the published pairs, which may be
            fewer.
        options: see `NetworkOptions`, which `help` lists.

    Returns:
        The networks: the first α with every input side, then the next α.

    Raises:
        UserError: there is no such variant, or the network cannot be read or compiled. A network from a file is imported here, so that its
            problems are reported before any work.
    """
    if not isinstance(network, str | Path):
        raise UserError(f"{type(network).__name__} is not a name or a file.", "Give --model mobilenet_v1, for example.")
    widths, sides = [_alpha(each) for each in one_or_several(alphas)], [side_given(each) for each in one_or_several(resolutions)]
    return variants_of(str(network), widths, sides, NetworkOptions.of(options))


def _alpha(given: float) -> float:
    """Return a width multiplier; raise `UserError` for what is no number."""
    try:
        return float(given)
    except (TypeError, ValueError) as error:
        raise UserError(f"--alpha takes a number, not {shown(given)}.", "Give a width multiplier, such as 0.5.") from error


def variants_of(network: str, alphas: Sequence[float], resolutions: Sequence[Side], options: NetworkOptions) -> list[Model]:
    """Load variants; see `variants`."""
    file, weights, seed = own_file(network), options.checkpoint, options.seed
    if file is None:
        for flag, given in (("--batch", options.batch is not None), ("--shape", options.shapes), ("--value", options.values)):
            if given:
                raise UserError(f"{flag} is for networks from files; {network} takes one image at a time.", f"Leave out {flag}.")
        squares = [side for side in resolutions if isinstance(side, int)]
        if len(squares) < len(resolutions):
            raise UserError(f"{network} takes square images.", "Give --resolution one number, such as 224.")
        return [Model(spec, weights, seed) for spec in grid(network, alphas, squares, options.activation, options.classes)]
    from tvmmobile.networks.own.loading import own_specs

    file = replace(file, shapes=options.shapes, values=options.values)
    own_classes = options.classes != NetworkOptions.classes
    changed = {"--alpha": bool(set(alphas) - {1.0}), "--activation": options.activation is not None, "--classes": own_classes}
    for flag, given in changed.items():
        if given:
            raise UserError(f"{flag} is for built-in networks and cannot change {file}.", f"Leave out {flag}, or change the file.")
    specs = own_specs(file, resolutions, weights, seed, options.batch)
    return [Model(spec, weights, seed, file, quantised) for spec, quantised in specs]
