"""Option types that verbs share, so that one word means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option("--model", metavar="NAME", help="Network family, or your own file: path.py:factory (executed), file.pt2 or file.onnx."),
]
Alphas = Annotated[
    list[float] | None, typer.Option("--alpha", metavar="ALPHA", help="Width multiplier, such as 0.5; may be given more than once.")
]
Resolutions = Annotated[
    list[int] | None, typer.Option("--resolution", metavar="SIDE", help="Input side in pixels, such as 160; may be given more than once.")
]
Activation = Annotated[
    str | None, typer.Option("--activation", metavar="NAME", help="Activation of MobileNet v1: relu6 (default) or relu.")
]
Classes = Annotated[int, typer.Option("--classes", metavar="N", help="Number of classes.")]
Target = Annotated[str, typer.Option("--target", metavar="NAME", help="Target architecture: arm (AArch64 with NEON).")]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="Registered board, or else virtual board, such as pi4 or pi4-virtual.")
]
Threads = Annotated[int, typer.Option("--threads", "--num-threads", metavar="N", min=1, help="Number of threads the library runs on.")]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", file_okay=False, help="Output directory.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
