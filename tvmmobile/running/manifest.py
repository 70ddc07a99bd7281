"""Checks a library's manifest before it is used, and compares it with the device that will run the library."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.graph.precision import FLOAT32, is_precision
from tvmmobile.kernels.serial import schedule_from_json
from tvmmobile.native.source import interface_version
from tvmmobile.networks.models.spec import ModelSpec, OwnSpec
from tvmmobile.networks.preprocessing import Normalisation
from tvmmobile.running.formats import FORMS, VM, C
from tvmmobile.system.errors import UserError

MANIFEST_VERSION = 1
#: The interface of C libraries whose manifests do not name it.
_UNWRITTEN_INTERFACE = 1


def spec_of(manifest: Mapping[str, Any]) -> ModelSpec:
    """The identity of the network; raises like `check_manifest` if it is missing."""
    model = manifest["model"]
    if "contents" not in model:
        return ModelSpec(str(model["name"]), model["alpha"], int(model["resolution"]), model["activation"], int(model["classes"]))
    given, returned = (tuple(map(int, manifest[name]["shape"])) for name in ("input", "output"))
    for shape in (given, returned):
        if len(shape) < 2 or shape[0] != 1 or min(shape) < 1:
            raise ValueError(f"an input or output is {ascii(shape)[:60]}, not of a batch of 1")
    return OwnSpec.of(str(model["name"]), str(model["contents"]), given, returned)


def check_version(manifest: Any) -> None:
    """Raises `ValueError` for a manifest of another version, whose content is unknown, and for anything else."""
    if not isinstance(manifest, dict):
        raise ValueError("it holds no object")
    version = manifest["version"]
    if type(version) is not int or version != MANIFEST_VERSION:
        raise ValueError(f"its version is {ascii(version)[:20]}, and this tvmmobile reads {MANIFEST_VERSION}")


def check_manifest(manifest: Mapping[str, Any], spec: ModelSpec) -> None:
    """Raises `ValueError`, `KeyError`, `TypeError` or `AttributeError` where a library cannot be that, or no report be made of it."""
    if type(manifest["threads"]) is not int or manifest["threads"] < 1:
        raise ValueError(f"{manifest['threads']} threads")
    for name in ("sha256", "weights", "device", "dtype", "reference"):
        if not isinstance(manifest.get(name, "") if name == "reference" else manifest[name], str):
            raise ValueError(f"{name} is not text")
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
    for name, shape in (("input", spec.input_shape), ("output", spec.output_shape)):
        _check_tensor(name, manifest[name], shape, manifest["dtype"])
    for kernel in manifest["kernels"]:
        _check_kernel(kernel)


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
    """What a C library does to pixels that takes images, None for others; raises `ValueError` where the manifest does not say."""
    image = manifest["c"].get("image") if manifest.get("format", VM) == C else None
    if image is None:
        return None
    try:
        mean, std = ((float(red), float(green), float(blue)) for red, green, blue in (image["mean"], image["std"]))
        return Normalisation(mean, std)
    except (TypeError, ValueError, KeyError, OverflowError, UserError) as error:
        raise ValueError(f"what it does to images is {ascii(image)[:60]}") from error


def _check_place(library: Any) -> None:
    """The library is the file beside the manifest, which may have been renamed; a path would lead elsewhere."""
    if not isinstance(library, str) or "/" in library or "\\" in library or not library.endswith(".so"):
        raise ValueError(f"library is {ascii(library)[:60]}, not the name of a file beside it")


def _check_target(target: Mapping[str, Any]) -> None:
    kind, triple = target["kind"], target["mtriple"]
    if kind != "llvm" or not isinstance(triple, str) or triple.split("-")[0] not in ("aarch64", "arm64"):
        raise ValueError(f"its target is {ascii(kind)[:20]} for {ascii(triple)[:40]}, and devices are AArch64")
    if not isinstance(target["mcpu"], str):
        raise ValueError("its target's mcpu is not text")


def _check_tensor(name: str, tensor: Mapping[str, Any], shape: tuple[int, ...], own: str) -> None:
    found = tensor["shape"]
    if not isinstance(found, list) or any(type(extent) is not int for extent in found) or tuple(found) != shape:
        raise ValueError(f"the shape of its {name} is {ascii(found)[:60]}, and the network's is {list(shape)}")
    dtype, layout = tensor.get("dtype", FLOAT32.name), tensor.get("layout", "NCHW")
    if dtype not in {FLOAT32.name, *([own] if is_precision(own) else [])} or layout != "NCHW":
        raise ValueError(f"its {name} is {ascii(dtype)[:20]} in {ascii(layout)[:20]}, and networks take and return {FLOAT32.name} in NCHW")


def _check_kernel(kernel: Mapping[str, Any]) -> None:
    schedule_from_json(kernel["schedule"])
    name, kind, macs, latency_us = (kernel[key] for key in ("name", "kind", "macs", "latency_us"))
    if not (isinstance(name, str) and isinstance(kind, str) and isinstance(macs, int) and macs >= 0):
        raise ValueError(f"kernel {name!r} has no layer type or multiply-adds")
    if latency_us is not None and not (type(latency_us) in (int, float) and 0 < latency_us < math.inf):
        raise ValueError(f"kernel {name!r} has a latency of {latency_us}")


def records_compare(manifest: Mapping[str, Any], profile: DeviceProfile) -> bool:
    """Whether the latencies of a manifest's records are comparable with the device's."""
    return (manifest["device"], manifest.get("timing_model")) == (profile.name, profile.origin.written)


def differences(name: str, manifest: Mapping[str, Any], profile: DeviceProfile) -> str:
    """How a library differs from those compiled for the device, in a sentence; "" if it does not.

    A library runs on other cores than its own if they have its instructions; what it takes there says little of either.
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
