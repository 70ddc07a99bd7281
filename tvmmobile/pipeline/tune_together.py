"""Tunes networks for several devices, and compiles libraries with the kernels of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack, cast

from tvmmobile.devices.protocol import Device
from tvmmobile.pipeline.compile import check_fixed_threads, compile_models
from tvmmobile.pipeline.listener import QUIET, Listener
from tvmmobile.pipeline.options.call import with_options
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.options.option import options_of
from tvmmobile.pipeline.options.run import CompileArguments, RunOptions
from tvmmobile.pipeline.options.search import SearchOptions, TuneArguments
from tvmmobile.pipeline.request import Models, devices_of, jobs_for
from tvmmobile.pipeline.tune import tune
from tvmmobile.pipeline.tuned import TunedResults, TunedTogether
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.logs.directories import log_dirs

#: Keywords that `compile_models` takes as well.
_COMPILED = frozenset(each.keyword for _, each in options_of(LibraryOptions, RunOptions))


@with_options(LibraryOptions, RunOptions, SearchOptions)
def tune_together(
    models: Models, devices: str | Device | Sequence[str | Device], *, listener: Listener = QUIET, **options: Unpack[TuneArguments]
) -> TunedTogether:
    """Tune networks on each device as `tune` does, then compile libraries with the kernels of each, as `compile` does.

    Args:
        models: one network, several, or what loads them once everything else has been checked.
        devices: one or several names, or devices from `find_device`; of one alone, this is what `tune` does.
        options: see `LibraryOptions`, `RunOptions` and `SearchOptions`, which `help` lists; `out` gets the libraries for all devices, and a
            folder for each device with its own.
        listener: is told of progress.

    Returns:
        What was measured on each device with its own libraries, and the libraries for all devices.

    Raises:
        UserError: an argument is wrong, or a network cannot be built.
        DeviceUnavailable: a device went away and did not come back.
        Disagreement: a library does not compute what PyTorch computes.
    """
    boards = devices_of(devices)
    if len(boards) == 1:
        alone = tune(models, boards[0], listener=listener, **options)
        return TunedTogether((alone,), alone.libraries)
    library, run = LibraryOptions.of(options), RunOptions.of(options)
    if SearchOptions.of(options).fresh:
        raise UserError("--fresh starts the log of one device.", "Name an empty directory with --logs DIR.")
    check_fixed_threads(library)
    out = run.folder()
    jobs = jobs_for(models, [board.profile for board in boards], library, out, log_dirs(run.logs), run.dump_ir)
    loaded = [job.model for job in jobs]
    results: list[TunedResults] = []
    for board in boards:
        own: TuneArguments = {**options, "out": out / board.profile.name}
        results.append(tune(loaded, board, listener=listener, **own))
    shared = cast(CompileArguments, {name: value for name, value in options.items() if name in _COMPILED})
    shared["out"] = out
    libraries = compile_models(loaded, boards, listener=listener, **shared)
    return TunedTogether(tuple(results), tuple(libraries))
