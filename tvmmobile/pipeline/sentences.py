"""Sentences of commands about a compiled library and the records that it is compiled from, a sentence or a line each."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.graph.network import Float32Layer
from tvmmobile.graph.precision import precision_named
from tvmmobile.results.report.wording import latency_ms
from tvmmobile.running.manifest import Manifest, SharedWeightsEntry, SmallWeightsEntry, records_compare
from tvmmobile.tuning.claims import RefusedLine


def float32_sentence(network: str, layers: Sequence[Float32Layer]) -> str:
    """Return a command's message on layers that stay in float32; "" if there are none. Neighbours with one reason are named together."""
    if not layers:
        return ""
    groups = []
    for (_, why), found in itertools.groupby(enumerate(layers), lambda one: (one[1].node - one[0], one[1].why)):
        (_, first), *others = found
        nodes = f"node {first.node}" if not others else f"nodes {first.node} to {others[-1][1].node}"
        groups.append(f"{first.layer}{f' to {others[-1][1].layer}' if others else ''} ({nodes}, {why})")
    count = "1 layer stays" if len(layers) == 1 else f"{len(layers)} layers stay"
    return f"{network}: {count} in float32: {'; '.join(groups)}."


def drop_sentence(variant: str, found: Mapping[str, Any]) -> str:
    """Return the remark on the cost of `--max-drop`, and on its lower bound; see `precision_entries`."""
    latency, int8, estimated, least = (latency_ms(found[name]) for name in ("latency_us", "int8_us", "estimated_us", "no_other_below_us"))
    return (
        f"{variant}: --max-drop {found['limit']}: {latency} ms, int8 alone {int8} ms (from records; {estimated} ms is estimated). "
        f"No other choice of layers is below {least} ms at {_decibels(found['bound_db'])} or better. "
        f"Signal to noise: {_decibels(found['predicted_db'])} predicted, {_decibels(found['measured_db'])} measured on calibration data."
    )


def _decibels(ratio: float | None) -> str:
    """Format a signal-to-noise ratio; `None` means no noise."""
    return "infinitely many dB" if ratio is None else f"{ratio:.1f} dB"


def small_weights_sentence(variant: str, entry: Mapping[str, Any]) -> str:
    """Return the remark on a variant with weights in fewer bits than float32."""
    found = SmallWeightsEntry(**entry)
    name, share = found.dtype, f"{100 * found.loss:.2g} %"
    if not found.layers:
        return f"{variant}: no layer is large enough for weights in {name}, or no kernel takes it; see docs/small-weights.md."
    ratio = "" if found.signal_to_noise_db is None else f", {found.signal_to_noise_db:.1f} dB below the signal"
    limit = precision_named(name).network_tolerance
    warning = "" if found.loss <= limit else f" That is more than {100 * limit:.2g} %: look at its accuracy (tvmmobile evaluate)."
    return (
        f"{variant}: the weights of {found.layers} layers, {found.weights / 1e6:.1f} million, are stored in {name}. For noise, this moves "
        f"the outputs by up to {share} of their largest magnitude{ratio}.{warning}"
    )


def sharing_sentence(variant: str, entry: Mapping[str, Any]) -> str:
    """Return the remark on a library whose sets share weights."""
    found = SharedWeightsEntry(**entry)
    return (
        f"{variant}: kernels were chosen that use each other's weights, {found.bytes / 1e6:.1f} MB instead of "
        f"{found.fastest_bytes / 1e6:.1f}; "
        f"by records, the slowest set takes {max(found.slower_percent):.2g} % longer (--share-weights 0: none does)."
    )


def rounding_sentence(variant: str, most: float) -> str:
    """Return the remark on a variant whose library is compared less strictly than others."""
    return f"{variant} is compared within {most:g}: {moved(most)}, and the reference rounds too."


def moved(most: float) -> str:
    """Return the cause of a rounding, as a clause."""
    return f"a change of its weights' last bits moves its outputs by up to {most / 2:.2g}"


