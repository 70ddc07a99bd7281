"""`tvmmobile compile`: libraries from the tuning logs alone; no device is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tvmmobile.cli import options


def compile_libraries(
    target: options.Target = "arm",
    device: options.Device = "pi4",
    model: options.Model = "mobilenet_v1",
    alpha: options.Alphas = None,
    resolution: options.Sizes = None,
    activation: options.Activation = None,
    batch: options.Batch = None,
    classes: options.Classes = 1000,
    threads: options.Threads = 1,
    dtype: options.Dtype = "float32",
    io_dtype: options.IoDtype = "float32",
    max_error: options.MaxError = None,
    calibrate: options.Calibrate = None,
    keep: options.Keep = None,
    max_drop: options.MaxDrop = None,
    out: options.Out = Path("out"),
    checkpoint: options.Checkpoint = None,
    seed: options.Seed = 0,
    logs: options.Logs = None,
    dask: options.Dask = None,
    dump_ir: options.DumpIr = None,
    library_format: options.Format = "c",
    archive: options.Archive = False,
    image: options.Image = False,
    mean: options.ImageMean = None,
    std: options.ImageStd = None,
    no_check: options.NoCheck = False,
) -> None:
    """Compile a network for a device from its tuning logs, without the device; check that the library computes what the network does.

    Without --alpha and --resolution: the published variants (MobileNet v1: the paper's 16). Kernels without records use the
    nearest shape's schedule.
    """
    from tvmmobile.cli.images import normalisation_for
    from tvmmobile.cli.progress import Shown, errors
    from tvmmobile.pipeline.compile import compile_models
    from tvmmobile.results.report.fallback import UsedKernel, fallback_lines
    from tvmmobile.running.manifest import check_lines, check_of
    from tvmmobile.system.console import output

    options.check_target(target)
    models = options.asked_for(model, alpha, resolution, activation, classes, checkpoint, seed, batch)
    chosen: Any = {"threads": threads, "dtype": dtype, "out": out, "logs": logs, "dump_ir": dump_ir, "dask": dask}
    chosen |= {"io_dtype": io_dtype, "max_error": max_error, "calibrate": calibrate, "format": library_format, "archive": archive}
    chosen |= {"keep": keep or (), "max_drop": max_drop}
    chosen |= {"image": normalisation_for(image, mean, std), "check": not no_check}
    libraries = compile_models(models, device, **chosen, listener=Shown())
    for library in libraries:
        output().print(str(library.path), soft_wrap=True)
    for line in check_lines([check_of(library.manifest()) for library in libraries]):
        errors().print(line, soft_wrap=True)
    kernels = {kernel.name: kernel for library in libraries for kernel in library.kernels}
    used = [UsedKernel(each.name, each.fallback, each.macs, each.latency_us) for library in libraries for each in library.kernels]
    for line in fallback_lines(used):
        errors().print(line, soft_wrap=True)
    untuned = sum(kernel.latency_us is None for kernel in kernels.values())
    if untuned:
        errors().print(
            f"{untuned} of {len(kernels)} kernels have no record and were compiled with the nearest shape's schedule: see `record` in the "
            "manifests. `tvmmobile tune` measures them.",
            soft_wrap=True,
        )
