"""Results of timing libraries on a device, and the versioned file that keeps them: `report.json`, shaped like Google Benchmark's.

`context` says where and how the numbers were obtained; `benchmarks` has one entry per variant, with every raw sample. The JSON Schema is
made from the dataclasses here (`tests/results/test_schemas.py`), docstrings and ranges included; docs/schemas holds it.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field

from tvmmobile.devices.protocol import Kind
from tvmmobile.graph.cores import llvm_name
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.precision import is_precision, precision_named, with_weights
from tvmmobile.running.formats import REFERENCE, VM
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import write_text
from tvmmobile.system.json_files import FileKind, check_version, read_json, validated

Value = TypeVar("Value")
#: Network, width multiplier, side, precision, threads and format: what tables, baselines and comparisons know a variant by.
VariantKey = tuple[str, float, str, str, int, str]

#: Most variants that the text of results lists.
_MOST_SHOWN = 4

FORMAT = 4
#: Versions that this one reads: what they lack has a default.
READABLE = (2, 3, 4)
_MADE_BY = "tvmmobile bench LIBRARIES --out DIR"
_KIND = FileKind("a result file of tvmmobile", f"Name a report.json that tvmmobile wrote, or make one: {_MADE_BY}", _MADE_BY)
#: For every dataclass in a file: text does not count as a number, and unknown fields are errors.
_STRICT = ConfigDict(strict=True, extra="forbid")

#: Ranges that a file may hold: wider than any board's, but everything computed from them is still a finite number.
Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=1e18)]
Positive = Annotated[float, Field(gt=0, le=1e18)]
#: Core clocks in Hz; 0 where a machine hides its clock.
Clock = Annotated[float, Field(ge=0, le=1e12)]
#: Latencies in microseconds: a nanosecond to eleven days.
Latency = Annotated[float, Field(ge=1e-3, le=1e12)]
Count = Annotated[int, Field(ge=0, le=10**18)]
PositiveCount = Annotated[int, Field(ge=1, le=10**18)]
_Share = Annotated[float, Field(ge=0, le=1)]
#: Fields that are left out of a file where they are `None`, so that results without sparse kernels and small weights are written as they
#: always were.
OMITTED_IF_NONE = frozenset({"zeros", "dense_us", "weights_dtype"})
# Not `Literal[1]`, which `True` is as well.
_Zero = Annotated[int, Field(ge=0, le=0)]
_One = Annotated[int, Field(ge=1, le=1)]


@dataclass(frozen=True)
class Context:
    """The device, timing and versions that numbers were obtained with.

    Attributes:
        device: name of the device, e.g. `pi4-virtual`.
        board: the product, e.g. `Raspberry Pi 4 Model B`.
        cpu: the board's core, e.g. `Cortex-A72`.
        clock_hz: the core clock that latencies refer to, in Hz; 0 if the machine hides it, as some hypervisors do.
        kind: `modelled` numbers come from a timing model, `measured` ones from a board's clock, `emulated` ones from the clock of a machine
            that runs the board's programs in an emulator; they never mix.
        timing_model: hash of the timing model; `None` if measured.
        modelled_terms: effects that the model includes and omits, in words; empty if measured.
        fma_lanes_per_cycle: float32 multiply-adds that a core can do per cycle; the basis of shares of the peak.
        threads: number of worker threads.
        versions: versions of tvmmobile, tvm, torch and everything else that affects the numbers.
        date: ISO 8601, UTC.
        memory_bytes_per_s: memory bandwidth available to that many threads, reads plus writes, in bytes per second; `None` if unknown.
        memory_source: source of that figure, in words.
    """

    __pydantic_config__ = _STRICT

    device: str
    board: str
    cpu: str
    clock_hz: Clock
    kind: Kind
    timing_model: str | None
    modelled_terms: str
    fma_lanes_per_cycle: PositiveCount
    threads: PositiveCount
    versions: Mapping[str, str]
    date: str
    memory_bytes_per_s: Positive | None = None
    memory_source: str = ""

    def fma_lanes(self, dtype: str) -> float:
        """Return a core's multiply-adds per cycle in this precision, or in float32 if this version does not know it."""
        machine = machine_of(llvm_name(self.cpu))
        return self.fma_lanes_per_cycle * (precision_named(dtype).rate_on(machine) if is_precision(dtype) else 1.0)


