"""Compares a library's outputs with its reference's, and describes differences in messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.kernels.reference import network_error
from tvmmobile.running.library import Library
from tvmmobile.running.measure import MeasureError
from tvmmobile.system.errors import DeviceUnavailable, Disagreement, UserError, please_report

#: For a library on the device, and more for every multiply-add (a virtual board counts some 100 million a second on an idle machine,
#: a tenth of that where no template unrolls them, and much less on a busy one); its worker has twice as long, so that a slow library is
#: told from a stuck worker.
LEAST_SESSION_S = 120.0
_MACS_PER_S, _FALLBACK_MACS_PER_S = 10e6, 1e6


def session_timeout_s(library: Library) -> float:
    """Return the time limit of a library's run in seconds, long enough for an emulator."""
    manifest = library.facts
    of_templates, of_others = (sum(kernel.macs for kernel in manifest.kernels if kernel.fallback is others) for others in (False, True))
    # Manifests of older versions say 0 for the kernels that no template takes.
    of_others = max(of_others, (manifest.macs or 0) - of_templates)
    timeout_s: float = LEAST_SESSION_S + of_templates / _MACS_PER_S + of_others / _FALLBACK_MACS_PER_S
    return timeout_s


def agreement(library: Library, outputs: Sequence[npt.NDArray[Any]], expected: Sequence[npt.NDArray[Any]], place: str) -> float:
    """Return the largest difference of outputs from their references (see `network_error`); raise `Disagreement` if it is too large."""
    difference = network_error(outputs, expected, library.facts.quantised)
    if not agrees(library, difference):
        raise disagreement(library, place, error_of(difference), _remedy(library))
    return difference


def agrees(library: Library, error: float) -> bool:
    """Return whether an error is within what the library's precision explains."""
    return error <= library.tolerance


def error_of(difference: float) -> str:
    """Return an error in words."""
    return f"error {difference:.2g} of the output's largest magnitude"


def disagreement(library: Library, place: str, difference: str, remedy: str = "", first: str = "") -> Disagreement:
    """Return the error for a library with a wrong output on `place`; `first` says where the first difference is, if known."""
    most, where = library.tolerance, f"; {first}" if first else ""
    return Disagreement(
        f"{library.path.name} disagrees with {library.facts.reference} on {place}: {difference}, more than {most:g}{where}.",
        remedy or _remedy(library),
        library.path.name,
    )


def _remedy(library: Library) -> str:
    """Return the advice for a finished library that is wrong."""
    place = library.facts.check.place
    if place:
        return f"It agreed on {place} when it was compiled, so one of its kernels is wrong there. {please_report('manifest')}"
    return "Compile it again: tvmmobile compile checks it, and names the first operator, kernel or layer whose values differ."


def failure_of(library: Library, profile: DeviceProfile, error: MeasureError) -> UserError:
    """Return the error for a library that did not run, blaming the library or the device."""
    if error.kind in ("link", "host"):
        return device_gone(profile, error)
    if error.kind == "timeout":
        busy = "this machine" if profile.origin.modelled else "the device"
        return Disagreement(
            f"{library.path.name} does not finish on {profile.name}: {error.reason}.",
            f"Run it again while nothing else uses {busy}, with fewer runs if you asked for many.",
        )
    core = library.facts.core
    return Disagreement(
        f"{library.path.name} does not run on {profile.name}: {error.reason}.",
        f"It was compiled for {core}; compile it for this device: tvmmobile compile --device {profile.name}",
    )


def device_gone(profile: DeviceProfile, error: MeasureError) -> DeviceUnavailable:
    """Return the error for a device that stopped answering."""
    return DeviceUnavailable(f"the device {profile.name} went away: {error.reason}.", "Run the same command again.", again=True)
