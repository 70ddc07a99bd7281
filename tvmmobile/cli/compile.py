"""`tvmmobile compile`: libraries from the tuning logs alone; no device is needed."""

from __future__ import annotations

from pathlib import Path

from tvmmobile.cli.options import Activation, Alphas, Classes, Device, Model, Out, Resolutions, Target, Threads
from tvmmobile.cli.work import (
    Checkpoint,
    Dask,
    DumpIr,
    Logs,
    Request,
    Seed,
    log_dirs,
    started_workers,
    worker_count,
)
from tvmmobile.system.errors import UserError


def compile_libraries(
    target: Target = "arm",
    device: Device = "pi4",
    model: Model = "mobilenet_v1",
    alpha: Alphas = None,
    resolution: Resolutions = None,
    activation: Activation = None,
    classes: Classes = 1000,
    threads: Threads = 1,
    out: Out = Path("out"),
    checkpoint: Checkpoint = None,
    seed: Seed = 0,
    logs: Logs = None,
    dask: Dask = None,
    dump_ir: DumpIr = None,
) -> None:
    """Compile a network for a device from its tuning logs, without the device.

    Without --alpha and --resolution: the published variants (MobileNet v1: the paper's 16). Kernels without records use the
    nearest shape's schedule.
    """
    from tvmmobile.cli.progress import counting, errors
    from tvmmobile.devices.registry import find_device
    from tvmmobile.pipeline.stages import build_libraries
    from tvmmobile.results.report.wording import fallback_sentence
    from tvmmobile.system.console import output

    if logs is not None and not logs.is_dir():
        raise UserError(f"--logs {logs} is not there, so there are no records.", "Name a directory that tvmmobile tune wrote to.")
    request = Request(
        target, model, alpha, resolution, activation, classes, threads, out, checkpoint, seed, log_dirs(logs, False, out), dump_ir
    )
    jobs = request.jobs(find_device(device).profile)
    with started_workers(worker_count(len(jobs)), None, dask) as workers, counting("compiling", len(jobs)) as done:
        libraries = build_libraries(workers, jobs, done)
    for library in libraries:
        output().print(str(library.path), soft_wrap=True)
    kernels = {kernel["name"]: kernel for library in libraries for kernel in library.manifest()["kernels"]}
    fallback = fallback_sentence([name for name, kernel in kernels.items() if "trace" in kernel["schedule"]], len(kernels))
    if fallback:
        errors().print(fallback, soft_wrap=True)
    untuned = sum(kernel["latency_us"] is None for kernel in kernels.values())
    if untuned:
        errors().print(
            f"{untuned} of {len(kernels)} kernels have no record and were compiled with the nearest shape's schedule: see `record` in the "
            "manifests. `tvmmobile tune` measures them.",
            soft_wrap=True,
        )
