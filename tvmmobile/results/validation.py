"""Keeps latencies of a real board and its model in a versioned file that is small enough to share.

It describes the board but not its owner: no names of hosts, users or files, no addresses, no serial numbers. The JSON Schema in
docs/schemas is made of the dataclasses here, docstrings and ranges included (`tests/results/test_schemas.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from tvmmobile.results.file import Count, NotNegative, Positive, PositiveCount
from tvmmobile.system.files import write_text
from tvmmobile.system.json_files import FileKind, check_version, read_json, validated
from tvmmobile.virtual.calibration.fit import Observation, Phase
from tvmmobile.virtual.calibration.residuals import TermError
from tvmmobile.virtual.profile import MissCounts

FORMAT = 2
_KIND = FileKind(
    "a validation of tvmmobile",
    "Name a file that `tvmmobile device validate` wrote, or another name with --out FILE.",
    "tvmmobile device validate NAME --out FILE",
)
_STRICT = ConfigDict(strict=True, extra="forbid")
_Correlation = Annotated[float, Field(ge=-1, le=1)]
_Text = Annotated[str, Field(max_length=200)]
_Milliseconds = Annotated[float, Field(ge=1e-6, le=1e9)]


@dataclass(frozen=True)
class ValidatedBoard:
    """The board that was measured, as it describes itself.

    Attributes:
        board: the product, e.g. `Raspberry Pi 4 Model B Rev 1.4`.
        cpu: its fastest core, e.g. `Cortex-A72`.
        mcpu: LLVM's name of that core.
        cores: number of such cores.
        clock_hz: that core's highest clock in Hz, at which the model is computed; the virtual board's clock if the machine hides its own.
        memory_bytes: size of RAM.
        system: the operating system's name and version.
        kernel: version of the operating system's kernel.
        libc: C library, e.g. `glibc 2.36`; empty if unknown.
        kind: `measured` by the board's clock, or `emulated`, by the clock of a machine that runs the board's programs in an emulator.
        pinned: true if its clocks were set to stay at their maximum.
    """

    __pydantic_config__ = _STRICT

    board: _Text
    cpu: _Text
    mcpu: _Text
    cores: PositiveCount
    clock_hz: Annotated[float, Field(ge=1, le=1e12)]
    memory_bytes: Count
    system: _Text
    kernel: _Text
    libc: _Text
    kind: Literal["measured", "emulated"]
    pinned: bool


@dataclass(frozen=True)
class ValidatedModel:
    """The virtual board that was compared with the real one.

    Attributes:
        board: name of the board, e.g. `pi4`; `own file` for one of the user's own.
        timing_model: hash of the timing model.
        parameters: parameters of the model's terms, by name.
    """

    __pydantic_config__ = _STRICT

    board: _Text
    timing_model: _Text
    parameters: Mapping[str, NotNegative]


@dataclass(frozen=True)
class ValidatedPhase:
    """The sum of a run's phases in which memory was about equally busy.

    Attributes:
        core_cycles: modelled core cycles.
        misses: counts of the simulated caches, by kind.
    """

    __pydantic_config__ = _STRICT

    core_cycles: Count
    misses: Mapping[str, Count]


@dataclass(frozen=True)
class ValidationPoint:
    """One kernel or network: its time on the board, and the model's counts for the same library.

    Attributes:
        name: name in the suite, e.g. `depthwise 28x28x128`.
        kind: `kernel`, run repeatedly by itself, or `network`.
        measured_ms: the median of the samples, in milliseconds.
        samples: number of samples.
        spread: interquartile range over the median.
        steady: true if the times had settled before the first sample.
        invalid: reason why the point does not count, in words; empty if it does.
        library_sha256: SHA-256 of the library that ran on both, in hexadecimal.
        core_cycles: modelled cycles with all data in the first-level cache.
        misses: counts of the simulated caches, by kind.
        modelled_ms: the modelled time in milliseconds, at the board's clock.
        term_ms: terms of the modelled time in milliseconds, by name.
        phases: the phases that add up to `core_cycles` and `misses`; empty if the model does not distinguish phases of a run.
    """

    __pydantic_config__ = _STRICT

    name: _Text
    kind: Literal["kernel", "network"]
    measured_ms: _Milliseconds
    samples: PositiveCount
    spread: NotNegative
    steady: bool
    invalid: _Text
    library_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    core_cycles: PositiveCount
    misses: Mapping[str, Count]
    modelled_ms: Positive
    term_ms: Mapping[str, NotNegative]
    phases: tuple[ValidatedPhase, ...]

    @property
    def error(self) -> float:
        """Modelled over measured, minus 1."""
        return self.modelled_ms / self.measured_ms - 1

    def observed_on(self, board: str) -> Observation:
        """Return the point as an observation for calibrating a model of that name."""
        phases = tuple(Phase(phase.core_cycles, MissCounts(**phase.misses)) for phase in self.phases)
        return Observation(board, self.name, self.measured_ms, self.core_cycles, MissCounts(**self.misses), phases)


@dataclass(frozen=True)
class Validation:
    """A real board compared with its model; the file that `tvmmobile device validate` writes.

    Attributes:
        version: version of this format.
        complete: true if the whole suite is included; false if the run was interrupted or failed.
        suite: the version of the suite of kernels and networks.
        measured: the board that was measured.
        model: the virtual board that was compared with it.
        versions: versions of tvmmobile, tvm, torch and llvm-mca.
        date: time of the last measurement, ISO 8601, UTC.
        points: the kernels, then the networks.
        kernel_ranks: Spearman's rank correlation between modelled and measured times of the kernels; `None` for too few.
        network_ranks: the same for the networks.
        terms: share of the errors that each term would explain if it alone were wrong, largest first.
    """

    __pydantic_config__ = _STRICT

    version: int
    complete: bool
    suite: PositiveCount
    measured: ValidatedBoard
    model: ValidatedModel
    versions: Mapping[str, _Text]
    date: _Text
    points: tuple[ValidationPoint, ...]
    kernel_ranks: _Correlation | None
    network_ranks: _Correlation | None
    terms: tuple[TermError, ...]

    def valid(self, kind: str = "") -> list[ValidationPoint]:
        """Return the points that count, of one kind or of both."""
        return [point for point in self.points if not point.invalid and kind in ("", point.kind)]


def write_validation(validation: Validation, path: Path) -> None:
    """Write a validation, whole."""
    write_text(path, json.dumps(asdict(validation), ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def read_validation(path: str | Path) -> Validation:
    """Return the validation in the file at `path`, which `validate_device` wrote.

    Raises:
        UserError: it is something else, or of another version.
    """
    path = Path(path)
    text, content = read_json(path, _KIND)
    check_version(path, _KIND, content, (FORMAT,), ())
    validation = validated(path, _KIND, text, Validation)
    kinds = {field.name for field in fields(MissCounts)}
    for index, point in enumerate(validation.points):
        counted = {f"points[{index}]": point.misses}
        counted |= {f"points[{index}].phases[{number}]": phase.misses for number, phase in enumerate(point.phases)}
        for place, misses in counted.items():
            if misses.keys() != kinds:
                raise _KIND.refusal(path, f"{place}.misses has other kinds than {', '.join(sorted(kinds))}")
        if point.term_ms.keys() != {"core", *validation.model.parameters}:
            raise _KIND.refusal(path, f"points[{index}].term_ms has other terms than the model")
    _check_names(path, validation.points)
    return validation


def _check_names(path: Path, points: Sequence[ValidationPoint]) -> None:
    names = [point.name for point in points]
    if len(set(names)) < len(names):
        raise _KIND.refusal(path, "a point appears twice")
