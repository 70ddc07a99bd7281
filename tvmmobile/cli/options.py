"""Option types that verbs share, so that one word means one thing everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
Threads = Annotated[int, typer.Option("--threads", "--num-threads", metavar="N", min=1, help="Number of threads the library runs on.")]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="NAME",
        help="What kernels compute in: float32, int8 (with --calibrate, or for a quantised network), or float16 on cores that have it "
        "(A55, A76, …).",
    ),
]
IoDtype = Annotated[
    str,
    typer.Option("--io-dtype", metavar="NAME", help="Type of the library's input and output: float32, or float16 with --dtype float16."),
]
MaxError = Annotated[
    float | None,
    typer.Option(
        "--max-error",
        metavar="SHARE",
        help="Keep layers in float32 until the output's estimated error is at most this share of its largest magnitude, such as 0.01.",
    ),
]
Calibrate = Annotated[
    str | None,
    typer.Option(
        "--calibrate",
        metavar="PATH",
        help="Data that give int8 its scales: a folder of images, a .npy or .npz of inputs, or noise:N for generated weights.",
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option("--keep", metavar="LAYER", help="Keep a layer in float32 beside int8: its number, or its name, where * matches anything."),
]
MaxDrop = Annotated[
    str | None,
    typer.Option(
        "--max-drop",
        metavar="LIMIT",
        help="Keep layers in float32 beside int8 until the output's noise is as far below its signal as 30dB, "
        "or top-1 loses at most 1% (without labels: at most 1% get another class).",
    ),
]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", file_okay=False, help="Output directory.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", metavar="FILE", help="State dict to load weights from; default: weights generated from --seed."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, max=_MOST_SEED, help="Seed for generated weights and for the search.")]
Logs = Annotated[
    Path | None,
    typer.Option(
        "--logs",
        metavar="DIR",
        file_okay=False,
        help="Read and write tuning logs only in DIR; default: read the shipped logs and your own.",
    ),
]
DumpIr = Annotated[
    Path | None, typer.Option("--dump-ir", metavar="DIR", file_okay=False, help="Write the Relax module after each graph pass to DIR.")
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="NAME",
        help="c (default): libraries with C headers that need nothing else; vm: libraries for TVM's virtual machine.",
    ),
]
Archive = Annotated[bool, typer.Option("--archive", help="Also write static libraries (.a); C libraries only.")]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Do not run the libraries once under QEMU and compare their outputs.")]
Image = Annotated[bool, typer.Option("--image", help="Let C libraries take RGB images and camera frames, and rank classes.")]
ImageMean = Annotated[str | None, typer.Option("--mean", metavar="R,G,B", help="With --image: per-channel mean to subtract; default: 0.5.")]
ImageStd = Annotated[
    str | None, typer.Option("--std", metavar="R,G,B", help="With --image: per-channel standard deviation to divide by; default: 0.5.")
]
RequireHardware = Annotated[bool, typer.Option("--require-hardware", help="Exit with code 3 if the device is a virtual board.")]

Dask = Annotated[
    str | None,
    typer.Option(
        "--dask",
        metavar="ADDRESS",
        help="Run jobs on the Dask cluster with this scheduler, tls://HOST:PORT; jobs for a registered board still run here.",
    ),
]
Pin = Annotated[bool, typer.Option("--pin", help="Pin the board's clocks at their maximum during the run, where permitted.")]


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
