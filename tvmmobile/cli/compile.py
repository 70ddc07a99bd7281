"""`tvmmobile compile`: libraries from the tuning logs alone; no device is needed."""

from __future__ import annotations

from pathlib import Path

from tvmmobile.cli.options import Activation, Alphas, Classes, Device, Model, Out, Resolutions, Target, Threads
from tvmmobile.cli.work import (
    Checkpoint,
    DumpIr,
    Logs,
    Seed,
    check_target,
    check_threads,
    check_writable,
    log_dirs,
    variant_jobs,
    worker_count,
)


def compile_libraries(
    target: Target = "arm",
    device: Device = "pi4",
    model: Model = "mobilenet_v1",
    alpha: Alphas = None,
    resolution: Resolutions = None,
    activation: Activation = "relu6",
    classes: Classes = 1000,
    threads: Threads = 1,
    out: Out = Path("out"),
    checkpoint: Checkpoint = None,
    seed: Seed = 0,
    logs: Logs = None,
    dump_ir: DumpIr = None,
) -> None:
    """Compile a network for a device from the tuning logs alone, without the device.

    Without --alpha and --resolution: the paper's 16 variants. Kernels without records take the nearest shape's schedule.
    """
    from tvmmobile.codegen import linker
    from tvmmobile.console import output
    from tvmmobile.devices.registry import find_device
    from tvmmobile.models.registry import grid

    check_target(target)
    specs = grid(model, alpha or (), resolution or (), activation, classes)
    profile = find_device(device).profile
    check_threads(threads, profile)
    check_writable(out, "--out")
    if dump_ir is not None:
        check_writable(dump_ir, "--dump-ir")
    linker(profile.target)

    from tvmmobile.cli.progress import counting
    from tvmmobile.stages import build_libraries
    from tvmmobile.workers import Workers

    jobs = variant_jobs(specs, profile, log_dirs(logs, False, out), out, threads=threads, checkpoint=checkpoint, seed=seed, dump_ir=dump_ir)
    with Workers(worker_count(len(jobs))) as workers, counting("compiling", len(jobs)) as done:
        libraries = build_libraries(workers, jobs, done)
    for library in libraries:
        output().print(str(library.path), soft_wrap=True)
