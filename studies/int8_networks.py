"""Networks in int8 as `compile` quantises them, with exact integers on this machine, for studies of what int8 costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.precision import INT8
from tvmmobile.networks.frontend import Imported
from tvmmobile.networks.model import Model
from tvmmobile.networks.own.files import own_file
from tvmmobile.networks.own.loading import load_own
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.prepared import prepared
from tvmmobile.pipeline.variant import import_variant
from tvmmobile.quantisation.data import CalibrationData
from tvmmobile.quantisation.integers import IntegerNetwork

#: Its kernels decide which layers are in int8.
DEVICE = "pi5-virtual"


@dataclass(frozen=True, eq=False)
class QuantisedModel:
    """A network in int8.

    Attributes:
        integers: computes it on this machine; its `flow` computes float32.
        floats: layers that stay in float32.
    """

    integers: IntegerNetwork
    floats: int

    @property
    def layers(self) -> int:
        """Layers in int8."""
        return len(self.integers.steps)


def imported_file(file: Path, size: tuple[int, int] | None = None) -> tuple[Model, Imported]:
    """Return the network in a file, with an input of this height and width where the file leaves them open."""
    own = own_file(str(file))
    assert own is not None
    imported = load_own(own, size, None, 0)
    return Model(imported.spec, own=own), imported


def quantised(
    model: Model, data: CalibrationData, limit: str = "", imported: Imported | None = None, device: str = DEVICE
) -> QuantisedModel:
    """Quantise a network for a device.

    Args:
        limit: the limit as `--max-drop` has it; "" for none.
        imported: the network, where it has been imported already.
    """
    options = LibraryOptions(precision=INT8, max_drop=limit or None)
    job = variant_job(model, find_device(device).profile, (), Path(), options, calibration=data)
    ready = prepared(imported or import_variant(job), job, None)
    assert ready.integers is not None
    return QuantisedModel(ready.integers, len(ready.network.float32_layers))
