"""A job's network, prepared for the planner, and the file that keeps it between the stages of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tvmmobile.graph.composed import ComposedLayer
from tvmmobile.graph.integers import IntegerParameters
from tvmmobile.graph.layers import Array, LayerParameters
from tvmmobile.graph.network import Float32Layer, Network, names_of, read_network
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import task_from_json, task_to_json
from tvmmobile.running.library import Reference
from tvmmobile.system.files import replacing

#: The types of layers' constants, by name.
_PARAMETERS: dict[str, type[LayerParameters]] = {each.__name__: each for each in (LayerParameters, IntegerParameters)}


@dataclass(frozen=True)
class NetworkOrigin:
    """The manifest's entries on the network that a library is made of.

    Attributes:
        weights, macs, parameters: see `Imported`.
        reference_program: the program that computed the reference outputs.
        quantised: true if the network's file has its weights in integers.
        loss: error of the network in integers, if it is too large for a library to be compared with anything but these; else `None`.
    """

    weights: str
    reference_program: str
    macs: int | None
    parameters: int | None
    quantised: bool
    loss: float | None = None


@dataclass(frozen=True, eq=False)
class PreparedVariant:
    """A network for the planner, with everything that its library's manifest and reference record about it.

    Attributes:
        reference: inputs and the network's outputs for them.
        integers: outputs in exact integers on the host, if that is what the library computes.
        details: the manifest's entries on how numbers are stored.
    """

    network: Network
    reference: Reference
    origin: NetworkOrigin
    integers: tuple[Array, ...] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write arrays, and the rest as JSON in `text`."""
        import tvm

        groups = {**self.reference._asdict(), "integers": self.integers or ()}
        arrays = {f"{name}{number}": array for name, group in groups.items() for number, array in enumerate(group)}
        layers = {}
        for name, node in zip(names_of(self.network), self.network.nodes, strict=True):
            if node.parameters is not None:
                stored, numbers = _stored(node.parameters)
                arrays |= {f"{name}/{key}": array for key, array in stored.items()}
                layers[name] = {
                    "task": task_to_json(Task((node.layer,), node.dtype)),
                    "parameters": type(node.parameters).__name__,
                    "arrays": list(stored),
                    "numbers": numbers,
                }
        text = {
            "module": tvm.ir.save_json(self.network.module),
            "layers": layers,
            "float32_layers": [asdict(one) for one in self.network.float32_layers],
            "groups": [len(group) for group in groups.values()],
            "origin": asdict(self.origin),
            "details": self.details,
        }
        arrays["text"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)

    @classmethod
    def read(cls, path: Path) -> PreparedVariant:
        """Read what `write` wrote."""
        import tvm

        with np.load(path, allow_pickle=False) as stored:
            text = json.loads(stored["text"].tobytes())
            composed = {}
            for name, entry in text["layers"].items():
                parameters = _parameters(entry, {key: stored[f"{name}/{key}"] for key in entry["arrays"]})
                task = task_from_json(entry["task"])
                composed[name] = ComposedLayer(task.region[0], parameters, task.dtype)
            counts = zip((*Reference._fields, "integers"), text["groups"], strict=True)
            *reference, integers = (tuple(stored[f"{name}{number}"] for number in range(count)) for name, count in counts)
        floats = tuple(Float32Layer(**one) for one in text["float32_layers"])
        network = replace(read_network(tvm.ir.load_json(text["module"]), composed), float32_layers=floats)
        return cls(network, Reference(*reference), NetworkOrigin(**text["origin"]), integers or None, text["details"])


def _stored(parameters: LayerParameters) -> tuple[dict[str, Array], dict[str, float]]:
    """Return a layer's constants by field: arrays, those of a tuple as `field/number`, and numbers."""
    arrays, numbers = dict[str, Array](), {}
    for name, value in vars(parameters).items():
        if isinstance(value, np.ndarray):
            arrays[name] = value
        elif isinstance(value, tuple):
            arrays |= {f"{name}/{place}": array for place, array in enumerate(value)}
        else:
            numbers[name] = value
    return arrays, numbers


def _parameters(entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> LayerParameters:
    """Return the constants that `_stored` took apart."""
    fields: dict[str, Any] = dict(entry["numbers"])
    for key, array in arrays.items():
        name, _, place = key.partition("/")
        fields[name] = (*fields.get(name, ()), array) if place else array
    return _PARAMETERS[entry["parameters"]](**fields)
