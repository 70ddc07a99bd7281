"""Networks → libraries, from the tuning logs alone; no device is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

from tvmmobile.devices.protocol import Device
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.networks.model import Model
from tvmmobile.networks.preprocessing import Normalisation
from tvmmobile.pipeline.cluster.start import started_workers
from tvmmobile.pipeline.library import CompiledLibrary
from tvmmobile.pipeline.listener import QUIET, Listener
from tvmmobile.pipeline.request import Models, device_of, request_of
from tvmmobile.pipeline.stages import build_libraries
from tvmmobile.running.formats import C
from tvmmobile.system.errors import UserError
from tvmmobile.system.scratch import scratch_folder
from tvmmobile.system.workers import worker_count

#: Why libraries are not checked where the user does not want it.
NO_CHECK = "--no-check"


@overload
def compile_models(
    models: Model,
    device: str | Device = ...,
    *,
    threads: int = ...,
    dtype: str = ...,
    io_dtype: str = ...,
    max_error: float | None = ...,
    calibrate: str | Path | None = ...,
    keep: Sequence[str] = ...,
    max_drop: str | None = ...,
    out: str | Path | None = ...,
    logs: str | Path | None = ...,
    dump_ir: str | Path | None = ...,
    format: str = ...,
    archive: bool = ...,
    image: Normalisation | None = ...,
    check: bool = ...,
    dask: str | None = ...,
    listener: Listener = ...,
) -> CompiledLibrary: ...


@overload
def compile_models(
    models: Sequence[Model] | Callable[[], Sequence[Model]],
    device: str | Device = ...,
    *,
    threads: int = ...,
    dtype: str = ...,
    io_dtype: str = ...,
    max_error: float | None = ...,
    calibrate: str | Path | None = ...,
    keep: Sequence[str] = ...,
    max_drop: str | None = ...,
    out: str | Path | None = ...,
    logs: str | Path | None = ...,
    dump_ir: str | Path | None = ...,
    format: str = ...,
    archive: bool = ...,
    image: Normalisation | None = ...,
    check: bool = ...,
    dask: str | None = ...,
    listener: Listener = ...,
) -> list[CompiledLibrary]: ...


def compile_models(
    models: Models,
    device: str | Device = "pi4",
    *,
    threads: int = 1,
    dtype: str = FLOAT32.name,
    io_dtype: str = FLOAT32.name,
    max_error: float | None = None,
    calibrate: str | Path | None = None,
    keep: Sequence[str] = (),
    max_drop: str | None = None,
    out: str | Path | None = None,
    logs: str | Path | None = None,
    dump_ir: str | Path | None = None,
    format: str = C,  # noqa: A002
    archive: bool = False,
    image: Normalisation | None = None,
    check: bool = True,
    dask: str | None = None,
    listener: Listener = QUIET,
) -> CompiledLibrary | list[CompiledLibrary]:
    """Compile networks from the tuning logs alone; kernels without records take the nearest shape's schedule.

    Args:
        models: one network, several, or what loads them once everything else has been checked.
        device: its name, or what `find_device` returns.
        threads: of the libraries.
        dtype: what kernels compute in, `float32`, `float16` or `int8`.
        io_dtype: what the libraries take and return, `float32` or the same.
        max_error: keep layers in float32 until an estimate of the output's error is no more than this share of its largest magnitude.
        calibrate: images or inputs that give `int8` its scales: a folder, a `.npy` or a `.npz`; for generated weights also `noise:N`.
        keep: layers that stay in float32 beside `int8`: their numbers or names in the float32 network, in which `*` stands for anything.
        max_drop: keep layers in float32 until the output's noise is as far below its signal on the calibration data as `30dB`; or with `1%`
            until top-1 loses no more points on these, or, where they are not in class folders, no more of them get another class.
        out: where they go, each with its manifest and reference; without it, a folder that lasts as long as this process.
        logs: read this directory alone; without it, the shipped logs and the user's own.
        dump_ir: where to write the module after each graph pass.
        format: `c` for libraries and C headers that need nothing else, `vm` for TVM's virtual machine.
        archive: write static libraries as well; `c` alone.
        image: let libraries take images too; `c` alone, with pixels normalised like this.
        check: run each library once on its reference input, under QEMU, before it is written to `out`. Manifests say whether that was done.
        dask: address of a Dask scheduler whose workers compile.

    Returns:
        The library of one network, or a list of libraries in the order of `models`.

    Raises:
        UserError: an argument is wrong, or a network cannot be compiled.
        Disagreement: a library does not compute what its reference computes; it is not written then.
    """
    if logs is not None and not Path(logs).is_dir():
        raise UserError(f"--logs {logs} does not exist, so there are no records.", "Name a directory that tvmmobile tune wrote to.")
    folder = scratch_folder("libraries") if out is None else Path(out)
    request = request_of(
        threads=threads,
        dtype=dtype,
        io_dtype=io_dtype,
        max_error=max_error,
        calibrate=calibrate,
        keep=keep,
        max_drop=max_drop,
        out=folder,
        logs=logs,
        dump_ir=dump_ir,
        form=format,
        archive=archive,
        image=image,
    )
    why = "" if check else NO_CHECK
    jobs = [replace(job, unchecked=why) for job in request.jobs(models, device_of(device).profile)]
    with started_workers(worker_count(len(jobs)), dask=dask) as workers, listener.stage("compiling", len(jobs)) as done:
        libraries = [CompiledLibrary(**vars(library)) for library in build_libraries(workers, jobs, done, listener.said)]
    return libraries[0] if isinstance(models, Model) else libraries
