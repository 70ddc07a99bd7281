"""Checks a library's manifest before it is used, and compares it with the device that will run the library."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.graph.precision import FLOAT32, is_precision
from tvmmobile.kernels.serial import schedule_from_json
from tvmmobile.native.source import interface_version
from tvmmobile.networks.models.spec import ModelSpec, OwnSpec
from tvmmobile.networks.preprocessing import Normalisation
from tvmmobile.networks.signature import CHANNELS_LAST, INPUT_NAME, INTEGERS, MOST_NAME, OUTPUT_NAME, Port
from tvmmobile.running.formats import FORMS, VM, C
from tvmmobile.system.errors import UserError

MANIFEST_VERSION = 1
#: Inputs or outputs of a network.
_MOST_TENSORS = 1000
#: The interface of C libraries whose manifests do not name it.
_UNWRITTEN_INTERFACE = 1


def spec_of(manifest: Mapping[str, Any]) -> ModelSpec:
    """Return the identity of the network; raises like `check_manifest` if it is missing."""
    model = manifest["model"]
    if "contents" not in model:
        return ModelSpec(str(model["name"]), model["alpha"], int(model["resolution"]), model["activation"], int(model["classes"]))
    ports = [tuple(_port(entry, only) for entry in tensors_of(manifest, only)) for only in (INPUT_NAME, OUTPUT_NAME)]
    return OwnSpec.of(str(model["name"]), str(model["contents"]), *ports)


def tensors_of(manifest: Mapping[str, Any], only: str) -> list[Mapping[str, Any]]:
    """Return a manifest's entries for the library's inputs (`input`) or outputs (`output`); raises `ValueError` if they are not a list."""
    several = manifest.get(f"{only}s")
    if several is None:
        return [manifest[only]]
    if not isinstance(several, list) or not 1 < len(several) <= _MOST_TENSORS:
        raise ValueError(f"{only}s is {ascii(several)[:60]}, not a list of several")
    names = [entry["name"] for entry in several]
    if len(set(names)) < len(names) or not all(isinstance(name, str) and 0 < len(name) <= MOST_NAME for name in names):
        raise ValueError(f"its {only}s are called {ascii(names)[:60]}")
    return several


def _port(entry: Mapping[str, Any], only: str) -> Port:
    """Convert an entry of `tensors_of`."""
    shape, dtype = tuple(map(int, entry["shape"])), entry.get("dtype", FLOAT32.name)
    if not shape or min(shape) < 1:
        raise ValueError(f"an {only} is {ascii(shape)[:60]}, which is empty")
    axes = CHANNELS_LAST if entry.get("layout") == CHANNELS_LAST and len(shape) == 4 else ""
    return Port(entry.get("name", only), shape, dtype if dtype in INTEGERS else FLOAT32.name, axes)


@dataclass(frozen=True)
class Check:
    """A manifest's entries on the run that compared its library with the reference output.

    Attributes:
        done: whether there was such a run. Manifests written before libraries were checked count as done, at no `place`.
        place: what it ran on, such as `QEMU's cortex-a72`.
        why: why there was none.
        error: of its outputs.
    """

    done: bool
    place: str = ""
    why: str = ""
    error: float | None = None


def check_of(manifest: Mapping[str, Any]) -> Check:
    """Return the entries `checked` and `check`; raises `ValueError` for others than tvmmobile writes."""
    done, check = manifest.get("checked", True), manifest.get("check", {})
    if type(done) is not bool or not isinstance(check, dict):
        raise ValueError(f"checked is {ascii(done)[:20]}, and check {ascii(check)[:60]}")
    place, why, error = check.get("place", ""), check.get("why", ""), check.get("error")
    if not isinstance(place, str) or not isinstance(why, str) or not (error is None or type(error) in (int, float)):
        raise ValueError(f"check is {ascii(check)[:60]}")
    return Check(done, place, why, error)


def check_version(manifest: Any) -> None:
    """Raise `ValueError` for a manifest of another version, whose content is unknown, and for anything else."""
    if not isinstance(manifest, dict):
        raise ValueError("it holds no object")
    version = manifest["version"]
    if type(version) is not int or version != MANIFEST_VERSION:
        raise ValueError(f"its version is {ascii(version)[:20]}, and this tvmmobile reads {MANIFEST_VERSION}")


def check_manifest(manifest: Mapping[str, Any], spec: ModelSpec) -> None:
    """Raise `ValueError`, `KeyError`, `TypeError` or `AttributeError` where a library cannot be that, or no report be made of it."""
    if type(manifest["threads"]) is not int or manifest["threads"] < 1:
        raise ValueError(f"{manifest['threads']} threads")
    for name in ("sha256", "weights", "device", "dtype", "reference"):
        if not isinstance(manifest.get(name, "") if name == "reference" else manifest[name], str):
            raise ValueError(f"{name} is not text")
    if type(manifest.get("quantised", False)) is not bool:
        raise ValueError("quantised is neither true nor false")
    if "contents" in manifest["model"]:
        for name in ("macs", "parameters"):
            if not (isinstance(manifest[name], int) and manifest[name] > 0):
                raise ValueError(f"{name} is not a positive number")
    if manifest.get("format", VM) not in FORMS:
        raise ValueError(f"its format is {ascii(manifest['format'])[:20]}, which this tvmmobile does not know")
    if manifest.get("format", VM) == C:
        _check_c(manifest["c"])
    _check_place(manifest["library"])
    _check_target(manifest["target"])
    for only, ports in ((INPUT_NAME, spec.takes), (OUTPUT_NAME, spec.returns)):
        for port, entry in zip(ports, tensors_of(manifest, only), strict=True):
            _check_tensor(port, entry, manifest["dtype"])
    for kernel in manifest["kernels"]:
        _check_kernel(kernel)
    check_of(manifest)


def _check_c(program: Mapping[str, Any]) -> None:
    """Check how a C library is called."""
    prefix, size = program["prefix"], program["workspace_bytes"]
    if not isinstance(prefix, str) or not re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,999}", prefix):
        raise ValueError(f"the prefix of its functions is {ascii(prefix)[:40]}")
    if type(size) is not int or not 0 <= size < 1 << 40:
        raise ValueError(f"its workspace has {ascii(size)[:40]} bytes")
    version = program.get("interface", _UNWRITTEN_INTERFACE)
    if version != interface_version():
        raise ValueError(f"its C interface has version {ascii(version)[:20]}, and this tvmmobile calls version {interface_version()}")
    normalisation_in({"format": C, "c": program})


def normalisation_in(manifest: Mapping[str, Any]) -> Normalisation | None:
    """Return how a C library for images normalises pixels; `None` for others. Raises `ValueError` if the manifest does not say."""
    image = manifest["c"].get("image") if manifest.get("format", VM) == C else None
    if image is None:
        return None
    try:
        mean, std = ((float(red), float(green), float(blue)) for red, green, blue in (image["mean"], image["std"]))
        return Normalisation(mean, std)
    except (TypeError, ValueError, KeyError, OverflowError, UserError) as error:
        raise ValueError(f"what it does to images is {ascii(image)[:60]}") from error


def _check_place(library: Any) -> None:
    """Check that the library is a file beside the manifest, which may have been renamed; a path would lead elsewhere."""
    if not isinstance(library, str) or "/" in library or "\\" in library or not library.endswith(".so"):
        raise ValueError(f"library is {ascii(library)[:60]}, not the name of a file beside it")


def _check_target(target: Mapping[str, Any]) -> None:
    kind, triple = target["kind"], target["mtriple"]
    if kind != "llvm" or not isinstance(triple, str) or triple.split("-")[0] not in ("aarch64", "arm64"):
        raise ValueError(f"its target is {ascii(kind)[:20]} for {ascii(triple)[:40]}, and devices are AArch64")
    if not isinstance(target["mcpu"], str):
        raise ValueError("its target's mcpu is not text")


def _check_tensor(port: Port, tensor: Mapping[str, Any], own: str) -> None:
    found, called = tensor["shape"], ascii(port.name)[1:-1]
    if not isinstance(found, list) or any(type(extent) is not int for extent in found) or tuple(found) != port.shape:
        raise ValueError(f"the shape of its {called} is {ascii(found)[:60]}, and the network's is {list(port.shape)}")
    dtype, layout = tensor.get("dtype", FLOAT32.name), tensor.get("layout", "NCHW")
    wanted = port.axes or "NCHW"
    known = {FLOAT32.name, *([own] if is_precision(own) else [])} if port.is_float else {port.dtype}
    if dtype not in known or layout != wanted:
        raise ValueError(
            f"its {called} is {ascii(dtype)[:20]} in {ascii(layout)[:20]}, and networks take and return {port.dtype} in {wanted}"
        )


def _check_kernel(kernel: Mapping[str, Any]) -> None:
    schedule_from_json(kernel["schedule"])
    name, kind, macs, latency_us = (kernel[key] for key in ("name", "kind", "macs", "latency_us"))
    if not (isinstance(name, str) and isinstance(kind, str) and isinstance(macs, int) and macs >= 0):
        raise ValueError(f"kernel {name!r} has no layer type or multiply-adds")
    if latency_us is not None and not (type(latency_us) in (int, float) and 0 < latency_us < math.inf):
        raise ValueError(f"kernel {name!r} has a latency of {latency_us}")


def records_compare(manifest: Mapping[str, Any], profile: DeviceProfile) -> bool:
    """Return whether the latencies of a manifest's records are comparable with the device's."""
    return (manifest["device"], manifest.get("timing_model")) == (profile.name, profile.origin.written)


def differences(name: str, manifest: Mapping[str, Any], profile: DeviceProfile) -> str:
    """Describe in a sentence how a library differs from those compiled for the device; "" if it does not.

    A library runs on other cores than its own if they have its instructions, but its latency there says little about either core.
    """
    device, core = manifest["device"], manifest["target"]["mcpu"]
    found = []
    if core != profile.mcpu:
        found.append(f"was compiled for {core}; {profile.name} has {profile.mcpu}")
    if device != profile.name:
        found.append(f"has its schedules from records of {device}, whose latencies are not shown beside those of {profile.name}")
    elif not records_compare(manifest, profile):
        found.append("has its schedules from records of another timing model, whose latencies are not shown beside the current one's")
    return f"note: {name} {', and '.join(found)}." if found else ""


def unchecked_note(name: str, manifest: Mapping[str, Any]) -> str:
    """Return a sentence on a library that nobody ran when it was made; "" for others."""
    check = check_of(manifest)
    return "" if check.done else f"note: {name} was not compared with its reference when it was compiled: {check.why}."


def check_lines(checks: Sequence[Check]) -> list[str]:
    """Return the lines that `compile` prints on its libraries' checks."""
    lines = []
    for place in dict.fromkeys(check.place for check in checks if check.done):
        errors = [check.error or 0.0 for check in checks if check.done and check.place == place]
        agree = "1 library agrees with its reference" if len(errors) == 1 else f"{len(errors)} libraries agree with their references"
        lines.append(f"{agree} on {place} (error {max(errors):.2g}).")
    return lines + [f"not checked: {why}." for why in dict.fromkeys(check.why for check in checks if not check.done)]
