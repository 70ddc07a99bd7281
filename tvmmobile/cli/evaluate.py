"""`tvmmobile evaluate`: top-1 and top-5 of compiled libraries over labelled images, beside the network they were compiled from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmmobile.cli.generated import with_cli_options
from tvmmobile.cli.images import Mean, NoResize, Std, preprocessing_for, the_library
from tvmmobile.cli.options import Device, RequireHardware
from tvmmobile.pipeline.options.compiled import EvaluateOptions

if TYPE_CHECKING:
    from rich.table import Table

    from tvmmobile.accuracy.evaluate import Evaluation
    from tvmmobile.accuracy.evaluation_file import Accuracy, EvaluationFile
    from tvmmobile.accuracy.significance import Top1Loss
    from tvmmobile.accuracy.storage import StoredLayer
    from tvmmobile.running.library import Library

#: Number of layers shown.
_LAYERS = 5


@with_cli_options(EvaluateOptions)
def evaluate(
    libraries: Annotated[list[Path], typer.Argument(metavar="LIBRARY", help="Compiled library; several of one network are compared.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of labelled images: FOLDER/CLASS/IMAGE; or noise:N.")],
    device: Device = "pi4",
    mean: Mean = None,
    std: Std = None,
    no_resize: NoResize = False,
    require_hardware: RequireHardware = False,
    **chosen: Any,
) -> None:
    """Measure top-1 and top-5 over labelled images, beside PyTorch's.

    PyTorch runs on this machine with the same weights; for an ONNX or LiteRT file, ONNX Runtime or LiteRT. Class folders are synsets in
    order, numbers, or names from --labels; the output says which. Libraries of one network in several precisions are shown side by side.
    noise:N in place of FOLDER takes N inputs of noise: how far the outputs agree, without labels.
    """
    from tvmmobile.accuracy.evaluate import check_one_network
    from tvmmobile.accuracy.evaluate import evaluate as run
    from tvmmobile.cli.progress import Shown
    from tvmmobile.devices.registry import find_device

    board = find_device(device, require_hardware)
    found = [the_library(library, board.profile) for library in libraries]
    check_one_network(found)
    chosen["preprocessing"] = preprocessing_for(found[0], mean, std, no_resize)
    names = library_names(found)
    folders = [chosen["out"] / name for name in names] if len(found) > 1 else [chosen["out"]]
    done = [run(library, folder, board, **chosen | {"out": out}, listener=Shown()) for library, out in zip(found, folders, strict=True)]
    print_evaluations(dict(zip(names, done, strict=True)))
    for evaluation in done:
        evaluation.check()


def library_names(libraries: Sequence[Library]) -> list[str]:
    """Return a name for each library: its precision, as far as that tells them apart."""
    names = [library.precision for library in libraries]
    if len(set(names)) < len(names):
        names = [f"{library.precision}-{'c' if library.is_c else 'vm'}" for library in libraries]
    return [f"{name}-{number}" if names.count(name) > 1 else name for number, name in enumerate(names, 1)]


def print_evaluations(done: Mapping[str, Evaluation]) -> None:
    """Print the accuracies and differences of evaluations, by library."""
    from tvmmobile.accuracy.noise import is_noise
    from tvmmobile.results.report.wording import clean, plural, scientific
    from tvmmobile.system.console import output

    first = next(iter(done.values()))
    context, judge, others = first.file.context, first.judge, first.others
    console = output()

    def say(line: str) -> None:
        console.print(clean(line), soft_wrap=True)

    for evaluation in done.values():
        what = evaluation.file.context
        say(f"{what.library} on {what.device}: {what.board}, {plural(what.threads, 'thread')}")
    spaced = f", {context.images_chosen} of them evenly spaced over the sorted list" if context.images_chosen < context.images_found else ""
    left = f"; {plural(others, 'other file')} left alone" if others else ""
    say(f"{context.folder}: {plural(context.images_found, 'image')} in {plural(context.class_folders, 'class folder')}{spaced}{left}")
    say(f"labels: {context.labels}")
    say(f"preprocessing: {context.preprocessing}")
    say(f"weights: {context.weights}")
    if not is_noise(context.folder):
        console.print(_accuracies(done))
    console.print(_differences(done))
    for name, evaluation in done.items():
        file, who = evaluation.file, f"{name}: " if len(done) > 1 else ""
        count = plural(file.evaluated, "image")
        say(f"{who}the same top-1 on {file.same_top1} of {count}, the same top-5 set on {file.same_top5}")
        if file.largest_deviation is not None:
            worst = scientific(file.largest_deviation)
            say(f"{who}outputs differ by at most {worst} of {judge}'s largest magnitude ({file.largest_deviation_image})")
        if file.stored:
            say(f"The lowest of {plural(len(file.stored), 'layer')} when weights and activations are stored in {file.context.dtype}:")
            say(f"a model in PyTorch on this machine, {plural(file.stored_images, 'image')}, without the kernels' arithmetic")
            console.print(_stored(file))
    for suspicion in first.suspicions:
        say(suspicion)
    for evaluation in done.values():
        paths = evaluation.paths
        say(f"Written to {paths[0].parent}: {', '.join(path.name for path in paths)}")


def _accuracies(done: Mapping[str, Evaluation]) -> Table:
    """Return top-1 and top-5 of each library, and of the original."""
    from tvmmobile.system.console import table_of

    table = table_of(("",), ("top-1\n%", "\nimages", "top-5\n%", "\nimages", "top-1 lost\npoints", "\np"))
    for name, evaluation in done.items():
        table.add_row(name if len(done) > 1 else "library", *_cells(evaluation.file.library), *_loss(evaluation.file.top1_loss))
    first = next(iter(done.values()))
    table.add_row(first.judge, *_cells(first.file.original), "", "")
    return table


def _loss(loss: Top1Loss | None) -> tuple[str, str]:
    """Return points of top-1 with their 95 % interval, and the probability of such a loss by chance."""
    from tvmmobile.results.report.wording import UNKNOWN

    return (f"{loss.points:.2f} ± {loss.margin:.2f}", f"{loss.p_value:.2g}") if loss else (UNKNOWN, UNKNOWN)


def _differences(done: Mapping[str, Evaluation]) -> Table:
    """Return how far each library's outputs are from the original's."""
    from tvmmobile.results.report.wording import UNKNOWN, scientific
    from tvmmobile.system.console import table_of

    headings = "largest\nerror", "mean\nerror", "signal/\nnoise dB", "same\ntop-1 %", "\ninfinite", "\nNaN", "\nsubnormal"
    table = table_of(("",), headings)
    for name, evaluation in done.items():
        file = evaluation.file
        found = file.differences
        errors = [UNKNOWN if error is None else scientific(error) for error in (file.largest_deviation, found.mean)]
        same = f"{100 * file.same_top1 / file.evaluated:.2f}" if file.evaluated else UNKNOWN
        table.add_row(name, *errors, _decibels(found.signal_to_noise_db), same, *map(str, (found.infinities, found.nans, found.subnormals)))
    return table


def _stored(file: EvaluationFile) -> Table:
    """Return the layers that lose most by their precision alone."""
    from tvmmobile.system.console import table_of

    table = table_of(("layer",), ("signal/\nnoise dB", "largest\nvalue", f"beyond\n{file.context.dtype}", "\nsubnormal"))

    def loss(layer: StoredLayer) -> tuple[bool, float]:
        ratio = layer.signal_to_noise_db
        return not (layer.beyond or layer.not_finite), math.inf if ratio is None else ratio

    for layer in sorted(file.stored, key=loss)[:_LAYERS]:
        numbers = f"{layer.largest:.5g}", str(layer.beyond), str(layer.subnormals)
        table.add_row(layer.layer, _decibels(layer.signal_to_noise_db), *numbers)
    return table


def _decibels(value: float | None) -> str:
    from tvmmobile.results.report.wording import UNKNOWN

    return UNKNOWN if value is None else f"{value:.1f}"


def _cells(accuracy: Accuracy) -> tuple[str, str, str, str]:
    from tvmmobile.results.report.wording import UNKNOWN

    def shown(percent: float | None) -> str:
        return UNKNOWN if percent is None else f"{percent:.2f}"

    return shown(accuracy.top1_percent), str(accuracy.top1), shown(accuracy.top5_percent), str(accuracy.top5)
