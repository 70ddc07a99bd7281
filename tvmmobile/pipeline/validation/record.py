"""The record of a validation: started, resumed, extended, judged."""

from __future__ import annotations

import statistics
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tvmmobile import __version__
from tvmmobile.devices.board.hardware import HardwareDevice, fastest_cores
from tvmmobile.pipeline.validation.model import ComparedModel
from tvmmobile.pipeline.validation.suite import Suite
from tvmmobile.results.report.wording import clean
from tvmmobile.results.validation import FORMAT, ValidatedBoard, ValidatedPhase, Validation, ValidationPoint, read_validation
from tvmmobile.running.measure import Latency
from tvmmobile.system.environment import TVM_VERSION
from tvmmobile.system.errors import UserError
from tvmmobile.virtual.calibration.fit import Observation
from tvmmobile.virtual.calibration.residuals import observed_ms, spearman, term_errors
from tvmmobile.virtual.cores.mca import mca_version

#: Most characters of a board's own descriptions.
_MOST_TEXT = 100


def started_validation(device: HardwareDevice, model: ComparedModel, suite: Suite, out: Path) -> Validation:
    """Return a validation without points, or the one in `out` if it was made under the same conditions.

    Raises:
        UserError: `out` holds something else.
    """
    fresh = Validation(
        version=FORMAT,
        complete=False,
        suite=suite.version,
        measured=_measured_board(device, model),
        model=model.description,
        versions={"tvmmobile": __version__, "tvm": TVM_VERSION, "torch": version("torch"), "llvm-mca": mca_version()},
        date="",
        points=(),
        kernel_ranks=None,
        network_ranks=None,
        terms=(),
    )
    if not out.is_file():
        return fresh
    found = read_validation(out)
    others = [field for field in ("suite", "measured", "model", "versions") if getattr(found, field) != getattr(fresh, field)]
    if others:
        raise UserError(
            f"{out} was made under other conditions ({', '.join(others)}), so nothing can be added to it.",
            "Name another file with --out FILE, or remove this one to measure everything anew.",
        )
    if unknown := {point.name for point in found.points} - set(suite.names):
        raise UserError(f"{out} holds {min(unknown)!r}, which is not in the suite.", "Name another file with --out FILE.")
    return found


def _measured_board(device: HardwareDevice, model: ComparedModel) -> ValidatedBoard:
    profile, facts = device.profile, device.file.boards[0].facts

    def shortened(text: str) -> str:
        return clean(text)[:_MOST_TEXT]

    return ValidatedBoard(
        board=shortened(facts.model or fastest_cores(device.file.boards[0])[0].product),
        cpu=profile.cpu,
        mcpu=profile.mcpu,
        cores=profile.cores,
        clock_hz=model.clocked.clock_hz,
        memory_bytes=facts.memory_bytes,
        system=shortened(facts.system),
        kernel=shortened(facts.kernel),
        libc=shortened(facts.libc),
        kind="measured" if profile.origin.kind == "measured" else "emulated",
        pinned=device.pin,
    )


def point_of(
    name: str, kind: str, measured: Latency, invalid: str, modelled: Latency, library_sha256: str, model: ComparedModel
) -> ValidationPoint:
    """Return a point with both sides' figures."""
    assert modelled.cycles is not None and modelled.misses is not None
    counted = Observation(model.clocked.name, name, measured.seconds * 1e3, modelled.cycles, modelled.misses, modelled.phases)
    terms = observed_ms(model.clocked, model.parameters, counted)
    low, middle, high = statistics.quantiles(measured.samples_ns * 2, n=4)  # twice, because there may be only one
    return ValidationPoint(
        name=name,
        kind="kernel" if kind == "kernel" else "network",
        measured_ms=measured.seconds * 1e3,
        samples=len(measured.samples_ns),
        spread=(high - low) / middle,
        steady=measured.steady,
        invalid=clean(invalid)[:_MOST_TEXT],
        library_sha256=library_sha256,
        core_cycles=modelled.cycles,
        misses=asdict(modelled.misses),
        modelled_ms=sum(terms.values()),
        term_ms=terms,
        phases=tuple(ValidatedPhase(phase.core_cycles, asdict(phase.misses)) for phase in modelled.phases),
    )


def with_point(validation: Validation, point: ValidationPoint, suite: Suite, model: ComparedModel) -> Validation:
    """Return the validation with one more point, in the suite's order, and judged again."""
    points = {known.name: known for known in (*validation.points, point)}
    found = tuple(points[name] for name in suite.names if name in points)
    whole = replace(validation, points=found, complete=len(found) == len(suite.names), date=datetime.now(UTC).isoformat(timespec="seconds"))
    kernels, networks = ([(p.modelled_ms, p.measured_ms) for p in whole.valid(kind)] for kind in ("kernel", "network"))
    return replace(
        whole,
        kernel_ranks=spearman(kernels),
        network_ranks=spearman(networks),
        terms=term_errors(model.clocked, model.parameters, [p.observed_on(model.clocked.name) for p in whole.valid()]),
    )
