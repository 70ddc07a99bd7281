"""Makes the result file's entry of a library's timed run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from tvmmobile import __version__
from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.graph.precision import precision_named
from tvmmobile.graph.tasks import symbol_of
from tvmmobile.kernels.serial import schedule_from_json
from tvmmobile.networks.models.costs import count
from tvmmobile.networks.models.published import IMAGENET_CLASSES, Published, paper_figures, slim_figures
from tvmmobile.networks.models.spec import ModelSpec, OwnSpec
from tvmmobile.results.file import Context, KernelResult, VariantResult
from tvmmobile.running.library import Library
from tvmmobile.running.manifest import KernelEntry, records_compare
from tvmmobile.running.measure import KernelCall, NetworkRun
from tvmmobile.system.environment import TVM_VERSION
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.summary import doubt

#: Sentence on what a modelled latency includes and excludes.
_MODELLED_TERMS = "core cycles and data cache misses; no TLB, no instruction fetches"


def result_of(library: Library, run: NetworkRun, error: float, device: DeviceProfile) -> VariantResult:
    """Return the entry of a library that ran correctly on a device."""
    spec, latency, manifest = library.spec, run.latency, library.facts.on(device)
    own = spec if isinstance(spec, OwnSpec) else None
    macs, parameters = (manifest.macs or 0, manifest.parameters or 0) if own else (count(spec).macs, count(spec).parameters)
    published = published_figures(spec, library.dtype)
    comparable = records_compare(manifest, device)
    samples = tuple(sample / 1000 for sample in latency.samples_ns) or (latency.seconds * 1e6,)
    return VariantResult(
        name=library.path.stem,
        model=spec.name,
        alpha=spec.alpha,
        resolution=spec.resolution,
        dtype=library.dtype,
        threads=library.threads,
        samples_us=samples,
        cycles=latency.cycles,
        instructions=latency.instructions,
        l1d_misses=latency.l1d_misses,
        dram_bytes=latency.dram_bytes,
        term_ms=dict(latency.term_ms),
        macs=macs,
        parameters=parameters,
        top1=published.top1 if published else None,
        top1_source=published.source if published else None,
        peak_memory_bytes=run.peak_memory_bytes,
        max_error=error,
        library_sha256=manifest.sha256,
        weights=manifest.weights,
        kernels=kernel_results(manifest.kernels, run.calls, comparable),
        conditions={} if latency.kind == "modelled" else {"steady": latency.steady},
        network_sha256=own.contents if own else "",
        reference=manifest.reference,
        format=manifest.format,
        input=spec.side if spec.odd_shape else "",
        dense_us=manifest.sparse.dense_us if manifest.sparse and comparable else None,
        weights_dtype=manifest.small_weights.dtype if manifest.small_weights else None,
    )


def kernel_results(kernels: Sequence[KernelEntry], calls: Sequence[KernelCall], comparable: bool = True) -> tuple[KernelResult, ...]:
    """Return a library's kernels with their times, provided that they are the functions that ran.

    If its records are not comparable with the device's latencies, their figures are left out.
    """
    if not comparable:
        kernels = [kernel.model_copy(update={"latency_us": None, "rank_correlation": None, "course": ()}) for kernel in kernels]
    ran = [call.symbol for call in calls] == [symbol_of(kernel.name) for kernel in kernels]
    return tuple(
        KernelResult(
            kernel.name,
            kernel.kind,
            kernel.macs,
            kernel.latency_us,
            str(schedule_from_json(kernel.schedule)),
            kernel.rank_correlation,
            network_us=calls[index].seconds * 1e6 if ran else None,
            l1d_misses=calls[index].l1d_misses if ran else None,
            dram_bytes=calls[index].dram_bytes if ran else None,
            least_bytes=kernel.least_bytes,
            course=kernel.course,
            fallback=kernel.fallback,
            zeros=kernel.zeros,
        )
        for index, kernel in enumerate(kernels)
    )


def published_figures(spec: ModelSpec, dtype: str) -> Published | None:
    """Return a network's published accuracy in floating point; `None` where there is none, and for integers."""
    if isinstance(spec, OwnSpec) or spec.classes != IMAGENET_CLASSES or precision_named(dtype).is_integer:
        return None
    return slim_figures(*spec.key) or paper_figures(*spec.key)


def context_of(profile: DeviceProfile, threads: int) -> Context:
    """Return the context of this device's numbers."""
    modelled = profile.origin.modelled
    return Context(
        device=profile.name,
        board=profile.board,
        cpu=profile.cpu,
        clock_hz=profile.clock_hz,
        kind=profile.origin.kind,
        timing_model=profile.origin.written,
        modelled_terms=_MODELLED_TERMS + doubt(load_board(profile.board_file)) if modelled else "",
        fma_lanes_per_cycle=profile.machine.fma_lanes_per_cycle,
        threads=threads,
        versions={"tvmmobile": __version__, "tvm": TVM_VERSION, "torch": version("torch")},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
