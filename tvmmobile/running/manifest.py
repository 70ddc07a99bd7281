"""The manifest of a library: its content, reading and writing, and its comparison with the device that will run the library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.graph.precision import FLOAT32, is_precision
from tvmmobile.kernels.serial import schedule_from_json
from tvmmobile.native.source import interface_version
from tvmmobile.networks.models.spec import ModelSpec, OwnSpec
from tvmmobile.networks.preprocessing import Normalisation, Triple
from tvmmobile.networks.signature import CHANNELS_LAST, INPUT_NAME, INTEGERS, MOST_NAME, OUTPUT_NAME, Port
from tvmmobile.running.formats import REFERENCE, C
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import write_text
from tvmmobile.system.json_files import FileKind, read_json, reader_of, validated

MANIFEST_VERSION = 1
#: Most inputs or outputs of a network.
_MOST_TENSORS = 1000
#: Largest error that is explained by rounding, as a share of the outputs' largest magnitude.
MOST_ROUNDING = 0.02
#: Most sets of kernels in a library: its options hold no larger number.
_MOST_SETS = 255
_KIND = FileKind("a manifest of tvmmobile", "Compile the library again.")

_Count = Annotated[int, Field(ge=0, le=10**18)]
_Positive = Annotated[int, Field(ge=1, le=10**18)]
_Threads = Annotated[int, Field(ge=1, le=10**9)]


class _Entry(BaseModel):
    """An object in a manifest: text does not count as a number, and entries of later versions are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class CheckEntry(_Entry):
    """The run that compared a library with its reference output.

    Attributes:
        error: error of its outputs.
        place: the machine or emulator that it ran on, such as `QEMU's cortex-a72`.
        why: reason why it was not run.
    """

    error: float | None = None
    place: str = ""
    why: str = ""


class ImageEntry(_Entry):
    """The images that a C library takes."""

    resampling: str = ""
    side: int = 0
    shorter_side: int = 0
    mean: Triple
    std: Triple

    @property
    def normalisation(self) -> Normalisation:
        """Normalisation of pixels."""
        return Normalisation(self.mean, self.std)

    @model_validator(mode="after")
    def _normalises(self) -> Self:
        try:
            Normalisation(self.mean, self.std)
        except UserError as error:
            raise ValueError(error.message) from error
        return self


class StateEntry(_Entry):
    """A tensor that a C library keeps between calls: the network's `input` and the `output` that is the next one."""

    input: str
    output: str
    shape: tuple[_Positive, ...]
    dtype: str


def _called(interface: int) -> int:
    if interface != interface_version():
        raise ValueError(f"this tvmmobile calls version {interface_version()}, not {interface}")
    return interface


class CEntry(_Entry):
    """Calling convention of a C library; manifests that do not name their interface have the first."""

    prefix: Annotated[str, Field(pattern="^[A-Za-z][A-Za-z0-9_]{0,999}$")]
    interface: Annotated[int, AfterValidator(_called), Field(validate_default=True)] = 1
    workspace_bytes: Annotated[int, Field(ge=0, lt=1 << 40)]
    least_bytes: int = 0
    weight_bytes: int = 0
    expanded_bytes: int = 0
    states: tuple[StateEntry, ...] = ()
    image: ImageEntry | None = None


class ModelEntry(_Entry):
    """A network: a family's variant, or one from a file with its `contents`."""

    name: str
    alpha: float
    resolution: int
    activation: str = ""
    classes: int = 1
    file: str = ""
    contents: str | None = None


