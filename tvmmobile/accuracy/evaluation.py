"""Runs labelled images through a library on a device and its original on the host, in worker processes.

No latency is taken: a virtual board runs without the plugin that models one, and the images of a batch share a session.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np

from tvmmobile import __version__
from tvmmobile.accuracy.classes import most_likely
from tvmmobile.accuracy.differences import difference_of
from tvmmobile.accuracy.evaluation_file import EvaluationContext, ImageResult
from tvmmobile.accuracy.original import Original, compute_of
from tvmmobile.accuracy.storage import StoredLayer, stored_layers
from tvmmobile.devices.protocol import MEASURED, DeviceProfile
from tvmmobile.graph.precision import FLOAT32, Precision, precision_named
from tvmmobile.kernels.reference import relative_error
from tvmmobile.networks.frontend import Compute
from tvmmobile.networks.images import read_input
from tvmmobile.networks.labelled import LabelledFolder, LabelledImage, evenly_spaced, plain
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.pipeline.agreement import failure_of
from tvmmobile.pipeline.stages.jobs import succeeded
from tvmmobile.pipeline.stages.timing import MOST_ATTEMPTS
from tvmmobile.running.bench import Bench
from tvmmobile.running.library import Library
from tvmmobile.running.measure import Agents, Array, MeasureError
from tvmmobile.system.environment import TVM_VERSION
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import sha256_of

_TOP = 5
#: Time limit of a session, enforced by the agent.
_SESSION_TIMEOUT_S = 600.0
#: Time limit of a batch with all its attempts and their waits for an agent.
_BATCH_TIMEOUT_S = 2000.0
#: Images per batch; the library is sent to the device once per batch.
_MOST_IMAGES = 32
#: Images on which layers are examined: their losses differ little from image to image.
_STORED_IMAGES = 8
#: Multiply-adds per batch under QEMU, which does some 10⁸ a second, so that its session ends in time.
_EMULATED_MACS = 2_000_000_000
_KINDS: Mapping[str, Any] = {"modelled": "virtual", "measured": "hardware", "emulated": "emulated"}


@dataclass(frozen=True)
class Subject:
    """A library and the network it was compiled from, on images prepared in one way."""

    library: Library
    original: Original
    preprocessing: Preprocessing

    @property
    def precision(self) -> Precision:
        """The library's precision."""
        return precision_named(self.library.dtype)


@dataclass(frozen=True)
class BatchJob:
    """The input of a worker that evaluates some images."""

    subject: Subject
    agents: Agents
    images: tuple[LabelledImage, ...]


