"""The networks that int8 is for."""

from __future__ import annotations

from tvmmobile.graph.precision import FLOAT32, INT8
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.system.errors import UserError


def check_given(spec: ModelSpec) -> None:
    """Raise `UserError` for a network that its file has quantised, but that takes several images at once."""
    if spec.input_shape[0] != 1:
        raise _unfit(spec, "a batch of 1")


def check_calibrated(spec: ModelSpec) -> None:
    """Raise `UserError` for what cannot be quantised: calibration data, and errors, are those of single samples of real numbers."""
    if any(port.dtype != FLOAT32.name for port in (*spec.takes, *spec.returns)) or any(port.shape[:1] != (1,) for port in spec.takes):
        raise _unfit(spec, f"inputs of a batch of 1 and outputs, all in {FLOAT32.name}")


def _unfit(spec: ModelSpec, wanted: str) -> UserError:
    there = "; ".join(map(str, (*spec.takes, *spec.returns)))
    return UserError(f"{INT8.name} is for networks with {wanted}, not {there}.", "Leave out --dtype.")
