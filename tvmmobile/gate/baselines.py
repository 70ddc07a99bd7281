"""Baselines: a variant's latency on a device, kept in a directory that can be committed, with the library so that it can be timed again.

`DIR/<device>/<variant>.result.json` is a result file of one variant; `<variant>.so`, its manifest and its reference lie beside it.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tvmmobile.devices.protocol import Device
from tvmmobile.results.file import Context, Results, VariantResult, joined_versions, read_results, write_results
from tvmmobile.running.library import Library, find_libraries, stem_of
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import replacing
from tvmmobile.virtual.board import device_among

_SUFFIX = ".result.json"
#: Names of devices and networks come from files; a name that matches cannot escape its folder or be hidden.
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class Baseline:
    """The result kept for one variant on one device; `path` is its result file."""

    path: Path
    context: Context
    variant: VariantResult

    @property
    def name(self) -> str:
        """The variant, e.g. `mobilenet_v1_1.0_224_float32_t1`."""
        return self.path.name.removesuffix(_SUFFIX)

    @property
    def library_path(self) -> Path:
        """The path of the library, if it was kept."""
        return self.path.with_name(f"{self.name}.so")

    def library(self) -> Library | None:
        """Return the library that was timed, or `None` if it was not kept; raise `UserError` if it is damaged, or is not that library."""
        if not self.library_path.is_file():
            return None
        (library,) = find_libraries([self.library_path])
        if library.facts.sha256 != self.variant.library_sha256:
            raise UserError(f"{self.library_path} is not the library of its baseline.", "Save the baseline again: tvmmobile baseline save")
        return library


def baseline_name(variant: VariantResult) -> str:
    """Return the name of a variant's baseline: its identity, whatever its library's file is called."""
    return stem_of(f"{variant.model}_{variant.alpha}_{variant.side}", variant.precision, variant.threads)


def save_baselines(results: Results, libraries: str | Path, baselines: str | Path) -> list[Baseline]:
    """Make the variants of a result the baselines of its device, in place of earlier ones.

    Args:
        results: latencies, such as `bench` or `read_results` returns.
        libraries: folder of the libraries that were timed. Those found there are kept with the baselines, so that a suspected slowdown
            can be timed again in turns; the others have no such second look.
        baselines: folder of all baselines; they go into its folder named like the device.

    Returns:
        The baselines, in the order of the variants.

    Raises:
        UserError: there are no variants, a run is not valid, or two variants would be one baseline; nothing is written then.
    """
    if not results.variants:
        raise UserError("there are no variants to save.", "Time one with tvmmobile bench.")
    folder = device_folder(Path(baselines), results.context.device)
    for variant in results.variants:
        if variant.invalid:
            raise UserError(f"the run of {variant.name} is not valid: {variant.invalid}.", "Time it again with tvmmobile bench.")
        _check_name(baseline_name(variant), "variant")
    _check_apart(results.variants)
    found = [_library(Path(libraries), variant) for variant in results.variants]
    return [_save(results.context, variant, library, folder) for variant, library in zip(results.variants, found, strict=True)]


def load_baselines(baselines: str | Path, device: str | Device) -> list[Baseline]:
    """Read the baselines of a device.

    Args:
        baselines: folder of all baselines.
        device: the device's name, or what `find_device` returns.

    Returns:
        The baselines by name; none if the device has no folder there.

    Raises:
        UserError: a file is damaged or misplaced.
    """
    folder = device_folder(Path(baselines), device if isinstance(device, str) else device.profile.name)
    return [_load(path) for path in sorted(folder.glob(f"*{_SUFFIX}"))]


def results_of(baselines: Sequence[Baseline]) -> Results:
    """Return comparable baselines, which may be of several runs, as one result; its context has the versions of all."""
    contexts = [baseline.context for baseline in baselines]
    return Results(replace(contexts[0], versions=joined_versions(contexts)), tuple(baseline.variant for baseline in baselines))


def find_baselines(baselines: Path, device: str | None = None) -> list[Baseline]:
    """Return the baselines of one device or of all; for `pi4` without any, those of `pi4-virtual`. Raise `UserError` if there are none."""
    known = devices_in(baselines)
    names = known if device is None else [device_among(device, known)]
    found = [one for name in names for one in load_baselines(baselines, name)]
    if not found:
        place = f"{baselines} has no baseline" + (f" of {device}" if device is not None else "")
        raise UserError(f"{place}.", f"Save one: tvmmobile baseline save out/report.json --baselines {shlex.quote(str(baselines))}")
    return found


def baselines_named(name: str, baselines: Path, device: str | None = None) -> list[Baseline]:
    """Return the baselines of this name, else those whose name begins with it; raise `UserError` if none match."""
    found = find_baselines(baselines, device)
    matching = [one for one in found if one.name == name] or [one for one in found if one.name.startswith(name)]
    if not matching:
        raise UserError(f"{baselines} has no baseline {name!r}.", f"See: tvmmobile baseline list --baselines {shlex.quote(str(baselines))}")
    return matching


def devices_in(baselines: Path) -> list[str]:
    """Return the devices with baselines in a directory."""
    folders = sorted(path.parent.name for path in baselines.glob(f"*/*{_SUFFIX}"))
    return [name for name in dict.fromkeys(folders) if _SAFE_NAME.fullmatch(name)]


def device_folder(baselines: Path, device: str) -> Path:
    """Return the folder of a device's baselines; raise `UserError` if its name cannot be a folder's."""
    return baselines / _check_name(device, "device")


def _check_name(name: str, what: str) -> str:
    if not _SAFE_NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be the file name of a {what}.", "Use letters, digits, dots, hyphens and underscores.")
    return name


def _check_apart(variants: Sequence[VariantResult]) -> None:
    """Raise `UserError` if two variants would be one baseline."""
    names: dict[str, str] = {}
    for variant in variants:
        first = names.setdefault(baseline_name(variant), variant.name)
        if first != variant.name:
            remedy = "Time them apart with tvmmobile bench, and save each in a directory of its own with --baselines."
            raise UserError(f"{first} and {variant.name} would be the same baseline: {baseline_name(variant)}.", remedy)


def _library(folder: Path, variant: VariantResult) -> Library | None:
    """Return the library that was timed, if it is in `folder` under its name and complete."""
    path = folder / f"{variant.name}.so"
    if not _SAFE_NAME.fullmatch(variant.name) or not path.is_file():
        return None
    (library,) = find_libraries([path])
    return library if library.facts.sha256 == variant.library_sha256 else None


def _save(context: Context, variant: VariantResult, library: Library | None, folder: Path) -> Baseline:
    baseline = Baseline(folder / f"{baseline_name(variant)}{_SUFFIX}", context, variant)
    kept = baseline.library_path
    # The result is written last: until then the old one does not match the library and is refused.
    if library is None:
        for path in (kept, kept.with_suffix(".json"), kept.with_suffix(".reference.npz")):
            path.unlink(missing_ok=True)
    elif not (kept.exists() and library.path.samefile(kept)):
        for source in (library.path, library.manifest_path, library.reference_path):
            suffix = source.name.removeprefix(library.path.stem)
            with replacing(kept.with_name(f"{baseline.name}{suffix}")) as temporary:
                shutil.copyfile(source, temporary)
    write_results(Results(context, (variant,)), baseline.path)
    return baseline


def _load(path: Path) -> Baseline:
    results = read_results(path)
    variants: Sequence[VariantResult] = results.variants
    if len(variants) != 1 or (results.context.device, baseline_name(variants[0]) + _SUFFIX) != (path.parent.name, path.name):
        raise UserError(f"{path} is not a baseline of its device and variant.", "Save it again: tvmmobile baseline save")
    return Baseline(path, results.context, variants[0])
