"""Builds the libraries of a run in worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tvmmobile.pipeline.build import BuiltVariant, build
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.listener import QUIET
from tvmmobile.pipeline.sentences import (
    drop_sentence,
    float32_sentence,
    loss_sentence,
    outdated_sentence,
    rounding_sentence,
    sharing_sentence,
    skipped_lines,
    small_weights_sentence,
)
from tvmmobile.pipeline.stages.jobs import Progress, build_timeout_s, succeeded
from tvmmobile.running.library import Library
from tvmmobile.system.workers import WorkerPool
from tvmmobile.tuning.claims import RefusedLine


def build_libraries(
    workers: WorkerPool, jobs: Sequence[VariantJob], progress: Progress, message: Progress = QUIET.message
) -> list[Library]:
    """Compile every variant, in the order of `jobs`; raise `UserError` where one cannot be built.

    Args:
        message: called with sentences about log lines that did not count, layers that stay in float32, and networks that are compared less
            strictly than others.
    """
    refused: dict[RefusedLine, None] = {}
    outdated = 0
    for job, result in workers.run(build, jobs, build_timeout_s(jobs)):
        built: BuiltVariant = succeeded(result, f"building {job.spec.variant}")
        progress(job.spec.variant)
        for line in built.refused:
            number, *rest = line.path.parts
            path = line.path if line.path.is_absolute() else job.logs[int(number)].joinpath(*rest)
            refused[replace(line, path=path)] = None
        outdated = max(outdated, built.outdated)
        for sentence in _sentences_of(job.spec.variant, built):
            message(sentence)
    if refused:
        message(skipped_lines(list(refused)))
    if outdated:
        message(outdated_sentence(outdated))
    return [job.library for job in jobs]


def _sentences_of(variant: str, built: BuiltVariant) -> Iterator[str]:
    """Yield the remarks on a library."""
    if built.float32_layers:
        yield float32_sentence(variant, built.float32_layers)
    if built.max_drop:
        yield drop_sentence(variant, built.max_drop)
    if built.small_weights:
        yield small_weights_sentence(variant, built.small_weights)
    if built.shared_weights:
        yield sharing_sentence(variant, built.shared_weights)
    if built.rounding:
        yield rounding_sentence(variant, built.rounding)
    if built.loss is not None:
        yield loss_sentence(variant, built.loss)
