"""Models a network compiled from the shipped tuning logs: core cycles beside the core's FMA limit, cache misses, and the time of both.

    ./studies/run count_cycles --alpha 1.0 --resolution 224 --limit 170e6

The network runs as a whole on the virtual board, through the agent and TVM's virtual machine; the table shows each distinct kernel as its
tuning record has it: alone, with cold weights, misses included. The FMA limit is multiply-adds over those the core can start per cycle.
Ends with 1 above `--limit` core cycles, and with 5 if the library disagrees with PyTorch.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.harness import Options, option, study
from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.devices.registry import find_device
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.build import build
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.stages.timing import BenchJob, bench_library
from tvmmobile.results.file import VariantResult
from tvmmobile.running.bench import started_agents
from tvmmobile.running.formats import VM
from tvmmobile.running.library import Library
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.errors import ExitCode

DEVICE = "pi4-virtual"


def kernel_lines(kernels: Sequence[Mapping[str, Any]], profile: DeviceProfile) -> list[str]:
    """Return the table: for each distinct kernel, costliest first, how often it runs, and the modelled time and FMA limit of all runs."""
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for kernel in kernels:
        runs.setdefault(kernel["name"], []).append(kernel)
    rows = []
    for name, same in runs.items():
        limit = len(same) * same[0]["macs"] / profile.machine.fma_lanes_per_cycle
        latency_us = same[0]["latency_us"]
        cycles = None if latency_us is None else len(same) * latency_us * 1e-6 * profile.clock_hz
        rows.append((cycles, limit, len(same), name))
    rows.sort(key=lambda row: -(row[0] or 0))
    lines = [f"{'cycles':>12} {'FMA limit':>12} {'of limit':>9} {'runs':>5}  kernel"]
    for cycles, limit, count, name in rows:
        cycles_text = "no record" if cycles is None else f"{cycles:,.0f}"
        share = f"{cycles / limit:.2f} x" if cycles and limit else ""
        lines.append(f"{cycles_text:>12} {limit:>12,.0f} {share:>9} {count:>5}  {name}")
    known, least = sum(row[0] or 0 for row in rows), sum(row[1] for row in rows)
    lines.append(f"{known:>12,.0f} {least:>12,.0f} {f'{known / least:.2f} x':>9} {len(kernels):>5}  all kernels, from their records")
    return lines


def run(spec: ModelSpec, logs: Path, folder: Path) -> tuple[Library, VariantResult, DeviceProfile]:
    """Compile the variant into `folder`, check it against PyTorch on the virtual board, and time it."""
    device = find_device(DEVICE)
    profile = device.profile
    library = build(variant_job(Model(spec), profile, (logs,), folder, LibraryOptions(format=VM))).library
    with started_agents(device) as agents:
        return library, bench_library(BenchJob(library, agents, agents.network_timing(1, 1, 1))), profile


@study(
    option("--alpha", 1.0),
    option("--resolution", 224),
    option("--logs", SHIPPED_LOGS, "tuning logs (default: the shipped ones)", metavar="DIR"),
    option("--limit", None, "most modelled core cycles the network may take", type=float, metavar="CYCLES"),
)
def main(options: Options) -> int:
    """Model the network and print the tables; return the exit code."""
    spec = ModelSpec(alpha=options.alpha, resolution=options.resolution)
    with tempfile.TemporaryDirectory(prefix="tvmmobile-cycles-") as folder:
        library, result, profile = run(spec, options.logs, Path(folder))
        kernels = library.manifest()["kernels"]
    assert result.cycles is not None and result.instructions is not None
    least = result.macs / profile.machine.fma_lanes_per_cycle
    print("\n".join(["modelled time in cycles, all runs of a kernel together", *kernel_lines(kernels, profile)]))
    print(f"\n{spec.variant} on {profile.name}, modelled ({profile.origin.model}):")
    print(f"{result.latency_us / 1e3:>15.2f} ms: " + ", ".join(f"{name} {ms:.2f}" for name, ms in result.term_ms.items()))
    print(f"{result.cycles:>15,} core cycles at {profile.clock_hz / 1e9:g} GHz")
    print(f"{result.instructions:>15,} instructions, {result.l1d_misses:,} L1D misses, {result.dram_bytes:,} bytes to and from memory")
    print(f"{least:>15,.0f} cycles at least for {result.macs:,} multiply-adds: {least / result.cycles:.1%} of the core cycles")
    if options.limit is not None and result.cycles > options.limit:
        print(f"{result.cycles:,} core cycles are more than the limit of {options.limit:,.0f}.", file=sys.stderr)
        return ExitCode.USAGE
    return ExitCode.DONE
