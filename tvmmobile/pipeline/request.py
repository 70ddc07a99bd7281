"""The arguments of a run: networks, a device, threads and folders, all checked before any work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tvmmobile.devices.protocol import Device, DeviceProfile
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.precision import FLOAT32, INT8, Precision, precision_named
from tvmmobile.networks.model import Model
from tvmmobile.networks.preprocessing import Normalisation, Preprocessing
from tvmmobile.pipeline.job import VariantJob, variant_job
from tvmmobile.quantisation.data import SOURCES, CalibrationData, calibration_data
from tvmmobile.quantisation.mixed import limit_of
from tvmmobile.running.formats import FORMS, C
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import check_writable
from tvmmobile.system.toolchain import toolchain
from tvmmobile.tuning.logs.directories import LogDirs, log_dirs

#: A network, several, or a function that loads them once everything else has been checked.
Models = Model | Sequence[Model] | Callable[[], Sequence[Model]]


def models_of(models: Models) -> list[Model]:
    """All of them, loaded; raises `UserError` if there is none, or one cannot be loaded."""
    found = [models] if isinstance(models, Model) else list(models() if callable(models) else models)
    if not found:
        raise UserError("no network was given.", "Give one that tvmmobile.load returns, or several.")
    return found


def device_of(device: str | Device) -> Device:
    """The device of that name, if it is a name; see `find_device`."""
    return find_device(device) if isinstance(device, str) else device


@dataclass(frozen=True)
class Request:
    """Arguments shared by `tune` and `compile_models`.

    Attributes:
        threads, form: of the libraries.
        out: where they go.
        logs: whose records count.
        dump_ir: where to dump modules.
        archive: write static libraries as well.
        image: let C libraries take images too, normalised like this.
        dtype: name of the precision that kernels compute in.
        io_dtype: name of the one that libraries take and return: float32 or the same.
        max_error: see `VariantJob`.
        calibrate: a folder, a file or `noise:N`, see `calibration_data`; for integers.
        keep: names or numbers of layers that stay in float32, see `chosen_layers`; for integers.
        max_drop: how much accuracy they may cost, such as `30dB` or `1%`; see `limit_of`.
    """

    threads: int
    out: Path
    logs: LogDirs
    dump_ir: Path | None = None
    form: str = C
    archive: bool = False
    image: Normalisation | None = None
    dtype: str = FLOAT32.name
    io_dtype: str = FLOAT32.name
    max_error: float | None = None
    calibrate: str | None = None
    keep: tuple[str, ...] = ()
    max_drop: str | None = None

    def jobs(self, models: Models, profile: DeviceProfile) -> list[VariantJob]:
        """One job per network; raises `UserError` for everything that can be checked before any work."""
        check_threads(self.threads, profile)
        precision = precision_named(self.dtype)
        check_precision(precision, profile)
        self._check_calibration(precision)
        if self.io_dtype not in (FLOAT32.name, *[self.dtype] * (not precision.is_integer)):
            raise UserError(f"libraries in {self.dtype} cannot take and return {self.io_dtype}.", _other_ends(self.io_dtype))
        if self.max_error is not None and (self.dtype == FLOAT32.name or precision.is_integer or not 0 < self.max_error <= 1):
            raise UserError(
                "--max-error bounds the error of float16, as a share above 0 and up to 1.",
                "Give --dtype float16, and a share such as 0.01.",
            )
        if self.image and self.io_dtype != FLOAT32.name:
            raise UserError(f"--image gives the network {FLOAT32.name}.", "Leave out --image or --io-dtype.")
        if self.form not in FORMS:
            raise UserError(f"format {self.form!r} is not known.", f"Give --format one of: {', '.join(FORMS)}.")
        for option, given in (("--archive", self.archive), ("--image", self.image)):
            if given and self.form != C:
                raise UserError(f"{option} is for C libraries.", "Leave out --format, or give --format c.")
        check_writable(self.out, "--out")
        if self.dump_ir is not None:
            check_writable(self.dump_ir, "--dump-ir")
        toolchain(profile.target)
        place = (self.out, self.threads, self.dump_ir)
        found = models_of(models)
        for model in found if self.image else []:
            _check_takes_images(model)
        job = partial(variant_job, precision=precision, form=self.form, archive=self.archive, image=self.image)
        job = partial(job, io_dtype=self.io_dtype, max_error=self.max_error, keep=self.keep)
        return [job(model, profile, self.logs.all, *place, calibration=self._calibration(model)) for model in found]

    def _check_calibration(self, precision: Precision) -> None:
        """Raises `UserError` for calibration data without integers."""
        if self.calibrate is not None and not precision.is_integer:
            raise UserError(f"--calibrate is for {INT8.name}, and --dtype is {self.dtype}.", f"Leave it out, or give --dtype {INT8.name}.")
        if (self.keep or self.max_drop is not None) and not precision.is_integer:
            raise UserError(f"--keep and --max-drop are for {INT8.name}.", f"Leave them out, or give --dtype {INT8.name}.")
        if self.max_drop is not None:
            limit_of(self.max_drop)

    def _calibration(self, model: Model) -> CalibrationData | None:
        """Where a network's calibration data are; raises `UserError` for integers without any, or for a network that has scales already."""
        if not precision_named(self.dtype).is_integer:
            return None
        if model.quantised:
            for option, given in (("--calibrate", self.calibrate), ("--max-drop", self.max_drop)):
                if given is not None:
                    raise UserError(f"{model.own} is quantised already, so {option} does not apply.", f"Leave out {option}.")
            return None
        if self.calibrate is None:
            raise UserError(
                f"{self.dtype} needs images to calibrate with.",
                f"Give --calibrate {SOURCES}; a few hundred images like those the network will see are enough.",
            )
        numbers, spec = self.image or Normalisation(), model.spec
        limit = None if self.max_drop is None else limit_of(self.max_drop)
        if limit is not None and limit.unit == "%" and not spec.returns[0].classes:
            raise UserError(
                f"--max-drop {limit} counts classes, and {spec.variant} returns no scores of classes, but {spec.returns[0]}.",
                "Give a signal-to-noise ratio, such as --max-drop 30dB.",
            )
        preprocessing = Preprocessing(spec.resolution, numbers.mean, numbers.std, channels=spec.channels, shape=spec.odd_shape)
        data = calibration_data(self.calibrate, preprocessing, generated=model.checkpoint is None and model.own is None)
        return replace(data, keep=self.keep, max_drop=limit)