class TensorEntry(_Entry):
    """An input or output of a library; it has a name where there are several."""

    name: Annotated[str, Field(min_length=1, max_length=MOST_NAME)] | None = None
    shape: Annotated[tuple[_Positive, ...], Field(min_length=1)]
    layout: str = "NCHW"
    dtype: str = FLOAT32.name

    def port(self, only: str) -> Port:
        """Return the network's tensor; reals are float32 there."""
        axes = CHANNELS_LAST if self.layout == CHANNELS_LAST and len(self.shape) == 4 else ""
        return Port(self.name or only, self.shape, self.dtype if self.dtype in INTEGERS else FLOAT32.name, axes)

    def check(self, port: Port, own: str) -> None:
        """Raise `ValueError` unless the library takes or returns this tensor of its network, with reals in float32 or its `own` type."""
        called = ascii(port.name)[1:-1]
        if self.shape != port.shape:
            raise ValueError(f"the shape of its {called} is {list(self.shape)}, and the network's is {list(port.shape)}")
        wanted = port.axes or "NCHW"
        known = {FLOAT32.name, *([own] if is_precision(own) else [])} if port.is_float else {port.dtype}
        if self.dtype not in known or self.layout != wanted:
            raise ValueError(
                f"its {called} is {ascii(self.dtype)[:20]} in {ascii(self.layout)[:20]}, "
                f"and networks take and return {port.dtype} in {wanted}"
            )


def _readable(schedule: dict[str, Any]) -> dict[str, Any]:
    try:
        schedule_from_json(schedule)
    except KeyError as error:
        raise ValueError(f"{error} is missing") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error
    return schedule


class KernelEntry(_Entry):
    """A kernel: its layers, its schedule, and the record that this comes from.

    Attributes:
        zeros: share of its weights that a sparse kernel leaves out because they are zero; `None` for others.
    """

    name: str
    kind: str
    nodes: tuple[int, ...] = ()
    macs: _Count
    schedule: Annotated[dict[str, Any], AfterValidator(_readable)]
    latency_us: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    record: str = ""
    why: str = ""
    least_bytes: int | None = None
    course: tuple[tuple[int, float], ...] = ()
    rank_correlation: float | None = None
    zeros: Annotated[float, Field(ge=0, le=1)] | None = None

    @property
    def fallback(self) -> bool:
        """True if no template made the kernel."""
        return "trace" in self.schedule


class SparseEntry(_Entry):
    """Gains of sparse kernels, by the records of the library's device.

    Attributes:
        dense_us: the sum of the records of the best kernels without sparse ones, in microseconds.
        gained_us: time that the library's kernels take less together.
    """

    dense_us: Annotated[float, Field(gt=0, le=1e18)]
    gained_us: Annotated[float, Field(ge=0, le=1e18)]


def _ours(version: int) -> int:
    if version != MANIFEST_VERSION:
        raise ValueError(f"this tvmmobile reads {MANIFEST_VERSION}, not {version}")
    return version


def _beside(library: str) -> str:
    """Check that the library, perhaps renamed, is a file beside the manifest; a path would lead elsewhere."""
    if "/" in library or "\\" in library or not library.endswith(".so"):
        raise ValueError(f"{ascii(library)[:60]} is not the name of a file beside it")
    return library


def _for_devices(target: dict[str, Any]) -> dict[str, Any]:
    kind, triple, core = (target.get(name) for name in ("kind", "mtriple", "mcpu"))
    if kind != "llvm" or not isinstance(triple, str) or triple.split("-")[0] not in ("aarch64", "arm64"):
        raise ValueError(f"{ascii(kind)[:20]} for {ascii(triple)[:40]}, and devices are AArch64")
    if not isinstance(core, str):
        raise ValueError("mcpu is not text")
    return target


class SetEntry(_Entry):
    """One of several sets of kernels in a C library, as the manifest describes the only one of another library.

    Attributes:
        cpu: the core's name for people.
        needs: features beyond Armv8.0 that a CPU must have, as /proc/cpuinfo names them.
        fastest_threads: as in `Manifest`, for this set.
    """

    device: str
    timing_model: str | None = None
    kind: str = ""
    target: Annotated[dict[str, Any], AfterValidator(_for_devices)]
    cpu: str
    workspace_bytes: Annotated[int, Field(ge=0, lt=1 << 40)]
    least_bytes: int = 0
    weight_bytes: int = 0
    expanded_bytes: int = 0
    needs: tuple[str, ...] = ()
    fastest_threads: _Threads | None = None
    kernels: tuple[KernelEntry, ...]
    sparse: SparseEntry | None = None

    @property
    def core(self) -> str:
        """The core that it was compiled for."""
        return str(self.target["mcpu"])


