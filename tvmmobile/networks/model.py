"""A network with its weights: a variant of a built-in family, or the user's own from a file or as a PyTorch object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvmmobile.networks.models.costs import ModelCost, count
from tvmmobile.networks.models.published import IMAGENET_CLASSES
from tvmmobile.networks.models.registry import family, grid
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.models.traits import TRAITS
from tvmmobile.networks.own.files import OwnFile, Side, own_file, side_from
from tvmmobile.system.errors import UserError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Model:
    """The result of `load`: what identifies a network, in a form that can be sent to a worker process.

    Attributes:
        spec: the variant.
        checkpoint: state dict with the weights; `None` for generated ones.
        seed: of generated weights, and of what a Python file draws.
        own: the file of a network of the user's own.
        quantised: whether that file has scales for integers.
    """

    spec: ModelSpec
    checkpoint: Path | None = None
    seed: int = 0
    own: OwnFile | None = None
    quantised: bool = False

    def __str__(self) -> str:
        return self.spec.variant

    @property
    def cost(self) -> ModelCost:
        """Multiply-adds and parameters, by layer and layer type.

        Raises:
            UserError: it is a network of the user's own; its library's results have both.
        """
        if self.own is not None:
            raise UserError(
                f"{self} is from a file; costs are counted for built-in networks.", "Compile it: bench() returns macs and parameters."
            )
        return count(self.spec)


def load(
    network: str | Path | torch.nn.Module | torch.export.ExportedProgram,
    example: torch.Tensor | tuple[torch.Tensor, ...] | None = None,
    *,
    alpha: float = 1.0,
    resolution: Side | str | None = None,
    activation: str | None = None,
    classes: int = IMAGENET_CLASSES,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    name: str = "",
    batch: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, float] | None = None,
) -> Model:
    """One network.

    Args:
        network: a family such as `mobilenet_v1`; a file: `net.pt2`, `net.onnx`, `net.tflite` or `net.py:factory` (which is executed); a
            `torch.nn.Module`, which is exported in eval mode and left as it is; or an exported program.
        example: what a module is exported with, such as float32 `[1, channels, side, side]`, or a tuple of its inputs.
        alpha: width multiplier of a family.
        resolution: input side in pixels, or height and width, as numbers or as `160` or `96x128`; without it, the family's own or what the
            file says.
        activation: of a family that has several.
        classes: outputs of a family's classifier.
        checkpoint: state dict for a family or a Python file; without it weights are generated from `seed`.
        seed: of generated weights.
        name: what to call a module or a program; without it, the name of its class or `network`.
        batch: images at a time, for a file with a dynamic batch dimension; 1 by default.
        shapes: shapes of inputs by name, for a file with other dynamic dimensions, such as `{"audio": (1, 16000)}`.
        values: numbers by name for inputs of an ONNX file that always have one value, such as `{"sr": 16000}`.

    Raises:
        UserError: there is no such variant, or the network cannot be read or compiled.
    """
    if isinstance(resolution, str):
        resolution = side_from(resolution)
    if not isinstance(network, str | Path):
        from tvmmobile.networks.own.objects import write_object

        network = str(write_object(network, example, name))
    elif example is not None or name:
        raise UserError(f"example and name are for PyTorch objects, not for {network}.", "Leave them out.")
    elif resolution is None and own_file(str(network)) is None:
        resolution = TRAITS[family(str(network)).name].native_side
    of_files = {"batch": batch, "shapes": shapes, "values": values}
    options: dict[str, Any] = {"activation": activation, "classes": classes, "checkpoint": checkpoint, "seed": seed, **of_files}
    (found,) = variants(str(network), [alpha], [] if resolution is None else [resolution], **options)
    return found


def variants(
    network: str,
    alphas: Sequence[float] = (),
    resolutions: Sequence[Side] = (),
    *,
    activation: str | None = None,
    classes: int = IMAGENET_CLASSES,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    batch: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, float] | None = None,
) -> list[Model]:
    """Several variants of one network: every α with every input side; see `load`.

    Args:
        alphas, resolutions: both empty for the published variants; see `Traits.variants`.

    Raises:
        UserError: see `load`. A network from a file is imported here, so that its problems are reported before any work.
    """
    file, weights = own_file(network), None if checkpoint is None else Path(checkpoint)
    if file is None:
        for flag, given in (("--batch", batch is not None), ("--shape", shapes), ("--value", values)):
            if given:
                raise UserError(f"{flag} is for networks from files; {network} takes one image at a time.", f"Leave out {flag}.")
        squares = [side for side in resolutions if isinstance(side, int)]
        if len(squares) < len(resolutions):
            raise UserError(f"{network} takes square images.", "Give --resolution one number, such as 224.")
        return [Model(spec, weights, seed) for spec in grid(network, alphas, squares, activation, classes)]
    from tvmmobile.networks.own.loading import own_specs

    extents = tuple((name, tuple(shape)) for name, shape in (shapes or {}).items())
    file = replace(file, shapes=extents, values=tuple((values or {}).items()))
    changed = {"--alpha": bool(set(alphas) - {1.0}), "--activation": activation is not None, "--classes": classes != IMAGENET_CLASSES}
    for option, given in changed.items():
        if given:
            raise UserError(f"{option} is for built-in networks and cannot change {file}.", f"Leave out {option}, or change the file.")
    return [Model(spec, weights, seed, file, quantised) for spec, quantised in own_specs(file, resolutions, weights, seed, batch)]