def request_of(
    *,
    out: Path,
    logs: str | Path | None,
    fresh: bool = False,
    dump_ir: str | Path | None,
    calibrate: str | Path | None,
    keep: Sequence[str],
    **others: Any,
) -> Request:
    """A request with the arguments of the Python API, see `tune`; raises `UserError` for `logs` that `fresh` excludes.

    Args:
        fresh: the log is below `out`.
        others: the other fields of `Request`.
    """
    directories = log_dirs(None if logs is None else Path(logs), out if fresh else None)
    dump = None if dump_ir is None else Path(dump_ir)
    source = None if calibrate is None else str(calibrate)
    return Request(out=out, logs=directories, dump_ir=dump, calibrate=source, keep=tuple(keep), **others)


def _other_ends(io_dtype: str) -> str:
    return "Leave out --io-dtype." if precision_named(io_dtype).is_integer else f"Give --dtype {io_dtype} as well."


def _check_takes_images(model: Model) -> None:
    """Raises `UserError` for a network whose input is not a square image of three channels."""
    spec = model.spec
    if spec.odd_shape:
        there = ", ".join(map(str, spec.takes))
        raise UserError(f"{spec.variant} takes {there}; --image needs one square input in {FLOAT32.name}.", "Leave out --image.")
    if spec.channels != 3:
        raise UserError(f"{spec.variant} takes {spec.channels} channels; images have 3.", "Leave out --image.")


def check_threads(threads: int, profile: DeviceProfile) -> None:
    """Raises `UserError` for a thread count the device cannot run."""
    if threads > profile.cores:
        raise UserError(f"{threads} threads exceed the {profile.cores} cores of {profile.board}.", "Give a smaller --threads.")


def check_precision(precision: Precision, profile: DeviceProfile) -> None:
    """Raises `UserError` for a precision that the device's core does not compute in."""
    if precision.requires and precision.requires not in profile.machine.has:
        raise UserError(
            f"{precision.name} needs arithmetic that the {profile.mcpu} of {profile.board} does not have.",
            f"Leave --dtype out: {FLOAT32.name} runs on every core.",
        )
