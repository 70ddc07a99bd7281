"""Results made by hand, plausible enough to look at: what the report's tests are given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tvmmobile.networks.models.costs import count
from tvmmobile.networks.models.published import slim_figures
from tvmmobile.networks.models.registry import grid
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.results.file import Context, KernelResult, Results, VariantResult

MODELLED = Context(
    device="pi4-virtual",
    board="Raspberry Pi 4 Model B",
    cpu="Cortex-A72",
    clock_hz=1.8e9,
    kind="modelled",
    timing_model="3f1c9a7e2b40",
    modelled_terms="core cycles and data cache misses; no TLB, no instruction fetches",
    fma_lanes_per_cycle=4,
    threads=1,
    versions={"tvmmobile": "0.1.0", "tvm": "0.27.0.post1"},
    date="2026-11-20T08:00:00+00:00",
    memory_bytes_per_s=3.9e9,
    memory_source="fitted to published latencies",
)
MEASURED = replace(MODELLED, device="pi4", kind="measured", timing_model=None, modelled_terms="", memory_source="measured with a copy")
#: Of a machine that tells no clock, governor or temperature, as `conditions` has it.
HIDDEN_STATE: dict[str, Any] = {
    "temperature_c": None,
    "clocks_hz": [0.0] * 4,
    "caps_hz": [0.0] * 4,
    "throttled": [],
    "governor": "",
    "load": 0.1,
    "boot": "x",
}
_KINDS = {"conv": "conv 3x3", "depthwise": "depthwise 3x3", "pointwise": "conv 1x1", "dense": "fully connected"}
#: Lanes that layers of a type keep busy; a fixed cost of 5,000 cycles each comes on top.
_EFFICIENCY = {"conv": 0.7, "depthwise": 0.45, "pointwise": 0.92, "dense": 0.25}


def sample_variant(spec: ModelSpec, *, measured: bool = False) -> VariantResult:
    """Return a variant whose kernels reach a share of the FMA peak that depends on their type."""
    cost = count(spec)
    kernels, cycles = [], 0.0
    for item in cost.layers:
        kind = item.layer.kind.value
        spent = item.macs / 4 / _EFFICIENCY.get(kind, 0.5) + 5_000
        cycles += spent
        name = f"{kind}_{item.layer.in_side}x{item.layer.in_side}_{item.layer.in_channels}x{item.layer.out_channels}_relu6_float32_t1"
        schedule = f"{kind}@1(rows=4, columns=8, unroll=2, order=1, panel=16)"
        layer, alone_us = item.layer, spent / 1.8e3
        moved = 4 * (layer.in_side**2 * layer.in_channels + layer.out_side**2 * layer.out_channels + item.weights)
        kernels.append(
            KernelResult(
                name,
                _KINDS.get(kind, "other"),
                item.macs,
                alone_us,
                schedule,
                # Within the network most of the input is in the caches already.
                network_us=0.97 * alone_us,
                l1d_misses=None if measured else moved // 64,
                dram_bytes=None if measured else moved // 256 * 64,
                least_bytes=moved,
                course=((1, 2.5 * alone_us), (3, 1.3 * alone_us), (item.macs % 7 + 9, 1.05 * alone_us), (24, alone_us), (32, alone_us)),
            )
        )
    mean = KernelResult("mean_1x7x7x1024_0123456789ab_float32_t1", "other", 0, None, "metaschedule(0123456789ab)", network_us=9.5)
    kernels.insert(-1, replace(mean, l1d_misses=None if measured else 3136, dram_bytes=None if measured else 0, least_bytes=204_800))
    latency_us = cycles / 1.8e3
    published = slim_figures(spec.name, spec.alpha, spec.resolution)
    return VariantResult(
        name=f"{spec.variant}_float32_t1",
        model=spec.name,
        alpha=spec.alpha,
        resolution=spec.resolution,
        dtype="float32",
        threads=1,
        samples_us=tuple(latency_us * (1 + noise) for noise in (0.02, 0.0, 0.03, 0.01, 0.015)) if measured else (latency_us,),
        cycles=None if measured else round(cycles),
        instructions=None if measured else round(cycles * 1.05),
        l1d_misses=None if measured else cost.parameters // 8,
        dram_bytes=None if measured else 8 * cost.parameters,
        term_ms={} if measured else {"core": cycles / 1.8e6},
        macs=cost.macs,
        parameters=cost.parameters,
        top1=published.top1 if published else None,
        top1_source=published.source if published else None,
        peak_memory_bytes=4 * cost.parameters + 8_000_000,
        max_error=3.4e-7,
        library_sha256="0" * 64,
        weights="seeded kaiming, seed 0",
        kernels=tuple(kernels),
        conditions={"before": [board_state(47.0)], "after": [board_state(58.0)], "steady": True} if measured else {},
    )


def board_state(temperature_c: float) -> dict[str, object]:
    """Return a board's state by `devices/board/health.py`, as a result file has it."""
    return {"temperature_c": temperature_c, "clocks_hz": [1.8e9] * 4, "throttled": [], "governor": "performance", "load": 0.1, "boot": "x"}


def sample_results(variants: int = 16, *, measured: bool = False) -> Results:
    """Return the paper's grid, or its first variants."""
    specs = grid("mobilenet_v1")[:variants]
    return Results(MEASURED if measured else MODELLED, tuple(sample_variant(spec, measured=measured) for spec in specs))


def without_kernel_times(results: Results) -> Results:
    """Return results as files of format 2 have them: nothing of the kernels within the network, nor of memory."""
    lost: dict[str, Any] = {"network_us": None, "l1d_misses": None, "dram_bytes": None, "least_bytes": None, "course": ()}
    variants = [replace(variant, kernels=tuple(replace(kernel, **lost) for kernel in variant.kernels)) for variant in results.variants]
    return Results(replace(results.context, memory_bytes_per_s=None, memory_source=""), tuple(variants))
