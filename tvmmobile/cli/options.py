"""Option types that verbs share, so that one word means one thing everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmmobile.cli.generated import word_of
from tvmmobile.pipeline.options.option import Place
from tvmmobile.pipeline.options.run import RunOptions
from tvmmobile.system.errors import UserError

if TYPE_CHECKING:
    from tvmmobile.networks.model import Model as Network

TARGETS = ("arm",)

#: What PyTorch's generator takes.
_MOST_SEED = 2**63 - 1

Model = Annotated[
    str,
    typer.Option(
        "--model", metavar="NAME", help="Network family, or your own file: path.py:factory (executed), file.pt2, file.onnx or file.tflite."
    ),
]
Alphas = Annotated[
    list[float] | None, typer.Option("--alpha", metavar="ALPHA", help="Width multiplier, such as 0.5; may be given more than once.")
]
Resolutions = Annotated[
    list[int] | None, typer.Option("--resolution", metavar="SIDE", help="Input side in pixels, such as 160; may be given more than once.")
]
Sizes = Annotated[
    list[str] | None,
    typer.Option(
        "--resolution",
        metavar="SIDE",
        help="Input side in pixels, such as 160; for your own network also HxW, such as 96x128. May be given more than once.",
    ),
]
Batch = Annotated[
    int | None,
    typer.Option("--batch", metavar="N", min=1, help="Images at a time, for your own file with a dynamic batch dimension; default: 1."),
]
Activation = Annotated[
    str | None, typer.Option("--activation", metavar="NAME", help="Activation of MobileNet v1: relu6 (default) or relu.")
]
Classes = Annotated[int, typer.Option("--classes", metavar="N", help="Number of classes.")]
Target = Annotated[str, typer.Option("--target", metavar="NAME", help="Target architecture: arm (AArch64 with NEON).")]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="Registered board, or else virtual board, such as pi4 or pi4-virtual.")
]
DeviceName = Annotated[str, typer.Argument(metavar="NAME", help="Device name, such as pi4.")]
Out = Annotated[Path, word_of(RunOptions, "out")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", metavar="FILE", help="State dict to load weights from; default: weights generated from --seed."),
    Place.WEIGHTS,
]
Seed = Annotated[
    int,
    typer.Option("--seed", metavar="N", min=0, max=_MOST_SEED, help="Seed for generated weights and for the search."),
    Place.WEIGHTS,
]
RequireHardware = Annotated[
    bool, typer.Option("--require-hardware", help="Exit with code 3 if the device is a virtual board."), Place.DEVICE
]
Dask = Annotated[str | None, word_of(RunOptions, "dask")]
Pin = Annotated[bool, typer.Option("--pin", help="Pin the board's clocks at their maximum during the run, where permitted."), Place.DEVICE]


def check_target(target: str) -> None:
    """Raises `UserError` for an architecture that is not known."""
    if target not in TARGETS:
        raise UserError(f"target {target!r} is not known.", f"Give --target one of: {', '.join(TARGETS)}.")


def asked_for(
    model: str,
    alphas: list[float] | None,
    resolutions: list[str] | None,
    activation: str | None,
    classes: int,
    checkpoint: Path | None,
    seed: int,
    batch: int | None = None,
) -> Callable[[], Sequence[Network]]:
    """A function that loads the networks named by the options, for when everything else has been checked; a file may be executed."""
    from tvmmobile.networks.model import variants
    from tvmmobile.networks.own.files import own_file, side_from

    own_file(model)
    return partial(
        variants,
        model,
        alphas or (),
        [side_from(text) for text in resolutions or ()],
        activation=activation,
        classes=classes,
        checkpoint=checkpoint,
        seed=seed,
        batch=batch,
    )
