"""The base classes of templates for integer layers."""

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

#: Needs that integer templates handle besides those they are made for.
INTEGERS = frozenset({"integers", "reads", "writes", "wide", "bounded", "addend", "threads"})
#: Further steps on sums that `IntegerEnds` can do where integers are written.
INTEGER_STEPS = frozenset({"residual", *(f"clamp={curve}" for curve in (*INTEGER_CURVES, LOOKUP))})


def is_integer_layer(task: Task, reads: tuple[str, ...] = ("",), writes: tuple[str, ...] = ("",)) -> bool:
    """Return whether a task is one integer layer that reads and writes integers, or one of the other types listed."""
    layer = task.region[0]
    if not (task.precision.is_integer and isinstance(layer, IntegerLayer)):
        return False
    if has_steps(layer) or layer.looks_up:
        writes = ("",)
    return layer.reads in reads and layer.writes in writes


class IntegerTemplate(Template):
    """The base class of templates for integer layers.

    Attributes:
        dot: true if it is for cores with SDOT; otherwise it is for those without.
    """

    version = 1
    handles = INTEGERS | INTEGER_STEPS
    dot: bool

    def suits(self, task: Task) -> bool:
        """Return whether the core has the instructions that the kernels consist of."""
        return ("dot" in task.machine.has) == self.dot

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return only what `pack_constants` does, for layers without weights."""
        return pack_constants(task.layer, parameters[0])

    def shortcuts(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[dict[str, float]]:
        """Return the shares of each layer's output channels that take each shortcut, from 0 to 1:

        `four_products`: products that are added by fours in 16 bits, of all products; only of templates that do so.
        `three_taps`: taps of depthwise channels that are added by threes; likewise.
        `unconverted`: sums below 2^22 that need no conversion to floats, and whose results fit in 16 bits.
        `scaled_at_once`: sums that are scaled, rounded and moved to the zero point by one instruction.
        """
        found = []
        for layer, constants in zip(task.region, parameters, strict=True):
            assert isinstance(layer, IntegerLayer)
            ends = {"unconverted": float(not layer.converts_sums), "scaled_at_once": float(scales_sums_at_once(layer))}
            found.append({**self.product_shortcuts(replace(task, region=(layer,)), knobs, constants.weight), **ends})
        return found

    def product_shortcuts(self, task: Task, knobs: Knobs, weight: Array) -> dict[str, float]:
        """Return the shortcuts of a single layer's products, see `shortcuts`."""
        return {}


class TileKnobs:
    """The knobs of register tiles that are pairs of a list, none larger than what they cut.

    Args:
        tiles: rows and columns of each.
        most: rows and columns that there are.
        names: names of the knobs.
    """

    def __init__(self, tiles: Sequence[tuple[int, int]], *most: int, names: tuple[str, str] = ("rows", "columns")) -> None:
        self.names = names
        sizes = [up_to(tuple(sorted(set(each))), extent) for each, extent in zip(zip(*tiles, strict=True), most, strict=True)]
        self.options = dict(zip(names, sizes, strict=True))
        self._kept = {(min(rows, sizes[0][-1]), min(columns, sizes[1][-1])) for rows, columns in tiles}

    def fits(self, knobs: Knobs) -> bool:
        """Return whether the list has a tile of these knobs."""
        return (knobs[self.names[0]], knobs[self.names[1]]) in self._kept


class IntegerChannels(IntegerTemplate):
    """The base class of templates for layers of one kind without weights, whose channels divide by 8.

    Attributes:
        kind: class of the layers.
        usual: the knob that a search begins with.

    Knobs:
        vectors: number of vectors of 16 channels that are computed together; a cache line is four.
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
        """Return pixels, channels, and how many of these are computed together."""
        layer = layer_of(task, self.kind)
        return [math.log2(layer.height * layer.width), math.log2(layer.channels), knobs["vectors"]]
