"""Measures top-1 and top-5 of a compiled library over labelled images on a device, and of the network it was compiled from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Unpack

from tvmmobile.accuracy.classes import read_labels
from tvmmobile.accuracy.evaluation import Subject, batches, context_for, evaluate_batches, evaluate_storage
from tvmmobile.accuracy.evaluation_file import EvaluationContext, EvaluationFile, ImageResult, evaluation_of, write_evaluation
from tvmmobile.accuracy.noise import inputs_in, is_noise
from tvmmobile.accuracy.original import original_of
from tvmmobile.accuracy.storage import StoredLayer
from tvmmobile.accuracy.suspicions import suspicions
from tvmmobile.devices.protocol import Device
from tvmmobile.networks.images import check_header
from tvmmobile.networks.labelled import LabelledImage, evenly_spaced
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.pipeline.listener import QUIET, Listener, tell
from tvmmobile.pipeline.options.call import with_options
from tvmmobile.pipeline.options.compiled import EvaluateArguments, EvaluateOptions
from tvmmobile.pipeline.request import device_of
from tvmmobile.pipeline.run import check_cores
from tvmmobile.running.bench import started_bench
from tvmmobile.running.library import Library, checked_library
from tvmmobile.system.errors import Disagreement, UserError, please_report, some_of
from tvmmobile.system.files import check_writable
from tvmmobile.system.workers import Workers, worker_count


@dataclass(frozen=True)
class Evaluation:
    """The results for the images.

    Attributes:
        file: the counts, and every image.
        paths: files that it was written to; none without a folder for it.
        judge: the program that computed the reference, such as `PyTorch`.
        others: files in class folders that are neither images nor `.npy` files.
    """

    file: EvaluationFile
    paths: tuple[Path, ...]
    judge: str
    others: int

    @property
    def suspicions(self) -> tuple[str, ...]:
        """Sentences on what looks wrong about the images, their labels or the preprocessing."""
        return suspicions(self.file)

    def check(self) -> None:
        """Check that the library's outputs agree with its original's.

        Raises:
            Disagreement: they differ on an image by more than the tolerance.
            UserError: an image could not be read.
        """
        file, context = self.file, self.file.context
        differing = [result.image for result in file.images if result.disagrees(context.tolerance)]
        if differing:
            raise Disagreement(
                f"{context.library} disagrees with {self.judge} on {len(differing)} of {file.evaluated} images, "
                f"by more than {context.tolerance:g} of the output's largest magnitude: {some_of(differing)}.",
                f"If its weights are those the manifest names, one of its kernels is wrong. {please_report('manifest')}",
            )
        unreadable = [result for result in file.images if result.problem]
        if unreadable:
            raise UserError(
                f"{len(unreadable)} of {len(file.images)} images could not be read and are not counted: "
                f"{some_of([result.image for result in unreadable])}.",
                unreadable[0].problem,
            )


@with_options(EvaluateOptions)
def evaluate(
    library: Library, folder: str | Path, device: str | Device = "pi4", *, listener: Listener = QUIET, **options: Unpack[EvaluateArguments]
) -> Evaluation:
    """Run labelled images through a library on a device, and through its original on this machine.

    Args:
        library: a library that `compile` or `tune` made, or `open_libraries` found.
        folder: the images: FOLDER/CLASS/IMAGE; or `noise:N` for N inputs of noise.
        device: its name, or what `find_device` returns; default: the virtual Raspberry Pi 4, unless a board is registered as `pi4`.
        options: see `EvaluateOptions`, which `help` lists.
        listener: is told of progress.

    Returns:
        The counts for the library and for its original, with every image. Whether their outputs agree is for its `check` to say.

    Raises:
        UserError: an argument is wrong, or an image's header.
        Disagreement: the library does not run on the device.
        DeviceUnavailable: the device cannot be reached.
    """
    settings, board, spec = EvaluateOptions.of(options), device_of(device), checked_library(library).spec
    check_cores(library, board.profile)
    noise = is_noise(str(folder))
    _check_ends(library, noise)
    treatment = settings.preprocessing or Preprocessing(spec.resolution, channels=spec.channels, shape=spec.odd_shape)
    names = read_labels(settings.labels, spec.classes) if settings.labels else None
    if settings.out is not None:
        check_writable(settings.out, "--out")
    with inputs_in(str(folder), spec, names) as listed:
        chosen = evenly_spaced(listed.images, settings.limit)
        original = original_of(library, settings.model, settings.checkpoint)
        if not noise:
            _check_headers(chosen, treatment, listener)
        subject = Subject(library, original, treatment)
        context = context_for(subject, board.profile, listed, len(chosen))
        context = replace(context, preprocessing="none") if noise else context
        done = _Done()
        try:
            _evaluate(board, subject, chosen, done, listener)
        finally:  # also after Ctrl-C or an outage: finished images are kept, and the file says that it is incomplete
            if done.results:
                file, paths = _written(context, chosen, done, settings.out, listener)
    return Evaluation(file, paths, original.reference_program_name, listed.others)


def _check_ends(library: Library, noise: bool) -> None:
    """Raise `UserError` unless the library takes an image and returns numbers, and scores of classes where images have labels."""
    spec = library.spec
    if len(spec.takes) > 1 or spec.input_shape[0] != 1 or not (spec.takes[0].is_float and spec.returns[0].is_float):
        ports = "; ".join(map(str, (*spec.takes, *spec.returns)))
        raise UserError(
            f"{library.path.name} does not map one float32 image to float32 scores, but takes and returns {ports}.",
            "Run it with tvmmobile run.",
        )
    if not (noise or spec.returns[0].classes):
        raise UserError(
            f"{library.path.name} returns no scores of classes, but {spec.returns[0]}.",
            "Give noise:N in place of a folder, which shows whether it agrees with its network.",
        )


def check_one_network(libraries: Sequence[Library]) -> None:
    """Raise `UserError` unless the libraries are of one network with the same weights."""
    first = libraries[0]
    for library in libraries[1:]:
        if (library.spec, library.weights) != (first.spec, first.weights):
            raise UserError(
                f"{library.path} is not of the same network and weights as {first.path}.",
                "Compile both from one network, or evaluate them alone.",
            )


@dataclass
class _Done:
    """The state of an evaluation in progress."""

    results: list[ImageResult] = field(default_factory=list)
    stored: tuple[int, tuple[StoredLayer, ...]] = (0, ())


def _evaluate(board: Device, subject: Subject, chosen: Sequence[LabelledImage], done: _Done, listener: Listener) -> None:
    """Evaluate the images; `done` grows with the results."""
    parts = batches(chosen, subject.library, board.profile)
    count = worker_count(len(parts)) if board.boards is None else min(board.boards, len(parts))
    with Workers(count) as workers, started_bench(board, workers, timed=False) as bench, listener.stage("evaluating", len(chosen)) as tell:
        for batch in evaluate_batches(bench, subject, parts):
            done.results += batch
            for result in batch:
                tell(result.image.partition("/")[0])
        done.stored = evaluate_storage(bench, subject, chosen)


def _written(
    context: EvaluationContext, chosen: Sequence[LabelledImage], done: _Done, out: Path | None, listener: Listener
) -> tuple[EvaluationFile, tuple[Path, ...]]:
    places = {image.name: number for number, image in enumerate(chosen)}
    file = evaluation_of(context, sorted(done.results, key=lambda result: places[result.image]), *done.stored)
    paths = () if out is None else write_evaluation(file, out)
    if paths and not file.complete:
        tell(listener, f"partial: {len(done.results)} of {len(chosen)} images are in {paths[0]}")
    return file, paths


def _check_headers(images: Sequence[LabelledImage], preprocessing: Preprocessing, listener: Listener) -> None:
    """Raise one `UserError` for all images whose headers show that they cannot be used."""
    problems: list[UserError] = []
    names: list[str] = []
    with listener.stage("checking", len(images)) as done:
        for image in images:
            try:
                check_header(image.path, preprocessing)
            except UserError as error:
                problems.append(error)
                names.append(image.name)
            done("")
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise UserError(f"{len(problems)} images cannot be used: {some_of(names)}. {problems[0].as_typed[0]}", "Replace or remove them.")
