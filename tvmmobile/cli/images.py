"""Shared by verbs that take images: one library that the device can run, and the preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmmobile.cli.generated import word_of
from tvmmobile.pipeline.options.compiled import EvaluateOptions
from tvmmobile.pipeline.options.option import HelpOrder

if TYPE_CHECKING:
    from tvmmobile.devices.protocol import DeviceProfile
    from tvmmobile.networks.preprocessing import Preprocessing
    from tvmmobile.running.library import Library

LibraryFile = Annotated[Path, typer.Argument(metavar="LIBRARY", help="Compiled library.")]
Mean = Annotated[
    str | None,
    typer.Option("--mean", metavar="R,G,B", help="Per-channel mean to subtract (pixels in [0, 1]); default: the library's, else 0.5."),
    HelpOrder.NUMBERS,
]
Std = Annotated[
    str | None,
    typer.Option("--std", metavar="R,G,B", help="Per-channel standard deviation to divide by; default: the library's, else 0.5."),
    HelpOrder.NUMBERS,
]
NoResize = Annotated[
    bool, typer.Option("--no-resize", help="Use the image as it is; it must have the network's input size."), HelpOrder.NUMBERS
]
Labels = Annotated[Path | None, word_of(EvaluateOptions, "labels")]


def the_library(path: Path, profile: DeviceProfile) -> Library:
    """Return the library, if the device can run it."""
    from tvmmobile.cli.progress import errors
    from tvmmobile.pipeline.run import check_cores
    from tvmmobile.pipeline.sentences import differences, unchecked_note
    from tvmmobile.running.library import find_libraries
    from tvmmobile.system.errors import UserError

    if path.is_dir():
        raise UserError(f"{path} is a directory.", "Name one library (.so) in it.")
    (library,) = find_libraries([path])
    check_cores(library, profile)
    name, manifest = library.path.name, library.facts
    for remark in filter(None, (differences(name, manifest, profile), unchecked_note(name, manifest))):
        errors().print(remark, soft_wrap=True)
    return library


def preprocessing_for(library: Library, mean: str | None, std: str | None, no_resize: bool) -> Preprocessing:
    """Return the preprocessing before the library gets an image; raise `UserError` for a --mean or --std that is neither one number nor
    three.

    If they are not given, a library that takes images has the values it was compiled with.
    """
    from tvmmobile.networks.preprocessing import Normalisation, Preprocessing
    from tvmmobile.pipeline.options.image import triple
    from tvmmobile.system.errors import UserError

    spec, own = library.spec, library.facts.normalisation or Normalisation()
    means, stds = own.mean if mean is None else triple("--mean", mean), own.std if std is None else triple("--std", std)
    if 0.0 in stds:
        raise UserError(f"--std {std} divides by zero.", "Give the channels' standard deviation, such as 0.5.")
    numbers = Normalisation(means, stds)
    return Preprocessing(spec.resolution, numbers.mean, numbers.std, not no_resize, spec.channels, spec.odd_shape)
