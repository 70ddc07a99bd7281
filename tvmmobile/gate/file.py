"""What `tvmmobile compare` and `regress` write with `--json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tvmmobile.gate.statistics import Verdict
from tvmmobile.results.file import Context, Latency
from tvmmobile.results.json_schemas import schema_of

FORMAT = 1


@dataclass(frozen=True)
class KernelEntry:
    """A kernel that is another one in the new library, or takes another time.

    Attributes:
        name: of its task.
        base_schedule, new_schedule: how the old and the new library compute it; `None` where the library has no such kernel.
        base_us, new_us: what it took for all layers together, within the network's run or else as recorded, in microseconds; `None` where
            neither is known.
        macs: multiply-adds of one run.
        added_us: what the network loses by it, in microseconds; `None` where that is not known.
    """

    name: str
    base_schedule: str | None
    new_schedule: str | None
    base_us: float | None
    new_us: float | None
    macs: int
    added_us: float | None


@dataclass(frozen=True)
class ComparedEntry:
    """A variant with its verdict.

    Attributes:
        name: e.g. `mobilenet_v1_1.0_224_float32_t1`.
        model: network family, e.g. `mobilenet_v1`.
        alpha: width multiplier.
        resolution: input side, in pixels.
        dtype: of weights and activations, e.g. `float32`.
        threads: worker threads.
        verdict: `slower` and `faster` are beyond the threshold and, unless modelled, significant; `too noisy` and `not comparable` leave it
            open; `skipped` was not compared, see `note`.
        note: what there is to say beside the verdict; "" where there is nothing.
        base_us, new_us: medians, in microseconds; over all interleaved runs where there were some; `None` where there is none that counts.
        change: new over old latency, less 1; `None` without a comparison.
        detects: a slowdown beyond this share would not have been called the same; `None` where any would have been.
        p: of a slowdown from equal libraries, corrected for the number of variants; `None` where modelled or not compared.
        pairs: runs of each side that the verdict rests on.
        library_sha256: of the new library, in hexadecimal.
        kernels: those that differ, the likeliest cause first.
    """

    name: str
    model: str
    alpha: float
    resolution: int
    dtype: str
    threads: int
    verdict: Verdict
    note: str
    base_us: Latency | None
    new_us: Latency | None
    change: float | None
    detects: float | None
    p: float | None
    pairs: int
    library_sha256: str
    kernels: tuple[KernelEntry, ...]


@dataclass(frozen=True)
class ComparisonFile:
    """What `tvmmobile compare` and `regress` write with `--json`.

    Attributes:
        version: of this format.
        exit_code: of the command: 0 nothing is slower, 2 a variant is, 4 of one it cannot be said.
        threshold: a change up to this share is none.
        summary: the outcome in one sentence.
        notes: differences between the two results that a reader should know of, a sentence each.
        base, new: where and how the old and the new numbers were got.
        variants: the verdicts.
    """

    version: int
    exit_code: Literal[0, 2, 4]
    threshold: float
    summary: str
    notes: tuple[str, ...]
    base: Context
    new: Context
    variants: tuple[ComparedEntry, ...]


def comparison_schema() -> dict[str, Any]:
    """The JSON Schema of this file."""
    return schema_of("comparison", FORMAT, ComparisonFile, (Context, ComparedEntry, KernelEntry))
