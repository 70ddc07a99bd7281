"""Options that determine a library: its threads, its number format, and the form of its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from tvmmobile.graph.precision import FLOAT32, INT8, SMALL_WEIGHTS, Precision, precision_named
from tvmmobile.networks.preprocessing import Normalisation
from tvmmobile.pipeline.options.image import MEAN, STD, normalisation_for
from tvmmobile.pipeline.options.option import HelpOrder, Options, option, option_of_several
from tvmmobile.running.formats import FORMS, C
from tvmmobile.system.errors import UserError

if TYPE_CHECKING:
    from tvmmobile.devices.protocol import DeviceProfile
    from tvmmobile.quantisation.limit import Limit


#: `threads` of libraries for several counts, of which the fastest is found by timing.
BEST = 0
#: Most threads among which a C library shares its work: `MOST_THREADS` in native/runtime.c.
MOST_C_THREADS = 32


def _thread_count(given: int | str) -> int:
    """Return a number of threads, or `BEST`; raise `UserError` for other texts."""
    if given == "best":
        return BEST
    if not str(given).isdecimal() or int(given) < 1:
        raise UserError(f"--threads {given} is not a number of threads.", "Give --threads 1 or more, or best.")
    return int(given)


@dataclass(frozen=True)
class LibraryOptions(Options):
    """Options of a library."""

    threads: int = option(
        1,
        "--threads, --num-threads N",
        "Number of threads the library runs on; best: tune for 1, 2, 4, … until more are slower.",
        order=HelpOrder.NUMBERS,
        cli_type=str,
        cli_default="1",
        from_cli=lambda words: int(words) if words.isdecimal() else words,
        parse=_thread_count,
    )
    precision: Precision = option(
        FLOAT32.name,
        "--dtype NAME",
        "What kernels compute in: float32, int8 (with --calibrate, or for a quantised network), or, on cores that have it, float16 "
        "(A55, A76, …) or bfloat16 (A710, X2, …).",
        keyword="dtype",
        parse=precision_named,
    )
    io_precision: Precision = option(
        FLOAT32.name,
        "--io-dtype NAME",
        "Type of the library's input and output: float32, or float16 with --dtype float16.",
        keyword="io_dtype",
        parse=precision_named,
    )
    max_error: float | None = option(
        None,
        "--max-error SHARE",
        "Keep layers in float32 until the output's estimated error is at most this share of its largest magnitude, such as 0.01.",
    )
    calibrate: str | None = option(
        None,
        "--calibrate PATH",
        "Data that give int8 its scales: a folder of images, a .npy or .npz of inputs, or noise:N for generated weights.",
        parse=lambda given: None if given is None else str(given),
    )
    keep: tuple[str, ...] = option_of_several(
        (),
        "--keep LAYER",
        "Keep a layer in float32 beside int8: its number, or its name, where * matches anything.",
        api_doc="Layers to keep in float32 beside int8: their numbers, or their names in the float32 network, where `*` matches anything.",
    )
    max_drop: str | None = option(
        None,
        "--max-drop LIMIT",
        "Keep layers in float32 beside int8 until the output's noise is as far below its signal as 30dB, "
        "or top-1 loses at most 1% (without labels: at most 1% get another class).",
    )
    weights: str = option(
        FLOAT32.name,
        "--weights NAME",
        "Type in which float32 libraries store the weights of large layers: float32, float16, or int8 with a scale for each channel.",
    )
    format: str = option(
        C,
        "--format NAME",
        "c (default): libraries with C headers that need nothing else; vm: libraries for TVM's virtual machine.",
        order=HelpOrder.FILES,
    )
    archive: bool = option(False, "--archive", "Also write static libraries (.a); C libraries only.")
    stateful: tuple[str, ...] = option_of_several(
        (),
        "--stateful INPUT=OUTPUT",
        "Keep an input in the C library between calls, where the output is the next one; NAME is enough for a LiteRT file's variable.",
        api_doc="Inputs that the C library keeps between calls, each as `input=output`, where the output is the next one; "
        "the name is enough for a LiteRT file's variable.",
    )
    image: Normalisation | None = option(
        None,
        "--image",
        "Let C libraries take RGB images and camera frames, and rank classes.",
        cli_type=bool,
        cli_default=False,
        extra_cli_options=(MEAN, STD),
        from_cli=normalisation_for,
        api_doc="Let C libraries take RGB images and camera frames, normalised like this, and rank classes.",
    )

    def limit(self) -> Limit | None:
        """Return `max_drop` as a limit; raise `UserError` where it cannot be read."""
        from tvmmobile.quantisation.limit import limit_of  # with NumPy, which `--help` does without

        return None if self.max_drop is None else limit_of(self.max_drop, self.calibrate or "")

    def check(self, profile: DeviceProfile) -> None:
        """Raise `UserError` for options that exclude each other, and for those that a device does not support."""
        check_threads(self.threads, profile)
        if self.format == C and self.threads > MOST_C_THREADS:
            raise UserError(
                f"a C library shares its work among at most {MOST_C_THREADS} threads, not {self.threads}.",
                f"Give --threads {MOST_C_THREADS} or fewer.",
            )
        _check_precision(self.precision, profile)
        self._check_calibration()
        name, ends, whole = self.precision.name, self.io_precision, self.precision.is_integer
        if ends not in (FLOAT32, *[self.precision] * (not whole and not self.precision.computes)):
            remedy = "Leave out --io-dtype." if ends.is_integer or ends.computes else f"Give --dtype {ends.name} as well."
            raise UserError(f"libraries in {name} cannot take and return {ends.name}.", remedy)
        if self.max_error is not None and (self.precision == FLOAT32 or whole or not 0 < self.max_error <= 1):
            raise UserError(
                "--max-error bounds the error of float16 or bfloat16, as a share above 0 and up to 1.",
                "Give --dtype float16, and a share such as 0.01.",
            )
        self._check_weights()
        if self.image and ends != FLOAT32:
            raise UserError(f"--image gives the network {FLOAT32.name}.", "Leave out --image or --io-dtype.")
        if self.format not in FORMS:
            raise UserError(f"format {self.format!r} is not known.", f"Give --format one of: {', '.join(FORMS)}.")
        for flag, given in (("--archive", self.archive), ("--stateful", self.stateful), ("--image", self.image)):
            if given and self.format != C:
                raise UserError(f"{flag} is for C libraries.", "Leave out --format, or give --format c.")

    def _check_weights(self) -> None:
        """Raise `UserError` for a type that weights cannot have, or that the precision excludes."""
        known = (FLOAT32.name, *SMALL_WEIGHTS)
        if self.weights not in known:
            raise UserError(f"weights cannot be stored in {self.weights}.", f"Give --weights one of: {', '.join(known)}.")
        if self.weights != FLOAT32.name and self.precision != FLOAT32:
            raise UserError(
                f"--weights is for libraries that compute in {FLOAT32.name}, and --dtype is {self.precision.name}.",
                "Leave out one of them.",
            )

    def _check_calibration(self) -> None:
        """Raise `UserError` for calibration data without integers."""
        if self.calibrate is not None and not self.precision.is_integer:
            raise UserError(
                f"--calibrate is for {INT8.name}, and --dtype is {self.precision.name}.", f"Leave it out, or give --dtype {INT8.name}."
            )
        if (self.keep or self.max_drop is not None) and not self.precision.is_integer:
            raise UserError(f"--keep and --max-drop are for {INT8.name}.", f"Leave them out, or give --dtype {INT8.name}.")
        self.limit()


class LibraryArguments(TypedDict, total=False):
    """For type checkers: the keywords of calls that take `LibraryOptions`; a test holds them equal."""

    threads: int | Literal["best"]
    dtype: str
    io_dtype: str
    max_error: float | None
    calibrate: str | Path | None
    keep: str | Sequence[str]
    max_drop: str | None
    weights: str
    format: str
    archive: bool
    stateful: str | Sequence[str]
    image: Normalisation | None


def check_threads(threads: int, profile: DeviceProfile, act: str = "Give") -> None:
    """Raise `UserError` for a thread count the device cannot run; `act` is what the user does with a smaller one."""
    if threads > profile.cores:
        raise UserError(
            f"{threads} threads exceed the {profile.cores} cores of {profile.board}.", f"{act} --threads {profile.cores} or fewer."
        )


def _check_precision(precision: Precision, profile: DeviceProfile) -> None:
    """Raise `UserError` for a precision that the device's core does not compute in."""
    if precision.requires and precision.requires not in profile.machine.has:
        raise UserError(
            f"{precision.name} needs arithmetic that the {profile.mcpu} of {profile.board} does not have.",
            f"Leave --dtype out: {FLOAT32.name} runs on every core.",
        )
