"""Checks a run's networks, device, options and folders, and makes its jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tvmmobile.devices.protocol import Device, DeviceProfile
from tvmmobile.devices.registry import device_names, find_device
from tvmmobile.devices.similar_cores import suitability
from tvmmobile.graph.precision import FLOAT32, INT8
from tvmmobile.networks.model import Model
from tvmmobile.networks.preprocessing import Normalisation, Preprocessing
from tvmmobile.networks.states import states_of
from tvmmobile.pipeline.integer_limits import check_calibrated
from tvmmobile.pipeline.job import VariantJob, variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.quantisation.data import SOURCES, CalibrationData, calibration_data
from tvmmobile.running.formats import C
from tvmmobile.system.arguments import one_or_several
from tvmmobile.system.errors import UserError, shown
from tvmmobile.system.files import check_writable
from tvmmobile.system.toolchain import toolchain
from tvmmobile.tuning.logs.directories import LogDirs

_A_DEVICE = (
    "Give one name, or what tvmmobile.find_device returns. tvmmobile.compile and tvmmobile.tune_together take several; "
    "tvmmobile.run and a library's run also take what tvmmobile.start yields."
)
#: A network, several, or a function that loads them once everything else has been checked.
Models = Model | Sequence[Model] | Callable[[], Sequence[Model]]


def models_of(models: Models) -> list[Model]:
    """Return a call's networks; raise `UserError` if there is none, one was not loaded, or the function that loads them fails."""
    is_module = hasattr(models, "forward")  # a PyTorch module can be called, and some can be iterated over
    given: Any = models() if callable(models) and not is_module else models
    found: list[Any] = [given] if is_module else list(one_or_several(given))
    if not found:
        raise UserError("no network was given.", "Give one that tvmmobile.load returns, or several.")
    for other in found:
        if not isinstance(other, Model):
            called = shown(other) if isinstance(other, str) else type(other).__name__
            raise UserError(f"{called} is not a loaded network.", "Load it with tvmmobile.load, and give what that returns.")
    return found


def devices_of(devices: str | Device | Sequence[str | Device]) -> list[Device]:
    """Return one or several devices; raise `UserError` for none, and for one that is named twice."""
    found = [device_of(device) for device in one_or_several(devices)]
    if not found:
        raise UserError("no device was given.", f"Name one of: {', '.join(device_names())}")
    names = [device.profile.name for device in found]
    if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UserError(f"--device names {repeated[0]} twice.", "Name each board once.")
    return found


def device_of(device: str | Device) -> Device:
    """Return the device of that name, if it is a name; see `find_device`. Raise `UserError` for anything but a name or a device."""
    if isinstance(device, str):
        return find_device(device)
    if not hasattr(device, "started"):
        raise UserError(f"{type(device).__name__} is not a device here.", _A_DEVICE)
    return device


def jobs_of(
    models: Models, profile: DeviceProfile, options: LibraryOptions, out: Path, logs: LogDirs, dump_ir: Path | None
) -> list[VariantJob]:
    """Return one job per network; raise `UserError` for everything that can be checked before any work.

    Args:
        out: folder of the libraries.
        logs: logs whose records count.
        dump_ir: folder for dumped modules.
    """
    options.check(profile)
    check_writable(out, "--out")
    if dump_ir is not None:
        check_writable(dump_ir, "--dump-ir")
    toolchain(profile.target)
    found = models_of(models)
    for model in found if options.weights != FLOAT32.name else []:
        if model.quantised:
            raise UserError(
                f"{model.own} has its weights in integers already.", f"Leave out --weights; --dtype {INT8.name} stores them as they are."
            )
    for model in found if options.image else []:
        _check_takes_images(model)
    for model in found:
        states_of(model.spec, options.stateful)
    jobs = [variant_job(model, profile, logs.all, out, options, dump_ir, _calibration(model, options)) for model in found]
    _check_names(jobs)
    return jobs


def _check_names(jobs: Sequence[VariantJob]) -> None:
    """Raise `UserError` if two libraries would be one file."""
    stems = [job.stem for job in jobs]
    for job, stem in zip(jobs, stems, strict=True):
        if stems.count(stem) > 1:
            raise UserError(
                f"two networks are called {job.library.spec.variant}.",
                "Give each another name: load(…, name=…) names a module, and a file's name is that of its network.",
            )


def jobs_for(
    models: Models, profiles: Sequence[DeviceProfile], options: LibraryOptions, out: Path, logs: LogDirs, dump_ir: Path | None
) -> list[VariantJob]:
    """Return one job per network, each for a library that holds the kernels of several devices; see `jobs_of`.

    Modules are dumped for the first device.
    """
    first, *others = profiles
    if not others:
        return jobs_of(models, first, options, out, logs, dump_ir)
    if options.format != C:
        raise UserError("a library for several devices must be a C library.", "Leave out --format, or give one --device.")
    if options.max_drop is not None:
        raise UserError(
            "--max-drop chooses layers by their latency on one device.",
            "Compile for one device, then name the layers that it keeps in float32 with --keep.",
        )
    suited = suitability(profiles)
    found = models_of(models)
    jobs = [jobs_of(found, profile, options, out, logs, None if place else dump_ir) for place, profile in enumerate(profiles)]
    return [replace(whole, others=tuple(rest), suitability=suited) for whole, *rest in zip(*jobs, strict=True)]


def _calibration(model: Model, options: LibraryOptions) -> CalibrationData | None:
    """Return a network's calibration data; raise `UserError` for integers without any, and for a network that has scales already."""
    if not options.precision.is_integer:
        return None
    if model.quantised:
        for flag, given in (("--calibrate", options.calibrate), ("--max-drop", options.max_drop)):
            if given is not None:
                raise UserError(f"{model.own} is quantised already, so {flag} does not apply.", f"Leave out {flag}.")
        return None
    if options.calibrate is None:
        raise UserError(
            f"{options.precision.name} needs images to calibrate with.",
            f"Give --calibrate {SOURCES}; a few hundred images like those the network will see are enough.",
        )
    numbers, spec, limit = options.image or Normalisation(), model.spec, options.limit()
    check_calibrated(spec)
    if limit is not None and limit.unit == "%" and not spec.scored_classes:
        found = ", ".join(map(str, spec.returns))
        raise UserError(
            f"--max-drop {limit} counts classes, and {spec.variant} returns no scores of classes, but {found}.",
            "Give a signal-to-noise ratio, such as --max-drop 30dB.",
        )
    preprocessing = Preprocessing(spec.resolution, numbers.mean, numbers.std, channels=spec.channels, shape=spec.odd_shape)
    return calibration_data(options.calibrate, preprocessing, generated=model.checkpoint is None and model.own is None, takes=spec.takes)


def _check_takes_images(model: Model) -> None:
    """Raise `UserError` for a network whose input is not a square image of three channels."""
    spec = model.spec
    if spec.odd_shape:
        inputs = ", ".join(map(str, spec.takes))
        raise UserError(f"{spec.variant} takes {inputs}; --image needs one square input in {FLOAT32.name}.", "Leave out --image.")
    if spec.channels != 3:
        raise UserError(f"{spec.variant} takes {spec.channels} channels; images have 3.", "Leave out --image.")