def loss_sentence(variant: str, loss: float) -> str:
    """Return the remark on a variant whose library is compared with exact integers."""
    return (
        f"{variant}: integers move its outputs by up to {loss:.2g} of their largest magnitude, so its library is compared with exact "
        "integers. Look at its accuracy: tvmmobile evaluate."
    )


def without_baseline(name: str, manifest: Manifest) -> str:
    """Return a sentence on a library for several devices that some CPUs cannot run; "" for others."""
    if not manifest.sets or not all(kernel_set.needs for kernel_set in manifest.sets):
        return ""
    least = min((kernel_set.needs for kernel_set in manifest.sets), key=len)
    return (
        f"{name}: all its kernels need instructions beyond Armv8.0, at least {', '.join(least)}; its init refuses other CPUs. "
        "With --device pi4 as well, it would run on all."
    )


def fewer_threads(name: str, manifest: Manifest) -> str:
    """Return a sentence on a library that is faster on fewer threads than it was compiled for; "" for others."""
    fewer = manifest.fastest_in_words(only_fewer=True)
    if not fewer:
        return ""
    return (
        f"{name}: by the tuning records, it is faster on fewer threads than {manifest.threads}: {fewer}. "
        "Programs that set TVMMOBILE_FASTEST_THREADS get as many."
    )


def differences(name: str, manifest: Manifest, profile: DeviceProfile) -> str:
    """Describe in a sentence how a library differs from those compiled for the device; "" if it does not.

    A library runs on other cores than its own if they have its instructions, but its latency there says little about either core.
    """
    manifest = manifest.on(profile)
    device, core = manifest.device, manifest.core
    found = []
    if not profile.has_core(core):
        found.append(f"was compiled for {core}, not for {profile.name}'s {profile.mcpu}")
    if device != profile.name:
        found.append(f"uses schedules tuned on {device}, whose latencies are not comparable with {profile.name}'s")
    elif not records_compare(manifest, profile):
        found.append("uses schedules tuned with another timing model, whose latencies are not comparable with the current one's")
    return f"note: {name} {', and '.join(found)}." if found else ""


def unchecked_note(name: str, manifest: Manifest) -> str:
    """Return a sentence on a library that was not run when it was built; "" for others."""
    return "" if manifest.checked else f"note: {name} was not compared with its reference when it was compiled: {manifest.check.why}."


def check_lines(manifests: Sequence[Manifest]) -> list[str]:
    """Return the lines that `compile` prints on its libraries' checks."""
    checks = [manifest.check for manifest in manifests if manifest.checked]
    lines = []
    for place in dict.fromkeys(check.place for check in checks):
        errors = [check.error or 0.0 for check in checks if check.place == place]
        agree = "1 library agrees with its reference" if len(errors) == 1 else f"{len(errors)} libraries agree with their references"
        lines.append(f"{agree} on {place} (error {max(errors):.2g}).")
    return lines + [f"not checked: {why}." for why in dict.fromkeys(manifest.check.why for manifest in manifests if not manifest.checked)]


def skipped_lines(refused: Sequence[RefusedLine]) -> str:
    """Return a command's message on lines that it skipped; "" if there are none."""
    if not refused:
        return ""
    count = "1 line of the tuning logs was" if len(refused) == 1 else f"{len(refused)} lines of the tuning logs were"
    first = refused[0]
    return (
        f"{count} skipped{'' if len(refused) == 1 else '; the first'}: {first.path}, line {first.number}: {first.why}. "
        f"See: tvmmobile logs verify --logs {shlex.quote(str(first.path.parent.parent))}"
    )


def outdated_sentence(records: int) -> str:
    """Return the message on records of another timing model."""
    count = "1 record of another timing model does" if records == 1 else f"{records} records of another timing model do"
    return f"{count} not count: see tvmmobile logs rescore --help"
