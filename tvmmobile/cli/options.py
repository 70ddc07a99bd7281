"""Option types that verbs share, so that one word means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option(
        "--model", metavar="NAME", help="Network family, or a file of yours: path.py:factory (which is executed), file.pt2 or file.onnx."
    ),
]
Alphas = Annotated[
    list[float] | None, typer.Option("--alpha", metavar="ALPHA", help="Width multiplier, such as 0.5; may be given more than once.")
]
Resolutions = Annotated[
    list[int] | None, typer.Option("--resolution", metavar="SIDE", help="Input side in pixels, such as 160; may be given more than once.")
]
Activation = Annotated[
    str | None, typer.Option("--activation", metavar="NAME", help="relu6 or relu for MobileNet v1; other families have their own.")
]
Classes = Annotated[int, typer.Option("--classes", metavar="N", help="Outputs of the classifier.")]
Target = Annotated[str, typer.Option("--target", metavar="NAME", help="Architecture: arm is AArch64 with NEON.")]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="A registered board, else the virtual one of that name, such as pi4 or pi4-virtual.")
]
Threads = Annotated[int, typer.Option("--threads", "--num-threads", metavar="N", min=1, help="Threads of the compiled library.")]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", file_okay=False, help="Folder for the results.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
