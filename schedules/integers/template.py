"""The base classes of templates for int8 layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tvmmobile.graph.integers import INTEGER_CURVES, LOOKUP
from tvmmobile.graph.layers import Array, Gating, IntegerLayer, LayerParameters, Pool
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.integers.ends import has_steps, pack_constants, scales_sums_at_once
from tvmmobile.schedules.integers.kernel import HALF_VECTOR_BYTES, VECTOR_BYTES
from tvmmobile.schedules.space import Knobs, Space, up_to
from tvmmobile.schedules.template import Template, layer_of

#: Needs that all int8 templates handle.
INTEGERS = frozenset({"integers", "reads", "writes", "wide", "bounded", "addend", "threads"})
#: Steps on sums that `IntegerEnds` handles if the output is int8.
INTEGER_STEPS = frozenset({"residual", *(f"clamp={curve}" for curve in (*INTEGER_CURVES, LOOKUP))})


def is_integer_layer(task: Task, reads: tuple[str, ...] = ("",), writes: tuple[str, ...] = ("",)) -> bool:
    """Return whether a task is one int8 layer whose input and output types are among these; "" means int8."""
    layer = task.region[0]
    if not (task.precision.is_integer and isinstance(layer, IntegerLayer)):
        return False
    if has_steps(layer) or layer.looks_up:
        writes = ("",)
    return layer.reads in reads and layer.writes in writes


class IntegerTemplate(Template):
    """The base class of templates for int8 layers.

    Attributes:
        dot: true if the template is for cores with SDOT, false if for cores without.
    """

    version = 1
    handles = INTEGERS | INTEGER_STEPS
    dot: bool

    def suits(self, task: Task) -> bool:
        """Return whether the template is for the task's core."""
        return ("dot" in task.machine.has) == self.dot

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return the constants of `pack_constants`, for layers without weights."""
        return pack_constants(task.layer, parameters[0])

    def shortcuts(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[dict[str, float]]:
        """Return, for each layer, the shares (0 to 1) of its work that take each shortcut:

        `four_products`: of all products, those that are added four at a time in 16 bits; only for templates that can do so.
        `three_taps`: of all depthwise channels, those whose taps are added three at a time; likewise.
        `unconverted`: 1 if sums stay below 2^22, so that they need no conversion to floats, and results fit in 16 bits.
        `scaled_at_once`: 1 if one instruction scales and rounds sums and adds the zero point.
        """
        shares = []
        for layer, constants in zip(task.region, parameters, strict=True):
            assert isinstance(layer, IntegerLayer)
            ends = {"unconverted": float(not layer.converts_sums), "scaled_at_once": float(scales_sums_at_once(layer))}
            shares.append({**self.product_shortcuts(replace(task, region=(layer,)), knobs, constants.weight), **ends})
        return shares

    def product_shortcuts(self, task: Task, knobs: Knobs, weight: Array) -> dict[str, float]:
        """Return the shortcuts of a single layer's products, see `shortcuts`."""
        return {}


class TileKnobs:
    """The two knobs of register tiles that are limited to a list of (rows, columns), clipped to a layer's extents.

    Args:
        tiles: rows and columns of each tile.
        most: rows and columns of the layer.
        names: names of the knobs.
    """

    def __init__(self, tiles: Sequence[tuple[int, int]], *most: int, names: tuple[str, str] = ("rows", "columns")) -> None:
        self.names = names
        sizes = [up_to(tuple(sorted(set(values))), extent) for values, extent in zip(zip(*tiles, strict=True), most, strict=True)]
        self.options = dict(zip(names, sizes, strict=True))
        self._tiles = {(min(rows, sizes[0][-1]), min(columns, sizes[1][-1])) for rows, columns in tiles}

    def fits(self, knobs: Knobs) -> bool:
        """Return whether the list has a tile with these knob values."""
        return (knobs[self.names[0]], knobs[self.names[1]]) in self._tiles


class IntegerChannels(IntegerTemplate):
    """The base class of templates for int8 layers of one kind without weights, whose channels are a multiple of 8.

    Attributes:
        kind: class of the layers.
        usual: usual value of the knob.

    Knobs:
        vectors: vectors of 16 channels that are computed together; a cache line is four.
    """

    handles = INTEGERS
    enough_trials = 4
    kind: type[Pool | Gating]
    usual: int

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not (isinstance(layer, self.kind) and is_integer_layer(task)) or layer.channels % HALF_VECTOR_BYTES:
            return None
        options = {"vectors": up_to((1, 2, 4), max(layer.channels // VECTOR_BYTES, 1))}
        return Space(self.name, self.version, options, lambda knobs: True, {"vectors": self.usual})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the numbers of pixels, of channels, and of vectors computed together."""
        layer = layer_of(task, self.kind)
        return [math.log2(layer.height * layer.width), math.log2(layer.channels), knobs["vectors"]]
