"""Networks of the user's own, loaded and compiled for this machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from lowered_networks import prepare
from small_networks import accepted, kernels_of, run_lowered

from tvmmobile.graph.lowering import lower
from tvmmobile.graph.network import Network, read_network
from tvmmobile.kernels.reference import relative_error
from tvmmobile.networks.frontend import Imported
from tvmmobile.networks.own.files import Side, own_file
from tvmmobile.networks.own.loading import load_own

#: Largest relative error of a compiled network.
TOLERANCE = 1e-5
HEAD = "import torch\nfrom torch import nn\n"
CONV = "nn.Conv2d(3, 4, 3, padding=1)"


def load(model: str | Path, side: Side | None = None, checkpoint: Path | None = None, seed: int = 0) -> Imported:
    """Return the network that `--model` names."""
    file = own_file(str(model))
    assert file is not None
    return load_own(file, side, checkpoint, seed)


@lru_cache(maxsize=8)
def loaded(model: str, side: Side | None = None) -> Imported:
    """Return the network of a file that does not change, read once: for tests of what is made of it."""
    return load(model, side)


def network_of(imported: Imported) -> Network:
    """Return its nodes after the passes."""
    return _network_of(imported.module)


@lru_cache(maxsize=8)
def _network_of(module: Any) -> Network:
    return read_network(*prepare(module, accepted))


def names_of(imported: Imported) -> list[str]:
    """Return the names of its layers, in execution order."""
    return [node.layer.name for node in network_of(imported).nodes]


def image_for(imported: Imported) -> np.ndarray[Any, Any]:
    """Noise of its input's shape, always the same."""
    return np.random.default_rng(3).normal(0.0, 1.0, imported.spec.input_shape).astype(np.float32)


def run_compiled(imported: Imported, path: Path) -> np.ndarray[Any, Any]:
    """Return the output of the network compiled for this machine, for `image_for`."""
    network = network_of(imported)
    return run_lowered(lower(network, kernels_of(network)), image_for(imported), path)


def error_of(imported: Imported, path: Path) -> float:
    """Relative error of the compiled network against its reference."""
    return relative_error(run_compiled(imported, path), imported.compute([image_for(imported)])[0])


@dataclass(frozen=True)
class Files:
    """One network in every format."""

    python: str
    pt2: Path
    onnx: Path

    @property
    def all(self) -> tuple[str, ...]:
        """The three as `--model` takes them."""
        return self.python, str(self.pt2), str(self.onnx)


def module_text(forward: str) -> str:
    """Source of a network with a convolution `self.conv`; `forward` is the statement that returns its output for `x`."""
    return (
        f"{HEAD}class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.conv = {CONV}\n"
        f"        self.count = nn.Buffer(torch.zeros(1))\n    def forward(self, x):\n        {forward}\ndef small():\n    return Net()\n"
    )