@dataclass(frozen=True)
class KernelResult:
    """One kernel of a library, in order of execution.

    Attributes:
        name: name of the kernel's task.
        kind: layer type; the types of a fused kernel are joined by ` + `.
        macs: multiply-adds.
        latency_us: latency of the kernel by itself, from its tuning record, in microseconds; `None` without a record.
        schedule: the schedule, as text.
        rank_correlation: Spearman's rank correlation between the modelled and the measured latencies of the kernel's schedules; `None` if
            latencies are modelled, or for too few schedules.
        network_us: time of the kernel within a run of the network, in microseconds, the median of several runs; `None` if not timed.
        l1d_misses: misses of the simulated first-level data cache in that run; `None` if measured.
        dram_bytes: bytes read from memory and written back in that run; `None` if measured.
        least_bytes: bytes of input, weights and output; with cold caches, no kernel can move fewer.
        course: progress of the kernel's search: (trials so far, best latency so far in microseconds) at each improvement and at the end.
        fallback: true if no template accepts the layer, so that MetaSchedule scheduled it.
        zeros: fraction of its weights that a sparse kernel skips because they are zero; absent for other kernels.
    """

    __pydantic_config__ = _STRICT

    name: str
    kind: str
    macs: Count
    latency_us: NotNegative | None
    schedule: str
    rank_correlation: Finite | None = None
    network_us: NotNegative | None = None
    l1d_misses: Count | None = None
    dram_bytes: Count | None = None
    least_bytes: Count | None = None
    course: tuple[tuple[Count, NotNegative], ...] = ()
    fallback: bool = False
    zeros: _Share | None = None


@dataclass(frozen=True)
class VariantFields:
    """The record of a library that was verified and timed.

    Attributes:
        name: name of the library, e.g. `mobilenet_v1_1.0_224_float32_t1`; unique within a file.
        model: network family, e.g. `mobilenet_v1`, or the name of the user's own network.
        alpha: width multiplier.
        resolution: input side, in pixels; the height if the input is not square.
        dtype: type of weights and activations, e.g. `float32`.
        threads: worker threads.
        samples_us: latencies of single runs, from the caller's input to the output, in microseconds; a single value if modelled.
        cycles: modelled core cycles, without the cost of cache misses; `None` if measured.
        instructions: number of executed instructions; `None` if measured.
        l1d_misses: misses of the simulated first-level data cache; `None` if measured.
        dram_bytes: bytes read from memory and written back; `None` if measured.
        term_ms: terms of a modelled latency by name, in milliseconds; empty if measured.
        macs: multiply-adds per run, counted from the table of layers, or from the graph of the user's own network.
        parameters: number of weights and biases, counted in the same way.
        top1: top-1 accuracy in percent, published for ImageNet or measured; `None` if neither is known.
        top1_source: publication of the accuracy, or the images on which it was measured.
        peak_memory_bytes: growth of the process's resident memory.
        max_error: largest error against `reference`, relative to the output's largest magnitude.
        library_sha256: SHA-256 of the `.so`, in hexadecimal.
        weights: origin of the weights.
        kernels: the kernels, in order of execution.
        invalid: reason why a measured latency does not count, such as a throttled clock; "" if it counts.
        conditions: the boards' state before and after the runs (`devices/board/health.py`), and whether times had settled; empty if
            modelled.
        network_sha256: SHA-256 of the file of the user's own network, in hexadecimal; "" for a built-in one.
        reference: program that computed the reference output, e.g. `PyTorch 2.13.0`.
        format: `c` for a library with a C interface, `vm` for one that runs in TVM's virtual machine.
        input: the input's size if it is not a square image: height and width as `96x128`, or all dimensions but the batch; "" for a square.
        other_threads_us: latencies of the same network's libraries for other thread counts, in microseconds, by the count; empty if they
            were not timed in the same run.
        dense_us: sum of the tuning records of the best dense kernels, in microseconds; absent without sparse kernels, or without such
            records.
        weights_dtype: type of weights that are stored in fewer bits than `dtype` has, e.g. `int8`; absent without such weights.
    """

    __pydantic_config__ = _STRICT

    name: str
    model: str
    alpha: Positive
    resolution: PositiveCount
    dtype: str
    threads: PositiveCount
    samples_us: Annotated[tuple[Latency, ...], Field(min_length=1)]
    cycles: Count | None
    instructions: Count | None
    l1d_misses: Count | None
    dram_bytes: Count | None
    term_ms: Mapping[str, Finite]
    macs: PositiveCount
    parameters: PositiveCount
    top1: Annotated[float, Field(ge=0, le=100)] | None
    top1_source: str | None
    peak_memory_bytes: Count
    max_error: NotNegative
    library_sha256: str
    weights: str
    kernels: tuple[KernelResult, ...] = ()
    invalid: str = ""
    conditions: Mapping[str, Any] = field(default_factory=dict)
    network_sha256: str = ""
    reference: str = REFERENCE
    format: str = VM
    input: str = ""
    other_threads_us: Mapping[str, Latency] = field(default_factory=dict)
    dense_us: Positive | None = None
    weights_dtype: str | None = None


