"""Results of timing libraries on a device, and the versioned file that keeps them: `report.json`, shaped like Google Benchmark's.

`context` says where and how the numbers were got; `benchmarks` has one entry per variant, with every raw sample.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tvmmobile.errors import UserError
from tvmmobile.files import write_text

FORMAT = 3
#: Versions that this one reads: what they lack has a default.
READABLE = (2, 3)


@dataclass(frozen=True)
class Context:
    """Where and how numbers were got.

    Attributes:
        device, board, cpu: e.g. `pi4-virtual`, `Raspberry Pi 4 Model B`, `Cortex-A72`.
        clock_hz: the clock that latencies refer to.
        kind: `modelled` numbers come from a timing model, `measured` ones from a board's clock; they never mix.
        timing_model: hash of the timing model, `None` where measured.
        modelled_terms: what the model accounts for and what not, in words; empty where measured.
        fma_lanes_per_cycle: float32 multiply-adds a core can do in a cycle, the base of the share of peak.
        threads: worker threads.
        versions: of tvmmobile, tvm, torch and whatever else decides the numbers.
        date: ISO 8601, UTC.
        memory_bytes_per_s: what memory delivers to so many threads, read and written; `None` where it is not known.
        memory_source: where that figure is from, in words.
    """

    device: str
    board: str
    cpu: str
    clock_hz: float
    kind: Literal["modelled", "measured", "emulated"]
    timing_model: str | None
    modelled_terms: str
    fma_lanes_per_cycle: int
    threads: int
    versions: Mapping[str, str]
    date: str
    memory_bytes_per_s: float | None = None
    memory_source: str = ""


@dataclass(frozen=True)
class KernelResult:
    """One kernel of a library, in order of execution.

    Attributes:
        name, kind, macs: of its task; layer types of a fused kernel are joined by ` + `.
        latency_us: as its tuning record has it, run alone; `None` without a record.
        schedule: its text.
        rank_correlation: Spearman's, between the latencies that the virtual board's model gives its schedules and those measured; `None`
            where modelled, or for too few schedules.
        network_us: what it took within a run of the network, the median where there were several; `None` where that was not timed.
        l1d_misses, dram_bytes: of that run; `None` where measured.
        least_bytes: of its input, weights and output together: no kernel moves fewer with cold caches.
        course: of its search: (trials so far, best latency in microseconds by then), where that improved and at the end.
    """

    name: str
    kind: str
    macs: int
    latency_us: float | None
    schedule: str
    rank_correlation: float | None = None
    network_us: float | None = None
    l1d_misses: int | None = None
    dram_bytes: int | None = None
    least_bytes: int | None = None
    course: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class VariantResult:
    """One library, verified and timed.

    Attributes:
        name: e.g. `mobilenet_v1_1.0_224_float32_t1`.
        samples_us: latency of single runs from the caller's input to the output, in microseconds; one value where modelled.
        cycles, instructions: modelled core cycles, without what misses cost, and executed instructions; `None` where measured.
        l1d_misses, dram_bytes: lines that the simulated first-level data cache did not have, and bytes read from memory and written back;
            `None` where measured.
        term_ms: the terms of a modelled latency by name, in milliseconds; empty where measured.
        macs, parameters: counted from the table of layers.
        top1, top1_source: published accuracy in percent and its source, `None` where nothing is published.
        peak_memory_bytes: how far the process's resident memory rose.
        max_error: against PyTorch, relative to the output's largest magnitude.
        library_sha256: of the `.so`.
        weights: where they came from.
        invalid: why a measured latency does not count, such as a throttled clock; "" where it does.
        conditions: the boards' state before and after (`devices/health.py`), and whether times had settled; empty where modelled.
    """

    name: str
    model: str
    alpha: float
    resolution: int
    dtype: str
    threads: int
    samples_us: tuple[float, ...]
    cycles: int | None
    instructions: int | None
    l1d_misses: int | None
    dram_bytes: int | None
    term_ms: Mapping[str, float]
    macs: int
    parameters: int
    top1: float | None
    top1_source: str | None
    peak_memory_bytes: int
    max_error: float
    library_sha256: str
    weights: str
    kernels: tuple[KernelResult, ...] = ()
    invalid: str = ""
    conditions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def latency_us(self) -> float:
        """Median of the samples, in microseconds."""
        return statistics.median(self.samples_us)

    @property
    def kernels_us(self) -> float | None:
        """What all kernels took within a run of the network; `None` where that was not timed."""
        times = [kernel.network_us for kernel in self.kernels]
        return math.fsum(time for time in times if time is not None) if times and None not in times else None

    def peak_share(self, context: Context) -> float:
        """Multiply-adds done over those the cores' FMA units could have done in that time."""
        cycles = self.latency_us * 1e-6 * context.clock_hz
        return self.macs / (cycles * context.fma_lanes_per_cycle * self.threads)


