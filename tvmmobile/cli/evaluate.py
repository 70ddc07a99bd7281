"""`tvmmobile evaluate`: top-1 and top-5 of a compiled library over labelled images, beside the network it was compiled from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmmobile.cli.images import Labels, LibraryFile, Mean, NoResize, Std, preprocessing_for, the_library
from tvmmobile.cli.options import Device, Out, RequireHardware

if TYPE_CHECKING:
    from tvmmobile.accuracy.evaluate import Evaluation
    from tvmmobile.accuracy.evaluation_file import Accuracy


def evaluate(
    library: LibraryFile,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of labelled images: FOLDER/CLASS/IMAGE.")],
    device: Device = "pi4",
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Evaluate at most N images, evenly spaced over the sorted list; default: all."),
    ] = None,
    out: Out = Path("out"),
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="FILE", help="Network file the library was compiled from; required if it came from a file."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="FILE", help="State dict the library was compiled with; required if there was one."),
    ] = None,
    labels: Labels = None,
    mean: Mean = None,
    std: Std = None,
    no_resize: NoResize = False,
    require_hardware: RequireHardware = False,
) -> None:
    """Measure a library's top-1 and top-5 over labelled images, beside PyTorch's.

    PyTorch runs on this machine with the same weights; for an ONNX file, ONNX's reference evaluator runs instead. Class folders are synsets
    in order, numbers, or names from --labels; the output says which.
    """
    from tvmmobile.accuracy.evaluate import evaluate as run
    from tvmmobile.cli.progress import Shown
    from tvmmobile.devices.registry import find_device

    board = find_device(device, require_hardware)
    found = the_library(library, board.profile)
    preprocessing = preprocessing_for(found, mean, std, no_resize)
    options: Any = {"limit": limit, "out": out, "model": model, "checkpoint": checkpoint, "labels": labels}
    evaluation = run(found, folder, board, **options, preprocessing=preprocessing, listener=Shown())
    _print(evaluation)
    evaluation.check()


def _print(done: Evaluation) -> None:
    from tvmmobile.results.report.wording import clean, plural, scientific
    from tvmmobile.system.console import output, table_of

    evaluation, others, paths = done.file, done.others, done.paths
    context = evaluation.context
    console = output()

    def say(line: str) -> None:
        console.print(clean(line), soft_wrap=True)

    say(f"{context.library} on {context.device}: {context.board}, {plural(context.threads, 'thread')}")
    spaced = f", {context.images_chosen} of them evenly spaced over the sorted list" if context.images_chosen < context.images_found else ""
    left = f"; {plural(others, 'other file')} left alone" if others else ""
    say(f"{context.folder}: {plural(context.images_found, 'image')} in {plural(context.class_folders, 'class folder')}{spaced}{left}")
    say(f"labels: {context.labels}")
    say(f"preprocessing: {context.preprocessing}")
    say(f"weights: {context.weights}")
    table = table_of(("",), ("top-1\n%", "\nimages", "top-5\n%", "\nimages"))
    table.add_row("library", *_cells(evaluation.library))
    table.add_row(done.judge, *_cells(evaluation.original))
    console.print(table)
    count = plural(evaluation.evaluated, "image")
    say(f"the same top-1 on {evaluation.same_top1} of {count}, the same top-5 set on {evaluation.same_top5}")
    if evaluation.largest_deviation is not None:
        worst = scientific(evaluation.largest_deviation)
        say(f"outputs differ by at most {worst} of {done.judge}'s largest magnitude ({evaluation.largest_deviation_image})")
    say(f"Written to {paths[0].parent}: {', '.join(path.name for path in paths)}")


def _cells(accuracy: Accuracy) -> tuple[str, str, str, str]:
    from tvmmobile.results.report.wording import UNKNOWN

    def shown(percent: float | None) -> str:
        return UNKNOWN if percent is None else f"{percent:.2f}"

    return shown(accuracy.top1_percent), str(accuracy.top1), shown(accuracy.top5_percent), str(accuracy.top5)