@dataclass(frozen=True, repr=False)
class VariantResult(VariantFields):
    """One library, verified and timed; its fields are those of `VariantFields`."""

    def __repr__(self) -> str:
        """Return its name and latency; all fields, with those of its kernels, fill pages."""
        return f"<{type(self).__name__} {self.name}: {self.latency_ms:.4g} ms>"

    @property
    def side(self) -> str:
        """Input side, or size if the input is not square."""
        return self.input or str(self.resolution)

    @property
    def precision(self) -> str:
        """Its precision, with that of weights stored in fewer bits, such as `float32_int8weights`; part of a variant's identity."""
        return with_weights(self.dtype, self.weights_dtype)

    @property
    def key(self) -> VariantKey:
        """The key by which results are found; that of a copy of its library under another name is the same."""
        return self.model, self.alpha, self.side, self.precision, self.threads, self.format

    @property
    def latency_us(self) -> float:
        """Median of the samples, in microseconds."""
        return statistics.median(self.samples_us)

    @property
    def latency_ms(self) -> float:
        """Median of the samples, in milliseconds."""
        return self.latency_us / 1e3

    @property
    def spread(self) -> float | None:
        """Interquartile range of the samples over their median; `None` for fewer than four."""
        if len(self.samples_us) < 4:
            return None
        low, middle, high = statistics.quantiles(self.samples_us, n=4, method="inclusive")
        return (high - low) / middle

    @property
    def kernels_us(self) -> float | None:
        """Time of all kernels within a run of the network, in microseconds; `None` where that was not timed."""
        times = [kernel.network_us for kernel in self.kernels]
        return math.fsum(time for time in times if time is not None) if times and None not in times else None

    def peak_share(self, context: Context) -> float | None:
        """Return the share of the multiply-adds that the cores' FMA units could have done in that time; `None` if the clock is unknown.

        Args:
            context: the results' own.
        """
        if context.clock_hz < 1:
            return None
        cycles = self.latency_us * 1e-6 * context.clock_hz
        return self.macs / (cycles * context.fma_lanes(self.dtype) * self.threads)


@dataclass(frozen=True, repr=False)
class Results:
    """One run of `bench`."""

    context: Context
    variants: tuple[VariantResult, ...]

    def __repr__(self) -> str:
        """Return the device and the latency of each variant, of many that of the first few."""
        listed = [f"{variant.name} {variant.latency_ms:.4g} ms" for variant in self.variants]
        more = f"and {len(listed) - _MOST_SHOWN} more"
        shown = listed if len(listed) <= _MOST_SHOWN else [*listed[:_MOST_SHOWN], more]
        return f"<{type(self).__name__} on {self.context.device}, {self.context.kind}: {', '.join(shown) or 'no variants'}>"

    @property
    def latency_ms(self) -> float:
        """Latency of the only variant, in milliseconds; `context.kind` says whether it is modelled.

        Raises:
            UserError: there are more, or none.
        """
        if len(self.variants) != 1:
            raise UserError(f"these results have {len(self.variants)} variants, not one.", "Take the latency of each of `variants`.")
        return self.variants[0].latency_ms


@dataclass(frozen=True, kw_only=True)
class Benchmark(VariantFields):
    """A variant in a file, including the fields that Google Benchmark's tools expect of a benchmark.

    There is one entry per variant rather than per sample: the U test of `compare.py` assumes independent repetitions, which samples of one
    run are not, and would report differences between equal libraries.

    Attributes:
        family_index: index of the variant in the file.
        per_family_instance_index, repetition_index: always 0; a variant has one entry.
        repetitions: always 1.
        run_name: same as `name`.
        run_type: always `iteration`.
        iterations: number of samples.
        real_time, cpu_time: the median of the samples, in `time_unit`.
        time_unit: always microseconds.
        latency_us: the median of the samples, in microseconds.
        fma_peak_share: multiply-adds as a fraction of those that the cores' FMA units could have done in that time; `None` if the clock is
            unknown.
    """

    family_index: Count
    per_family_instance_index: _Zero
    run_name: str
    run_type: Literal["iteration"]
    repetitions: _One
    repetition_index: _Zero
    iterations: PositiveCount
    real_time: Latency
    cpu_time: Latency
    time_unit: Literal["us"]
    latency_us: Latency
    fma_peak_share: NotNegative | None


@dataclass(frozen=True)
class ResultFile:
    """Results of timing libraries on a device: `report.json` of tvmmobile.

    Attributes:
        version: version of this format.
        context: origin of the numbers.
        benchmarks: one entry per variant, in the form of Google Benchmark's.
    """

    __pydantic_config__ = _STRICT

    version: int
    context: Context
    benchmarks: tuple[Benchmark, ...]


