"""`tvmmobile evaluate`: top-1 and top-5 of a compiled library over labelled images, beside the network it was compiled from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmmobile.cli.images import Labels, LibraryFile, Mean, NoResize, Std, preprocessing_for, the_library
from tvmmobile.cli.options import Device, Out, RequireHardware

if TYPE_CHECKING:
    from tvmmobile.accuracy.evaluation_file import Accuracy, EvaluationFile, ImageResult
    from tvmmobile.accuracy.labelled import LabelledImage
    from tvmmobile.accuracy.original import Original
    from tvmmobile.accuracy.preprocess import Preprocessing
    from tvmmobile.devices.protocol import Device as Board
    from tvmmobile.running.library import Library

#: Images that a message names.
_MOST_NAMED = 3


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
    mean: Mean = "0.5",
    std: Std = "0.5",
    no_resize: NoResize = False,
    require_hardware: RequireHardware = False,
) -> None:
    """Measure a library's top-1 and top-5 over labelled images, beside PyTorch's.

    PyTorch runs on this machine with the same weights; for an ONNX file, ONNX's
    reference evaluator runs instead. Class folders are synsets in order,
    numbers, or names from --labels; the output says which.
    """
    from tvmmobile.accuracy.classes import read_labels
    from tvmmobile.accuracy.labelled import evenly_spaced, read_folder
    from tvmmobile.accuracy.original import original_of
    from tvmmobile.devices.registry import find_device
    from tvmmobile.system.files import check_writable

    board = find_device(device, require_hardware)
    found = the_library(library, board.profile)
    preprocessing = preprocessing_for(found, mean, std, no_resize)
    names = read_labels(labels, found.spec.classes) if labels else None
    listed = read_folder(folder, found.spec.classes, names)
    check_writable(out, "--out")
    chosen = evenly_spaced(listed.images, limit)
    original = original_of(found, model, checkpoint)
    _check_headers(chosen, preprocessing)

    from tvmmobile.accuracy.evaluation import context_for
    from tvmmobile.accuracy.evaluation_file import evaluation_of, write_evaluation
    from tvmmobile.cli.progress import errors

    context = context_for(found, original, board.profile, folder, listed, len(chosen), preprocessing)
    results: list[ImageResult] = []
    try:
        _evaluate(board, found, original, preprocessing, chosen, results)
    finally:  # also after Ctrl-C, or when the device went away: what is there is kept, and says that it is not all
        if results:
            places = {image.name: number for number, image in enumerate(chosen)}
            evaluation = evaluation_of(context, sorted(results, key=lambda result: places[result.image]))
            paths = write_evaluation(evaluation, out)
            if not evaluation.complete:
                errors().print(f"partial: {len(results)} of {len(chosen)} images are in {paths[0]}", soft_wrap=True)
    _print(evaluation, original, listed.others, paths)
    _check(evaluation, original)


def _check_headers(images: Sequence[LabelledImage], preprocessing: Preprocessing) -> None:
    """Raises `UserError` for images whose header says that they cannot be used, all of them at once."""
    from tvmmobile.accuracy.preprocess import check_image
    from tvmmobile.cli.progress import counting
    from tvmmobile.system.errors import UserError

    problems: list[UserError] = []
    names: list[str] = []
    with counting("checking", len(images)) as done:
        for image in images:
            try:
                check_image(image.path, preprocessing)
            except UserError as error:
                problems.append(error)
                names.append(image.name)
            done("")
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise UserError(f"{len(problems)} images cannot be used: {_named(names)}. {problems[0].message}", "Replace them or take them away.")


def _evaluate(
    board: Board,
    library: Library,
    original: Original,
    preprocessing: Preprocessing,
    chosen: Sequence[LabelledImage],
    results: list[ImageResult],
) -> None:
    """Evaluate the images; `results` grows as they are done."""
    from tvmmobile.accuracy.evaluation import BatchJob, batches, evaluate_batches
    from tvmmobile.cli.progress import counting
    from tvmmobile.running.bench import started_bench
    from tvmmobile.system.workers import Workers, worker_count

    parts = batches(chosen, library, board.profile)
    count = worker_count(len(parts)) if board.boards is None else min(board.boards, len(parts))
    with (
        Workers(count) as workers,
        started_bench(board, workers, timed=False) as bench,
        counting("evaluating", len(chosen)) as done,
    ):
        jobs = [BatchJob(library, original, bench.agents, preprocessing, part) for part in parts]
        for batch in evaluate_batches(bench.workers, jobs):
            results += batch
            for result in batch:
                done(result.image.partition("/")[0])


def _print(evaluation: EvaluationFile, original: Original, others: int, paths: Sequence[Path]) -> None:
    from tvmmobile.results.report.wording import clean, plural, scientific
    from tvmmobile.system.console import output, table_of

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
    table.add_row(original.judge_name, *_cells(evaluation.original))
    console.print(table)
    count = plural(evaluation.evaluated, "image")
    say(f"the same top-1 on {evaluation.same_top1} of {count}, the same top-5 set on {evaluation.same_top5}")
    if evaluation.largest_deviation is not None:
        worst = scientific(evaluation.largest_deviation)
        say(f"outputs differ by at most {worst} of {original.judge_name}'s largest magnitude ({evaluation.largest_deviation_image})")
    say(f"Written to {paths[0].parent}: {', '.join(path.name for path in paths)}")


def _cells(accuracy: Accuracy) -> tuple[str, str, str, str]:
    from tvmmobile.results.report.wording import UNKNOWN

    def shown(percent: float | None) -> str:
        return UNKNOWN if percent is None else f"{percent:.2f}"

    return shown(accuracy.top1_percent), str(accuracy.top1), shown(accuracy.top5_percent), str(accuracy.top5)


def _check(evaluation: EvaluationFile, original: Original) -> None:
    """Raises `Disagreement` where the library and its original differ, else `UserError` where images could not be read."""
    from tvmmobile.system.errors import Disagreement, UserError

    context = evaluation.context
    differing = [result.image for result in evaluation.images if result.disagrees(context.tolerance)]
    if differing:
        raise Disagreement(
            f"{context.library} disagrees with {original.judge_name} on {len(differing)} of {evaluation.evaluated} images, "
            f"by more than {context.tolerance:g} of the output's largest magnitude: {_named(differing)}.",
            "If its weights are those the manifest names, one of its kernels is wrong; please report it with the manifest.",
        )
    unreadable = [result for result in evaluation.images if result.problem]
    if unreadable:
        raise UserError(
            f"{len(unreadable)} of {len(evaluation.images)} images could not be read and are not counted: "
            f"{_named([result.image for result in unreadable])}.",
            unreadable[0].problem,
        )


def _named(names: Sequence[str]) -> str:
    """The first few."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"
