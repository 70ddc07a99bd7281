"""Made-up validations of a Raspberry Pi 4, for tests of their statistics, file and refits."""

from __future__ import annotations

import random
from dataclasses import asdict, replace

from tvmmobile.pipeline.validation.model import ComparedModel
from tvmmobile.results.validation import FORMAT, ValidatedBoard, Validation, ValidationPoint
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.calibration.fit import Observation, calibration_of
from tvmmobile.virtual.calibration.residuals import spearman, term_errors
from tvmmobile.virtual.calibration.terms import Parameter, term_ms
from tvmmobile.virtual.profile import MissCounts

PI4 = load_board("pi4")


def parameters(**shares: float) -> tuple[Parameter, ...]:
    """Return the Pi 4's, with other shares."""
    fit = calibration_of(PI4)
    assert fit is not None
    return tuple(replace(p, value=shares.get(p.name, p.value)) for p in fit.parameters)


def compared() -> ComparedModel:
    """Return the Pi 4's own model."""
    return ComparedModel("pi4", PI4, PI4, parameters())


def observed(count: int, noise: float = 0.0, core: float = 1.0, **shares: float) -> list[Observation]:
    """Kernels whose times these shares make, and a factor for the core's; each leans on another kind of misses."""
    rng, found = random.Random(count), []
    for number in range(count):
        cycles = rng.randrange(1_000_000, 40_000_000)
        counts = [rng.randrange(100, 4_000) for _ in range(7)]
        counts[1 + number % 6] = rng.randrange(100_000, 400_000) * (3 if number % 6 == 0 else 1)  # a hit waits least
        misses = MissCounts(*counts)
        ms = sum(term_ms(PI4, core * cycles, misses, parameters(**shares)).values()) * rng.lognormvariate(0, noise)
        found.append(Observation(board="pi4", network=f"kernel {number}", measured_ms=ms, core_cycles=cycles, misses=misses))
    return found


def validated(observations: list[Observation]) -> Validation:
    """Return the file of such kernels, the last five as networks."""
    model = compared()
    points = []
    for number, seen in enumerate(observations):
        terms = term_ms(PI4, seen.core_cycles, seen.misses, model.parameters)
        kind = "kernel" if number < len(observations) - 5 else "network"
        points.append(
            ValidationPoint(
                name=seen.network,
                kind=kind,  # type: ignore[arg-type]
                measured_ms=seen.measured_ms,
                samples=10,
                spread=0.01,
                steady=True,
                invalid="",
                library_sha256="0" * 64,
                core_cycles=seen.core_cycles,
                misses=asdict(seen.misses),
                modelled_ms=sum(terms.values()),
                term_ms=terms,
                phases=(),
            )
        )
    ranks = [spearman([(p.modelled_ms, p.measured_ms) for p in points if p.kind == kind]) for kind in ("kernel", "network")]
    return Validation(
        version=FORMAT,
        complete=True,
        suite=1,
        measured=ValidatedBoard(
            board="Raspberry Pi 4 Model B Rev 1.4",
            cpu="Cortex-A72",
            mcpu="cortex-a72",
            cores=4,
            clock_hz=1.8e9,
            memory_bytes=4 << 30,
            system="Debian GNU/Linux 12 (bookworm)",
            kernel="6.6.31+rpt-rpi-v8",
            libc="glibc 2.36",
            kind="measured",
            pinned=True,
        ),
        model=model.description,
        versions={"tvmmobile": "1.0"},
        date="2026-11-21T00:00:00+00:00",
        points=tuple(points),
        kernel_ranks=ranks[0],
        network_ranks=ranks[1],
        terms=term_errors(PI4, model.parameters, observations),
    )
