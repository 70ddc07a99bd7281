"""Converts PyTorch's resizes. PyTorch itself computes each output pixel's input pixels, axis by axis: its kernels decide how positions
are computed, from the factor or from the sizes, and what is rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.taps import Taps, copied, of_matrix
from tvmmobile.networks.resizes import Rule, resized
from tvmmobile.system.errors import UserError

#: Without the dimensions' number and `d`: operators that copy pixels, and those that add up weighted ones.
_NEAREST = ("upsample_nearest", "_upsample_nearest_exact")
WEIGHTED = {
    "upsample_linear1d": 1,
    "upsample_bilinear2d": 2,
    "upsample_bicubic2d": 2,
    "_upsample_bilinear2d_aa": 2,
    "_upsample_bicubic2d_aa": 2,
    "_upsample_lanczos2d_aa": 2,
    "upsample_trilinear3d": 3,
}
#: Dimensions that are resized, by the operator's name.
OPERATORS = {f"{name}{dimensions}d": dimensions for name in _NEAREST for dimensions in (1, 2, 3)} | WEIGHTED


def resize_converters() -> dict[str, Callable[[Any, Any], Any]]:
    """Return converters as in `torch_operators`, by the operator's name and overload."""
    return {f"{name}.{overload}": partial(_convert, name) for name in OPERATORS for overload in ("default", "vec")}


def is_resize(operator: Any) -> bool:
    """Return whether an operator of PyTorch is a resize."""
    return operator.overloadpacket.__name__ in OPERATORS and operator._overloadname in ("default", "vec")


def _convert(name: str, node: Any, importer: Any) -> Any:
    dimensions, corners_given = OPERATORS[name], name in WEIGHTED
    data = importer.env[node.args[0]]
    shape, out = shape_of(data), [int(extent) for extent in node.meta["val"].shape]
    corners, factors = _arguments(node, corners_given, dimensions)
    if name.endswith("_aa") and out[3] == 1 and shape[2:] != out[2:]:
        raise UserError(
            f"the network has {name} to a width of 1, for which PyTorch's result depends on how the input lies in memory.",
            "Export it without antialias.",
        )
    axes = {}
    for place, axis in enumerate(range(2, 2 + dimensions)):
        given = [corners] if corners_given else []
        axes[axis] = _taps(name, shape[axis], out[axis], given, place, dimensions, factors[place])
    whole = all(more % extent == 0 for more, extent in zip(out[2:], shape[2:], strict=True))
    if corners_given:
        rule = Rule("align_corners" if corners else "half_pixel")
    else:
        rule = Rule("half_pixel", "round") if whole else Rule("asymmetric", "floor")
    return importer.block_builder.emit(resized(data, shape, axes, str(data.ty.dtype), rule))


def _arguments(node: Any, corners_given: bool, dimensions: int) -> tuple[bool, list[float | None]]:
    """Return whether corners are aligned, and the factors if they matter; both overloads have the sizes first."""
    names = [argument.name for argument in node.target._schema.arguments]
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    corners = bool(given.get("align_corners", False)) and corners_given
    if node.target._overloadname == "vec":
        factors = given.get("scale_factors")
        return corners, [None] * dimensions if factors is None else [float(factor) for factor in factors]
    found = [given.get(name) for name in names if name.startswith("scales")]
    return corners, [None if factor is None else float(factor) for factor in found]


def _taps(name: str, inputs: int, outputs: int, corners: list[bool], place: int, dimensions: int, factor: float | None) -> Taps:
    """Compute the taps along an axis, by its number, with PyTorch, from images that are one pixel wide along the other axes except one with
    a pixel for each weight.
    """
    operator = getattr(torch.ops.aten, name).default
    factors: list[float | None] = [None] * dimensions
    extents, size = [1] * dimensions, [1] * dimensions
    extents[place], size[place], factors[place] = inputs, outputs, factor
    if not corners:
        line = torch.arange(inputs, dtype=torch.float32).reshape(1, 1, *extents)
        return copied(operator(line, size, *factors).reshape(-1).numpy().astype(np.int64))
    if dimensions == 1:
        lines = torch.eye(inputs).reshape(1, inputs, inputs)
        return of_matrix(operator(lines, size, *corners, *factors)[0].numpy().T)
    neighbour = (place + 1) % dimensions
    extents[neighbour] = size[neighbour] = inputs
    lines = torch.eye(inputs).reshape(1, 1, *extents)
    matrix = operator(lines, size, *corners, *factors).reshape(*(size[axis] for axis in sorted((place, neighbour)))).numpy()
    return of_matrix(matrix if place < neighbour else matrix.T)


def keep_resizes(program: Any) -> None:
    """Change an exported program's resizes to the overload that PyTorch decomposes only by our table of decompositions."""
    for node in program.graph.nodes:
        name = getattr(node.target, "__name__", "").removesuffix(".default")
        if node.op != "call_function" or name not in ("upsample_bilinear2d", "upsample_bicubic2d"):
            continue
        corners, factors = _arguments(node, True, OPERATORS[name])
        image, size = node.args[0], [int(extent) for extent in node.meta["val"].shape[2:]]
        extents = [int(extent) for extent in image.meta["val"].shape[2:]]
        if factors == [None, None]:
            node.args = image, size, corners, None
        elif [int(extent * (factor or 0)) for extent, factor in zip(extents, factors, strict=True)] == size:
            node.args = image, None, corners, factors
        else:
            continue
        node.kwargs, node.target = {}, getattr(torch.ops.aten, name).vec
    program.graph_module.recompile()