def by_key(variants: Iterable[VariantResult]) -> dict[VariantKey, VariantResult]:
    """Map variants by their keys, the last of each.

    Raises:
        UserError: one has two names, such as a library and its renamed copy: which of them counts is unknown.
    """
    found: dict[VariantKey, VariantResult] = {}
    for variant in variants:
        first = found.get(variant.key, variant)
        if first.name != variant.name:
            raise UserError(
                f"{first.name} and {variant.name} have the same network, precision, number of threads and format.",
                "Leave one of them out, or time each with an --out of its own and compare them: tvmmobile compare",
            )
        found[variant.key] = variant
    return found


def changed_versions(base: Context, new: Context) -> list[tuple[str, str, str]]:
    """Return the versions that differ: the name, and the old and new version."""
    names = dict.fromkeys((*base.versions, *new.versions))
    pairs = [(name, base.versions.get(name, "not stated"), new.versions.get(name, "not stated")) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]


def joined_versions(contexts: Iterable[Context]) -> dict[str, str]:
    """Return the versions of several results by name, with commas between those that differ."""
    each = [one.versions for one in contexts]
    return {name: ", ".join(dict.fromkeys(one[name] for one in each if name in one)) for known in each for name in known}


def write_results(results: Results, path: Path) -> None:
    """Write `report.json` whole; raise `ValueError` and write nothing if a number is not finite: JSON has no such numbers."""
    results = encodable(results)
    benchmarks = []
    for index, variant in enumerate(results.variants):
        entry = _stated(asdict(variant))
        entry["kernels"] = [_stated(kernel) for kernel in entry["kernels"]]
        entry["latency_us"] = variant.latency_us
        share = variant.peak_share(results.context)
        entry["fma_peak_share"] = None if share is None else round(share, 4)
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
    write_text(path, json.dumps(content, allow_nan=False, indent=1) + "\n")


def encodable(value: Value) -> Value:
    """Return results, or a part of them, with a question mark for half a character, as the name of a file that is not UTF-8 has.

    Most programs refuse JSON with such halves, and SQLite does not store them.
    """
    found: Any = value
    if isinstance(value, str):
        found = value.encode("utf-8", "replace").decode()
    elif isinstance(value, Mapping):
        found = {encodable(key): encodable(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        found = type(value)(map(encodable, value))
    elif is_dataclass(value) and not isinstance(value, type):
        found = replace(value, **{item.name: encodable(getattr(value, item.name)) for item in fields(value)})
    kept: Value = found
    return kept


def _stated(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's object, without the fields that are left out where they are `None`."""
    return {name: value for name, value in entry.items() if name not in OMITTED_IF_NONE or value is not None}


def read_results(path: str | Path) -> Results:
    """Return the results in a `report.json`, whose `path` `report` or a command wrote.

    Raises:
        UserError: it cannot be read, is damaged or not such a file, has another version, or has a variant twice; the message says where.
    """
    path = Path(path)
    text, content = read_json(path, _KIND)
    if isinstance(content, dict) and "version" not in content and {"context", "benchmarks"} <= content.keys():
        raise _KIND.refusal(path, "it is another program's, shaped like Google Benchmark's; version is missing")
    check_version(path, _KIND, content, READABLE, ("context", "benchmarks"))
    file = validated(path, _KIND, text, ResultFile)
    names: dict[str, int] = {}
    for index, entry in enumerate(file.benchmarks):
        first = names.setdefault(entry.name, index)
        if first != index:
            raise _KIND.refusal(path, f"{entry.name!a} appears twice, as benchmarks[{first}] and benchmarks[{index}]")
    for index, entry in enumerate(file.benchmarks):
        _check_median(path, index, entry)
    kept = [item.name for item in fields(VariantResult)]
    return Results(file.context, tuple(VariantResult(**{name: getattr(entry, name) for name in kept}) for entry in file.benchmarks))


def _check_median(path: Path, index: int, entry: Benchmark) -> None:
    """Raise `UserError` if an entry's median does not follow from its samples: readers use either."""
    median = statistics.median(entry.samples_us)
    for name in ("real_time", "cpu_time", "latency_us"):
        if not math.isclose(getattr(entry, name), median, rel_tol=1e-6):
            found = f"benchmarks[{index}].{name} is {getattr(entry, name):.10g}, and the median of its samples is {median:.10g}"
            raise _KIND.refusal(path, found)
    if entry.iterations != len(entry.samples_us):
        raise _KIND.refusal(path, f"benchmarks[{index}].iterations is {entry.iterations}, and it has {len(entry.samples_us)} samples")
