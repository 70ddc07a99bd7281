"""Compiles networks to libraries from the tuning logs alone; needs no device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Unpack, overload

from tvmmobile.devices.protocol import Device
from tvmmobile.networks.model import Model
from tvmmobile.pipeline.cluster.start import started_workers
from tvmmobile.pipeline.compiled_library import CompiledLibrary
from tvmmobile.pipeline.listener import QUIET, Listener, tell
from tvmmobile.pipeline.options.call import with_options
from tvmmobile.pipeline.options.library import BEST, LibraryOptions
from tvmmobile.pipeline.options.run import CompileArguments, CompileOptions
from tvmmobile.pipeline.request import Models, devices_of, jobs_for
from tvmmobile.pipeline.sentences import fewer_threads, without_baseline
from tvmmobile.pipeline.stages.building import build_libraries
from tvmmobile.system.errors import UserError
from tvmmobile.system.workers import worker_count
from tvmmobile.tuning.logs.directories import log_dirs

#: One or several devices, by name or as `find_device` returns them.
Devices = str | Device | Sequence[str | Device]


@overload
def compile_models(
    models: Model, device: Devices = ..., *, listener: Listener = ..., **options: Unpack[CompileArguments]
) -> CompiledLibrary:
    """Compile one network."""


@overload
def compile_models(
    models: Sequence[Model] | Callable[[], Sequence[Model]],
    device: Devices = ...,
    *,
    listener: Listener = ...,
    **options: Unpack[CompileArguments],
) -> list[CompiledLibrary]:
    """Compile several networks."""


@with_options(LibraryOptions, CompileOptions, name="compile")
def compile_models(
    models: Models, device: Devices = "pi4", *, listener: Listener = QUIET, **options: Unpack[CompileArguments]
) -> CompiledLibrary | list[CompiledLibrary]:
    """Compile networks from the tuning logs alone; kernels without records take the nearest shape's schedule.

    Args:
        models: one network, several, or a function that loads them, called once everything else has been checked.
        device: its name, or what `find_device` returns; several for a library with the kernels of each, which takes those of the core that
            it runs on. Default: the virtual Raspberry Pi 4, unless a board is registered as `pi4`.
        options: see `LibraryOptions` and `CompileOptions`, which `help` lists.
        listener: is told of progress.

    Returns:
        The library of one network, or a list of libraries in the order of `models`.

    Raises:
        UserError: an argument is wrong, or a network cannot be compiled.
        Disagreement: a library does not compute what its reference computes; it is not written then.
    """
    library, run = LibraryOptions.of(options), CompileOptions.of(options)
    if run.logs is not None and not run.logs.is_dir():
        raise UserError(f"--logs {run.logs} does not exist, so there are no records.", "Name a directory that tvmmobile tune wrote to.")
    check_fixed_threads(library)
    planned = jobs_for(models, [each.profile for each in devices_of(device)], library, run.folder(), log_dirs(run.logs), run.dump_ir)
    jobs = [replace(job, unchecked="" if run.check else "--no-check", share_percent=run.share_weights) for job in planned]
    with started_workers(worker_count(len(jobs)), dask=run.dask) as workers, listener.stage("compiling", len(jobs)) as done:
        libraries = [CompiledLibrary.of(library) for library in build_libraries(workers, jobs, done, partial(tell, listener))]
    for one in libraries:
        for remark in (without_baseline(one.path.name, one.facts), fewer_threads(one.path.name, one.facts)):
            if remark:
                tell(listener, remark)
    return libraries[0] if isinstance(models, Model) else libraries


def check_fixed_threads(library: LibraryOptions) -> None:
    """Raise `UserError` for a number of threads that has to be found by timing."""
    if library.threads == BEST:
        raise UserError(
            "--threads best needs latencies on one device, and compile runs nothing.",
            "Give a number, or use: tvmmobile tune --threads best, with one --device",
        )
