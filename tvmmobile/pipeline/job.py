"""A job determines a library: a variant, a device and its logs, and the user's options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.graph.layers import Layer
from tvmmobile.graph.precision import FLOAT32, with_weights
from tvmmobile.graph.tasks import Task
from tvmmobile.native.sets import Suitability
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.own.loading import files_of
from tvmmobile.networks.states import State, states_of, without_states
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.quantisation.data import CalibrationData
from tvmmobile.running.library import Library, stem_of
from tvmmobile.schedules import template_for
from tvmmobile.tuning.logs.files import log_paths
from tvmmobile.tuning.records import Identity
from tvmmobile.tuning.search.twin import twin_identity


@dataclass(frozen=True)
class VariantJob:
    """Everything that determines a library, in a form that can be sent to a worker process.

    Attributes:
        model: the network and where its weights come from.
        options: options of the library.
        profile: the device.
        logs: directories that records are read from.
        out: directory for the results.
        dump_dir: folder for the Relax module after each pass, or `None`.
        twin: twin of a real board; the board's ranks are compared with its modelled records.
        calibration: source of the data that give integers their scales; `None` for other precisions, and quantised networks.
        prepared: the file that keeps the prepared network between the stages of a run; `None` to prepare it in each.
        returns_prepared: true if this job writes that file, for later stages.
        unchecked: reason why the library is not run once it is made; "" to run it and compare it with its reference.
        others: jobs for further devices, whose kernels go into the same library; in their own files they would be libraries like this one.
        share_percent: percent by which each of these sets of kernels may be slower so that they share weights.
        suitability: suitability of the sets of kernels for cores, if there are others: this device's set first, then theirs.
    """

    model: Model
    options: LibraryOptions
    profile: DeviceProfile
    logs: tuple[Path, ...]
    out: Path
    dump_dir: Path | None = None
    twin: Identity | None = None
    calibration: CalibrationData | None = None
    prepared: Path | None = None
    returns_prepared: bool = False
    unchecked: str = "no check was asked for"
    others: tuple[VariantJob, ...] = ()
    share_percent: float = 0.0
    suitability: Suitability | None = None

    @property
    def identity(self) -> Identity:
        """Identity of the records that are used."""
        return Identity.of(self.profile)

    @property
    def sets(self) -> tuple[VariantJob, ...]:
        """The jobs whose kernels the library holds: this one, and the others."""
        return (self, *self.others)

    def task(self, region: tuple[Layer, ...]) -> Task:
        """Return the task of some of the network's layers."""
        return Task(region, self.options.precision.name, self.options.threads, self.profile.machine)

    @property
    def spec(self) -> ModelSpec:
        """The job's variant."""
        return self.model.spec

    @property
    def states(self) -> tuple[State, ...]:
        """The tensors that the library keeps between calls; raises `UserError` if the network lacks those that the options name."""
        return states_of(self.spec, self.options.stateful)

    @property
    def stem(self) -> str:
        """File name without suffix, e.g. `mobilenet_v1_1.0_224_float32_t1`; weights not stored in float32 come behind the precision."""
        weights = None if self.options.weights == FLOAT32.name else self.options.weights
        precision = with_weights(self.options.precision.name, weights)
        return stem_of(without_states(self.spec, self.states).variant, precision, self.options.threads)

    @property
    def library(self) -> Library:
        """The library that the job makes."""
        return Library(
            without_states(self.spec, self.states), self.options.precision.name, self.options.threads, self.out / f"{self.stem}.so"
        )

    def reads(self) -> Mapping[str, Path]:
        """Return the files that the job reads, by path below the folder that `moved` is given."""
        found: dict[str, Path] = {}
        # The job reports a checkpoint that is not a file; all other paths are kept.
        checkpoint, own = self.model.checkpoint, self.model.own
        if checkpoint is not None and checkpoint.is_file():
            found[f"checkpoint/{checkpoint.name}"] = checkpoint
        if own is not None:
            found |= {f"network/{path.relative_to(own.path.parent).as_posix()}": path for path in files_of(own)}
        if self.prepared is not None and self.prepared.is_file():
            found[f"prepared/{self.prepared.name}"] = self.prepared
        elif self.calibration is not None:
            found |= {f"calibration/{name}": path for name, path in self.calibration.reads().items()}
        devices = {self.identity.device: None, **({} if self.twin is None else {self.twin.device: None})}
        for number, directory in enumerate(self.logs):
            found |= {f"logs/{number}/{device}/{path.name}": path for device in devices for path in log_paths(directory, device)}
        for other in self.others:
            found |= other.reads()
        return found

    def writes(self) -> Mapping[str, Path]:
        """Return the folders that the job writes to, by name below the folder that `moved` is given."""
        dumped = {} if self.dump_dir is None else {"dump": self.dump_dir}
        prepared = {"prepared": self.prepared.parent} if self.returns_prepared and self.prepared is not None else {}
        return {"out": self.out, **dumped, **prepared}

    def moved(self, folder: Path) -> VariantJob:
        """Return this job with all its paths below `folder`."""
        checkpoint, own = self.model.checkpoint, self.model.own
        model = replace(
            self.model,
            checkpoint=None if checkpoint is None else folder / "checkpoint" / checkpoint.name,
            own=None if own is None else replace(own, path=folder / "network" / own.path.name),
        )
        return replace(
            self,
            model=model,
            logs=tuple(folder / "logs" / str(number) for number in range(len(self.logs))),
            calibration=None if self.calibration is None else self.calibration.moved(folder / "calibration"),
            out=folder / "out",
            dump_dir=None if self.dump_dir is None else folder / "dump",
            prepared=None if self.prepared is None else folder / "prepared" / self.prepared.name,
            others=tuple(other.moved(folder) for other in self.others),
        )


def template_accepts(task: Task) -> bool:
    """Return whether some template takes a task."""
    return template_for(task) is not None


def variant_job(
    model: Model,
    profile: DeviceProfile,
    logs: Sequence[Path],
    out: Path,
    options: LibraryOptions = LibraryOptions(),
    dump_ir: Path | None = None,
    calibration: CalibrationData | None = None,
) -> VariantJob:
    """Return the job for a network's library for a device, in `out`; see `VariantJob`."""
    dump_dir = dump_ir / model.spec.variant if dump_ir else None
    return VariantJob(model, options, profile, tuple(logs), out, dump_dir, twin_identity(profile), calibration)
