"""Networks in files, as a user has them: Python source, what PyTorch exports of it, and ONNX models made by hand."""

from __future__ import annotations

import io
import runpy
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

SIDE = 24
SOURCE = '''"""A network of a user's own."""

import torch
from torch import nn


class Excite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, image):
        gate = torch.relu(self.down(image.mean((2, 3), keepdim=True)))
        return image * nn.functional.hardsigmoid(self.up(gate))


class Block(nn.Module):
    """x + sin(the product of f(x) over all channels), with SiLU; no template has such a product."""

    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(*unit(channels, channels, 3, groups=channels, act=nn.SiLU()), Excite(channels), *unit(channels, channels))

    def forward(self, image):
        return image + torch.sin(torch.prod(1 + torch.tanh(self.body(image)) / 16, 1, keepdim=True))


def unit(inputs, outputs, kernel=1, stride=1, groups=1, act=None):
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), act or nn.ReLU6()]


def with_weights_that_matter(network):
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.5, 0.5)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            nn.init.uniform_(part.weight, 1.0, 2.0)
            nn.init.uniform_(part.bias, -0.25, 1.0)
    return network


def small(channels=3):
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(16, 5)
    first = unit(channels, 16, 3, 2, act=nn.Hardswish())
    return with_weights_that_matter(nn.Sequential(*first, Block(16), Block(16), *head))


def separable():
    """Two blocks of MobileNet v1."""
    layers = unit(3, 8, 3, 2)
    for inputs, outputs, stride in ((8, 16, 1), (16, 32, 2)):
        layers += [*unit(inputs, inputs, 3, stride, inputs), *unit(inputs, outputs)]
    return with_weights_that_matter(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(32, 10)))


def gray():
    return small(1), torch.zeros(1, 1, 24, 24)
'''


def write_python(folder: Path, text: str = SOURCE, name: str = "net.py") -> Path:
    """Return a Python file with these contents."""
    path = folder / name
    path.write_text(text)
    return path


def module_of(path: Path, factory: str = "small", seed: int = 0) -> nn.Module:
    """Return the network of `path.py:factory`, made here."""
    torch.manual_seed(seed)
    made = runpy.run_path(str(path))[factory]()
    module: nn.Module = made[0] if isinstance(made, tuple) else made
    return module.eval()


def write_pt2(module: nn.Module, path: Path, shape: tuple[int, ...] = (1, 3, SIDE, SIDE), **settings: Any) -> Path:
    """Write a module with `torch.export`."""
    torch.export.save(torch.export.export(module, (torch.zeros(shape),), **settings), path)
    return path


def write_onnx(module: nn.Module, path: Path, shape: tuple[int, ...] = (1, 3, SIDE, SIDE), opset: int = 17, **settings: Any) -> Path:
    """Write a module with PyTorch's exporter that needs no further packages."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.zeros(shape),), str(path), dynamo=False, opset_version=opset, **settings)
    return path


def write_onnx_newer(module: nn.Module, path: Path, shape: tuple[int, ...] = (1, 3, SIDE, SIDE)) -> Path:
    """Write a module with PyTorch's default exporter, which needs `onnxscript`."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.zeros(shape),), str(path), dynamo=True)
    return path


def repacked(path: Path, changes: Mapping[str, Callable[[bytes], bytes]], added: Mapping[str, bytes]) -> Path:
    """Return a `.pt2` with other contents in some places, beside it."""
    from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

    changed = path.with_name("changed.pt2")
    with PT2ArchiveReader(io.BytesIO(path.read_bytes())) as reader, PT2ArchiveWriter(str(changed)) as writer:
        for name in reader.get_file_names():
            if not name.startswith(".data/") and name not in ("byteorder", *added):
                content = reader.read_bytes(name)
                writer.write_bytes(name, changes[name](content) if name in changes else content)
        for name, content in added.items():
            writer.write_bytes(name, content)
    return changed


Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Graph:
    """An ONNX graph from `x` to `y`.

    Attributes:
        nodes: nodes as `helper.make_node` makes them.
        constants: constants by name.
    """

    nodes: Sequence[Any]
    constants: Mapping[str, Array]


def convolution(after: Sequence[Any] = (), attributes: Mapping[str, Any] | None = None, side: int = 8) -> Graph:
    """Return a 3×3 convolution of 3 to 4 channels from `x`, then `after` from `c` to `y`; nothing behind it unless said."""
    generator = np.random.default_rng(0)
    weights = {"w": generator.normal(0, 0.4, (4, 3, 3, 3)).astype(np.float32), "b": generator.normal(0, 1, 4).astype(np.float32)}
    settings = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]} if attributes is None else dict(attributes)
    return Graph([helper.make_node("Conv", ["x", "w", "b"], ["c" if after else "y"], **settings), *after], weights)


def batch_norm(source: str) -> tuple[Any, dict[str, Array]]:
    """Return a node from a tensor of three channels to `n`, and its constants."""
    random = np.random.default_rng(5)
    constants = {name: random.normal(0, 1, 3).astype(np.float32) for name in ("scale", "shift", "mean")}
    constants["variance"] = random.uniform(0.5, 2, 3).astype(np.float32)
    return helper.make_node("BatchNormalization", [source, *constants], ["n"], epsilon=1e-3), constants


def write_model(path: Path, graph: Graph, shape: Sequence[int | str | None] = (1, 3, 8, 8), **settings: Any) -> Path:
    """Return an ONNX model of a graph.

    Args:
        shape: shape of `x`; a dimension may have a name, or nothing.
        settings: `dtype`, `opset`, `ir_version`, `domains`, `inputs` and `outputs` (more names), `types` of them, `functions`.
    """
    kind, types = settings.get("dtype", TensorProto.FLOAT), settings.get("types", {})
    inputs = [helper.make_tensor_value_info(name, types.get(name, kind), list(shape)) for name in ("x", *settings.get("inputs", ()))]
    outputs = [helper.make_tensor_value_info(name, types.get(name, kind), [None] * 4) for name in ("y", *settings.get("outputs", ()))]
    constants = [numpy_helper.from_array(array, name) for name, array in graph.constants.items()]
    opsets = [helper.make_opsetid("", settings.get("opset", 17)), *(helper.make_opsetid(name, 1) for name in settings.get("domains", ()))]
    made = helper.make_graph(list(graph.nodes), "graph", inputs, outputs, constants)
    model = helper.make_model(made, opset_imports=opsets, functions=settings.get("functions", ()))
    model.ir_version = settings.get("ir_version", 8)
    path.write_bytes(model.SerializeToString())
    return path


def with_data_beside(path: Path, location: str = "weights.bin") -> Path:
    """Return the model at `path` with its weights in another file."""
    model = onnx.load(str(path))
    onnx.save_model(model, str(path), save_as_external_data=True, location=location, size_threshold=0)
    return path
