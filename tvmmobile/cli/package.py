"""`tvmmobile package`: a compiled library as a package of another ecosystem."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tvmmobile.cli.options import Out
from tvmmobile.system.errors import UserError


def package(
    library: Annotated[Path, typer.Argument(metavar="LIBRARY", help="A compiled C library.")],
    wheel: Annotated[bool, typer.Option("--wheel", help="A Python wheel for AArch64 Linux, such as Raspberry Pi OS.")] = False,
    android: Annotated[bool, typer.Option("--android", help="An Android archive (AAR). Needs a JDK.")] = False,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the Python module or Java package; default: that of the network.")
    ] = None,
    release: Annotated[str, typer.Option("--release", metavar="VERSION", help="Version of the package.")] = "1.0",
    out: Out = Path("out"),
) -> None:
    """Make a Python wheel or an Android archive of a library.

    A wheel holds the library, its reference output and a module with `run`, which takes and returns NumPy arrays. It needs NumPy alone.

    An Android archive holds the library and a Java class with `run`, for buffers, bitmaps and camera frames. --out may name its file.
    """
    from tvmmobile.packaging.aar import SUFFIX, write_aar
    from tvmmobile.packaging.wheel import write_wheel
    from tvmmobile.running.library import find_libraries
    from tvmmobile.system.console import output
    from tvmmobile.system.files import check_writable

    if wheel == android:
        raise UserError("package needs to know what to make.", "Give --wheel or --android.")
    found = find_libraries([library])
    if len(found) > 1:
        raise UserError(f"{library} holds {len(found)} libraries.", "Name one of them.")
    check_writable(out.parent if android and out.suffix == SUFFIX else out, "--out")
    path = (write_aar if android else write_wheel)(found[0], out, name, release)
    console = output()
    console.print(f"Written to {path}", soft_wrap=True)
    if android:
        hint = f'In the app: copy it to app/libs, and add implementation(files("libs/{path.name}")) to its dependencies.'
    else:
        hint = f"On the board: pip install {path.name}, then python -m {path.name.partition('-')[0]} compares it with its reference."
    console.print(hint, soft_wrap=True, markup=False, highlight=False)
