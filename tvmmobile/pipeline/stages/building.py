"""Builds the libraries of a run in worker processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tvmmobile.graph.network import kept_sentence
from tvmmobile.pipeline.build import BuiltVariant, build
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.movement import rounding_sentence
from tvmmobile.pipeline.sharing import sharing_sentence
from tvmmobile.pipeline.small_weights import small_weights_sentence
from tvmmobile.pipeline.stages.jobs import Progress, build_timeout_s, succeeded
from tvmmobile.results.report.wording import latency_ms
from tvmmobile.running.library import Library
from tvmmobile.system.workers import WorkerPool
from tvmmobile.tuning.claims import RefusedLine, outdated_sentence, passed_over


def build_libraries(workers: WorkerPool, jobs: Sequence[VariantJob], progress: Progress, said: Progress | None = None) -> list[Library]:
    """Compile every variant, in the order of `jobs`; raise `UserError` where one cannot be built.

    `said` hears a sentence about the lines of the logs that did not count, and ones about networks with layers that stay
    in float32, or that are compared less strictly than others.
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
        if said is not None and built.kept:
            said(kept_sentence(job.spec.variant, built.kept))
        if said is not None and built.max_drop:
            said(drop_sentence(job.spec.variant, built.max_drop))
        if said is not None and built.small_weights:
            said(small_weights_sentence(job.spec.variant, built.small_weights))
        if said is not None and built.shared_weights:
            said(sharing_sentence(job.spec.variant, built.shared_weights))
        if said is not None and built.rounding:
            said(rounding_sentence(job.spec.variant, built.rounding))
        if said is not None and built.loss is not None:
            said(_loss_sentence(job.spec.variant, built.loss))
    if said is not None and refused:
        said(passed_over(list(refused)))
    if said is not None and outdated:
        said(outdated_sentence(outdated))
    return [job.library for job in jobs]


def drop_sentence(variant: str, found: Mapping[str, Any]) -> str:
    """Return the remark on what `--max-drop` costs, and on what it could cost at least; see `prepared`."""
    latency, int8, estimated, least = (latency_ms(found[name]) for name in ("latency_us", "int8_us", "estimated_us", "no_other_below_us"))
    return (
        f"{variant}: --max-drop {found['limit']}: {latency} ms, int8 alone {int8} ms (from records; {estimated} ms is estimated). "
        f"No other choice of layers is below {least} ms at {_decibels(found['bound_db'])} or better. "
        f"Signal to noise: {_decibels(found['predicted_db'])} predicted, {_decibels(found['measured_db'])} measured on calibration data."
    )


def _decibels(ratio: float | None) -> str:
    """Return a ratio of the signal to noise, `None` where there is no noise."""
    return "infinitely many dB" if ratio is None else f"{ratio:.1f} dB"


def _loss_sentence(variant: str, loss: float) -> str:
    """Return the remark on a variant whose library is compared with exact integers."""
    return (
        f"{variant}: integers move its outputs by up to {loss:.2g} of their largest magnitude, so its library is compared with exact "
        "integers. Look at its accuracy: tvmmobile evaluate."
    )