@dataclass(frozen=True)
class Results:
    """One run of `bench`."""

    context: Context
    variants: tuple[VariantResult, ...]


def write_results(results: Results, path: Path) -> None:
    """Write `report.json` whole.

    Raises:
        ValueError: a number is not finite; JSON has no such numbers, and nothing is written.
    """
    benchmarks = []
    for index, variant in enumerate(results.variants):
        entry = asdict(variant)
        entry["latency_us"] = variant.latency_us
        entry["fma_peak_share"] = round(variant.peak_share(results.context), 4)
        google = {
            "family_index": index,
            "per_family_instance_index": 0,
            "run_name": variant.name,
            "run_type": "iteration",
            "repetitions": 1,
            "repetition_index": 0,
            "iterations": len(variant.samples_us),
            "real_time": variant.latency_us,
            "cpu_time": variant.latency_us,
            "time_unit": "us",
        }
        benchmarks.append({"name": entry.pop("name"), **google, **entry})
    content = {"version": FORMAT, "context": asdict(results.context), "benchmarks": benchmarks}
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_results(path: Path) -> Results:
    """Read a file that `write_results` wrote.

    Raises:
        UserError: it cannot be read, is not such a file, or has another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] not in READABLE:
            raise UserError(
                f"{path} has format {content['version']}; this version reads {READABLE[0]} to {FORMAT}.",
                "Read it with the version that wrote it, or run the benchmark again.",
            )
        variants = tuple(_variant(entry) for entry in content["benchmarks"])
        return _checked(Results(Context(**content["context"]), variants))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Name a report.json that tvmmobile wrote.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a result file of tvmmobile: {error}.", "Name a report.json that tvmmobile wrote.") from error


def _checked(results: Results) -> Results:
    """The same, once what every latency and share is computed from is known to be a number they can be computed from."""
    context = results.context
    if context.kind not in ("modelled", "measured", "emulated"):
        raise ValueError(f"kind {context.kind!r} is neither modelled nor measured")
    for name, value in (("clock_hz", context.clock_hz), ("fma_lanes_per_cycle", context.fma_lanes_per_cycle)):
        _check_positive(name, value)
    for variant in results.variants:
        if not variant.samples_us:
            raise ValueError(f"{variant.name} has no samples")
        for value in (*variant.samples_us, variant.macs, variant.parameters, variant.threads, variant.resolution, variant.alpha):
            _check_positive(variant.name, value)
    return results


def _check_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} has {value!r} where a positive number should be")


def _variant(entry: Mapping[str, Any]) -> VariantResult:
    later = {name: entry[name] for name in ("invalid", "conditions") if name in entry}
    names = [name for name in VariantResult.__dataclass_fields__ if name not in ("samples_us", "kernels", "invalid", "conditions")]
    fields = {name: entry[name] for name in names} | later
    kernels: Sequence[Mapping[str, Any]] = entry["kernels"]
    return VariantResult(**fields, samples_us=tuple(entry["samples_us"]), kernels=tuple(map(_kernel, kernels)))


def _kernel(entry: Mapping[str, Any]) -> KernelResult:
    return KernelResult(**{**entry, "course": tuple((trials, latency) for trials, latency in entry.get("course", ()))})