def batches(images: Sequence[LabelledImage], library: Library, profile: DeviceProfile) -> list[tuple[LabelledImage, ...]]:
    """Return the images in batches for one session each. Each is spread over the whole list, so that some batches represent all."""
    size = _MOST_IMAGES
    if profile.origin != MEASURED:
        macs = sum(kernel.macs for kernel in library.facts.kernels)
        size = max(1, min(size, _EMULATED_MACS // max(macs, 1)))
    count = math.ceil(len(images) / size)
    return [tuple(images[number::count]) for number in range(count)]


def evaluate_batches(bench: Bench, subject: Subject, parts: Sequence[tuple[LabelledImage, ...]]) -> Iterator[tuple[ImageResult, ...]]:
    """Yield the results of each batch's images as it finishes; raise `Disagreement` or `DeviceUnavailable` on failure."""
    jobs = [BatchJob(subject, bench.agents, part) for part in parts]
    for _, results in bench.workers.run(evaluate_batch, jobs, bench.agents.endpoint.stretch * _BATCH_TIMEOUT_S):
        yield succeeded(results, f"running {subject.library.path.name}")


def evaluate_batch(job: BatchJob) -> tuple[ImageResult, ...]:
    """Run every readable image of a batch on the device and through the original, and compare."""
    inputs: dict[LabelledImage, Array] = {}
    problems: dict[LabelledImage, str] = {}
    for image in job.images:
        try:
            inputs[image] = read_input(image.path, job.subject.preprocessing).array
        except UserError as error:
            problems[image] = plain(error.message)
    outputs = dict(zip(inputs, _on_device(job, list(inputs.values())), strict=True))
    return tuple(
        ImageResult(image.name, image.label, (), (), None, problems[image])
        if image in problems
        else _compared(image, outputs[image], _computed(job.subject.original)([inputs[image]])[0], job.subject.precision)
        for image in job.images
    )


def evaluate_storage(bench: Bench, subject: Subject, images: Sequence[LabelledImage]) -> tuple[int, tuple[StoredLayer, ...]]:
    """Measure on a few images what each layer loses in the library's precision; also return their number. Skips float32 and integers.

    PyTorch computes it in a worker. An image that cannot be read is left out.
    """
    if subject.precision == FLOAT32 or subject.precision.is_integer:
        return 0, ()
    jobs = [BatchJob(subject, bench.agents, evenly_spaced(images, _STORED_IMAGES))]
    ((_, found),) = bench.workers.run(_storage_of, jobs, _BATCH_TIMEOUT_S)
    layers: tuple[int, tuple[StoredLayer, ...]] = succeeded(found, "looking at its layers")
    return layers


def _storage_of(job: BatchJob) -> tuple[int, tuple[StoredLayer, ...]]:
    inputs = []
    for image in job.images:
        with suppress(UserError):
            inputs.append(read_input(image.path, job.subject.preprocessing).array)
    layers = stored_layers(_computed(job.subject.original), inputs, job.subject.precision)
    return (len(inputs) if layers else 0), layers


def context_for(subject: Subject, profile: DeviceProfile, folder: LabelledFolder, chosen: int) -> EvaluationContext:
    """Return the evaluated library, device, images and method; `chosen` counts the folder's images that are used."""
    library, spec = subject.library, subject.library.spec
    return EvaluationContext(
        library=library.path.name,
        library_sha256=sha256_of(library.path),
        model=spec.name,
        alpha=spec.alpha,
        resolution=spec.resolution,
        classes=spec.classes,
        dtype=library.dtype,
        threads=library.threads,
        weights=library.weights,
        judge=subject.original.reference_program,
        device=profile.name,
        board=profile.board,
        kind=_KINDS[profile.origin.kind],
        folder=plain(str(folder.path)),
        class_folders=folder.class_folders,
        images_found=len(folder.images),
        images_chosen=chosen,
        labels=folder.rule,
        preprocessing=str(subject.preprocessing),
        tolerance=library.tolerance,
        versions={"tvmmobile": __version__, "tvm": TVM_VERSION, "torch": version("torch")},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _on_device(job: BatchJob, inputs: Sequence[Array]) -> list[Array]:
    """Return the library's first output for each input; tried again after a broken connection."""
    if not inputs:
        return []
    library = job.subject.library
    for attempt in range(1, MOST_ATTEMPTS + 1):
        try:
            found = job.agents.outputs(library.path, [[array] for array in inputs], library.threads, _SESSION_TIMEOUT_S)
            return [outputs[0] for outputs in found]
        except MeasureError as error:
            if error.kind != "link" or attempt == MOST_ATTEMPTS:
                raise failure_of(library, job.agents.profile, error) from error
    raise AssertionError("the last attempt returns or raises")


@lru_cache(maxsize=1)
def _computed(original: Original) -> Compute:
    """Return the original's outputs, made once per worker for all its batches."""
    return compute_of(original)


def _compared(image: LabelledImage, output: Array, expected: Array, precision: Precision) -> ImageResult:
    deviation = relative_error(output, expected)
    return ImageResult(
        image=image.name,
        label=image.label,
        library_top5=_top(output),
        original_top5=_top(expected),
        deviation=deviation if math.isfinite(deviation) else None,
        difference=difference_of(output, expected, FLOAT32 if precision.is_integer else precision),
    )


def _top(output: Array) -> tuple[int, ...]:
    """Return the most likely classes; none if the output is not finite."""
    return tuple(ranked.index for ranked in most_likely(output, _TOP, None)) if np.isfinite(output).all() else ()