class SharedWeightsEntry(_Entry):
    """Latencies that a library's sets of kernels give up to share weights.

    Attributes:
        limit_percent: percent by which each set may be slower than with its fastest kernels, by its records.
        bytes, fastest_bytes: size of all constants, and what it would be with these.
        slower_percent: percent by which each set is slower.
    """

    limit_percent: Annotated[float, Field(gt=0, le=100)]
    bytes: _Count
    fastest_bytes: _Count
    slower_percent: tuple[float, ...]


_Several = Annotated[tuple[TensorEntry, ...], Field(min_length=2, max_length=_MOST_TENSORS)]


class SmallWeightsEntry(_Entry):
    """Weights that are stored in fewer bits than the library computes with.

    Attributes:
        dtype: name of their precision.
        layers, weights: number of layers and of weights.
        loss: change of the network's outputs for the reference inputs, relative to the largest magnitude.
        signal_to_noise_db: signal-to-noise ratio of these outputs, in decibels; `None` without a difference.
    """

    dtype: str
    layers: _Count
    weights: _Count
    loss: Annotated[float, Field(ge=0)]
    signal_to_noise_db: float | None


class Manifest(_Entry):
    """The manifest of a library. Entries are in the order in which they are written; later additions have defaults.

    Attributes:
        checked: true if a run compared the library with its reference; manifests of versions without this check count as checked, without a
            `place`.
        fastest_threads: number of threads, at most `threads`, on which the library is fastest by its device's records; `None` in older
            manifests, and for libraries that always run on all.
        loss: error of the network in exact integers, which are then the reference; `None` where that is the network in floats.
        sparse: gains of kernels that leave zeros out; `None` where there are none, or where a kernel has no record.
        small_weights: small weights of a float32 library; `None` if all its weights are float32.
        sets: sets of kernels in a library for several devices; `device`, `target`, `kernels` and the like are then those of the first.
        shared_weights: latencies that such a library gives up to share weights; `None` if each set has its fastest kernels.
    """

    version: Annotated[int, AfterValidator(_ours)]
    library: Annotated[str, AfterValidator(_beside)]
    checked: bool = True
    check: CheckEntry = CheckEntry()
    rounding: Annotated[float, Field(ge=0, le=MOST_ROUNDING)] = 0.0
    format: Literal["vm", "c"] = "vm"
    c: CEntry | None = None
    quantisation: dict[str, Any] | None = None
    float32_layers: tuple[dict[str, Any], ...] = ()
    small_weights: SmallWeightsEntry | None = None
    sha256: str
    model: ModelEntry
    weights: str
    reference: str = REFERENCE
    macs: _Positive | None = None
    parameters: _Positive | None = None
    input: TensorEntry | None = None
    inputs: _Several | None = None
    output: TensorEntry | None = None
    outputs: _Several | None = None
    dtype: str
    quantised: bool = False
    loss: Annotated[float, Field(ge=0)] | None = None
    threads: Annotated[int, Field(ge=1)]
    fastest_threads: _Threads | None = None
    device: str
    timing_model: str | None = None
    kind: str = ""
    target: Annotated[dict[str, Any], AfterValidator(_for_devices)]
    versions: dict[str, str] = {}
    created: str = ""
    sparse: SparseEntry | None = None
    kernels: tuple[KernelEntry, ...]
    sets: Annotated[tuple[SetEntry, ...], Field(max_length=_MOST_SETS)] = ()
    shared_weights: SharedWeightsEntry | None = None

    @property
    def takes(self) -> tuple[TensorEntry, ...]:
        """The library's inputs."""
        return self.inputs or (() if self.input is None else (self.input,))

    @property
    def returns(self) -> tuple[TensorEntry, ...]:
        """The library's outputs."""
        return self.outputs or (() if self.output is None else (self.output,))

    @property
    def spec(self) -> ModelSpec:
        """The network. Raises `UserError` for a variant that a family does not have."""
        model = self.model
        if model.contents is None:
            return ModelSpec(model.name, model.alpha, model.resolution, model.activation, model.classes)
        takes, returns = (tuple(tensor.port(only) for tensor in tensors) for only, tensors in self._tensors())
        return OwnSpec.of(model.name, model.contents, takes, returns)

    @property
    def core(self) -> str:
        """The core that the library was compiled for."""
        return str(self.target["mcpu"])

    @property
    def cores(self) -> tuple[str, ...]:
        """The cores of all its sets of kernels."""
        return tuple(kernel_set.core for kernel_set in self.sets) or (self.core,)

    @property
    def fastest_by_core(self) -> dict[str, int]:
        """By the core of each set of kernels, the number of threads on which that is fastest; empty where the manifest does not say."""
        counts = {each.core: each.fastest_threads for each in self.sets or (self,)}
        return {core: count for core, count in counts.items() if count is not None}

    def fastest_in_words(self, only_fewer: bool = False) -> str:
        """Return the numbers of `fastest_by_core` that are smaller than the number of threads it was compiled for, in words such as `2 on
        cortex-a72`.
        """
        return ", ".join(f"{count} on {core}" for core, count in self.fastest_by_core.items() if count < self.threads or not only_fewer)

    @property
    def program(self) -> CEntry:
        """Calling convention of the library, which must be a C library."""
        assert self.c is not None
        return self.c

    @property
    def stateful(self) -> tuple[str, ...]:
        """The inputs that the library keeps between calls, as `--stateful` takes them."""
        return tuple(f"{state.input}={state.output}" for state in self.c.states) if self.c else ()

    @property
    def normalisation(self) -> Normalisation | None:
        """Normalisation of pixels by a C library for images; `None` for others."""
        return self.c.image.normalisation if self.c and self.c.image else None

    def set_for(self, profile: DeviceProfile) -> int | None:
        """Return the index of the set made for a device, or else for its core; `None` without such a set."""
        own = [place for place, each in enumerate(self.sets) if each.device == profile.name]
        alike = [place for place, each in enumerate(self.sets) if each.cpu == profile.cpu]
        return next(iter(own + alike), None)

    def on(self, profile: DeviceProfile) -> Self:
        """Return the library's manifest for a device, with the kernels that run there."""
        place = self.set_for(profile)
        if place is None:
            return self
        found = self.sets[place]
        names = "device", "timing_model", "kind", "target", "kernels", "sparse", "fastest_threads"
        return self.model_copy(update={name: getattr(found, name) for name in names})

    def _tensors(self) -> tuple[tuple[str, tuple[TensorEntry, ...]], ...]:
        return (INPUT_NAME, self.takes), (OUTPUT_NAME, self.returns)

    @model_validator(mode="after")
    def _fits_its_network(self) -> Self:
        if self.format == C and self.c is None:
            raise ValueError("c is missing")
        if any(count > self.threads for count in self.fastest_by_core.values()):
            raise ValueError(f"fastest_threads is more than the {self.threads} that it was compiled for")
        if self.model.contents is not None and None in (self.macs, self.parameters):
            raise ValueError("macs or parameters are missing")
        for only, tensors in self._tensors():
            names = [each.name for each in tensors]
            if not tensors or (len(names) > 1 and (None in names or len(set(names)) < len(names))):
                raise ValueError(f"its {only}s are called {ascii(names)[:60]}")
        spec = self.spec
        for port, tensor in zip((*spec.takes, *spec.returns), (*self.takes, *self.returns), strict=True):
            tensor.check(port, self.dtype)
        return self


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; raise `UserError` for anything else, and for an impossible library."""
    text, _ = read_json(path, _KIND)
    return validated(path, _KIND, text, Manifest)


def write_manifest(path: Path, entries: Mapping[str, Any]) -> None:
    """Write a manifest after checking and sorting its entries by its type."""
    text = json.dumps(entries)
    written = reader_of(Manifest).validate_json(text).model_dump(mode="json", exclude_unset=True)
    assert written == json.loads(text)  # the type knows every entry
    write_text(path, json.dumps(written, indent=1) + "\n")


def note_check(path: Path, entries: Mapping[str, Any]) -> None:
    """Replace a manifest's entries on the check, and leave the others alone."""
    write_manifest(path, {**json.loads(path.read_text(encoding="utf-8")), **entries})


def records_compare(manifest: Manifest, profile: DeviceProfile) -> bool:
    """Return whether the latencies of a manifest's records are comparable with the device's."""
    return (manifest.device, manifest.timing_model) == (profile.name, profile.origin.written)
