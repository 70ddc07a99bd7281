"""Kernel tasks, the units of tuning. A task is a region of one or more layers with its dtype and thread count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from tvmmobile.graph.integers import HIGHEST
from tvmmobile.graph.layers import Layer, Opaque, SumLayer
from tvmmobile.graph.machine import BASELINE, Machine
from tvmmobile.graph.needs import SHAPE, needs_of
from tvmmobile.graph.precision import FLOAT32, UINT8, Precision, is_precision, precision_named, storage_named

_Argument = TypeVar("_Argument")


@dataclass(frozen=True)
class Task:
    """One kernel to find a schedule for.

    Attributes:
        region: the layers the kernel computes, in order; a fused kernel has more than one.
        dtype: name of the precision that the kernel computes in.
        threads: worker threads the kernel may use.
        machine: the core that its templates generate code for. Tasks that differ only in it are equal, because a log is for one device.
    """

    region: tuple[Layer, ...] = field(metadata=SHAPE)
    dtype: str = field(default=FLOAT32.name, metadata=SHAPE)
    threads: int = 1
    machine: Machine = field(default=BASELINE, compare=False, repr=False, metadata=SHAPE)

    @property
    def name(self) -> str:
        """Canonical name: the key of tuning logs, manifests and reports."""
        return "+".join(layer.name for layer in self.region) + f"_{self.dtype}_t{self.threads}"

    @cached_property
    def needs(self) -> frozenset[str]:
        """The needs that a template must declare to be offered this task: see `needs_of`; what its precision needs, and what that
        of its input needs (integers mean nothing to a kernel in floats), and an output in bytes without sign, which no kernel stores;
        and `layers`, where there are several.
        """
        if not is_precision(self.dtype):
            numbers = frozenset([f"dtype={self.dtype}"])
        else:
            read, written = self.storage
            numbers = self.precision.needs_on(self.machine) | read.needs | ({f"writes={UINT8.name}"} if written == UINT8 else set())
        return needs_of(self).union(["layers"] * (len(self.region) > 1), numbers, *map(needs_of, self.region))

    @property
    def precision(self) -> Precision:
        """The precision of the kernel."""
        return precision_named(self.dtype)

    @property
    def storage(self) -> tuple[Precision, Precision]:
        """Precisions of the region's first input and its output: the task's, unless the layers at its ends name others."""
        return storage_named(self.region[0].reads or self.dtype), storage_named(self.region[-1].writes or self.dtype)

    @property
    def rounds(self) -> bool:
        """True if the kernel computes real numbers and stores the nearest integers."""
        return self.storage[1].is_integer and not self.precision.is_integer

    @property
    def tolerance(self) -> float:
        """Largest error of a kernel, relative to the largest magnitude of its reference output, which is not rounded to the stored type:
        half a step is added where that has fewer digits than the arithmetic. Operators without a template compute with floats in integer
        networks, too; the difference is less than a step of a byte.
        """
        if self.precision.is_integer and isinstance(self.region[0], Opaque):
            return FLOAT32.tolerance
        if self.rounds:
            return self.precision.tolerance + 0.5 / HIGHEST
        return self.precision.tolerance + (0.0 if self.keeps_sums else self.storage[1].half_step)

    @property
    def keeps_sums(self) -> bool:
        """True if the output can hold partial sums exactly."""
        return self.storage[1].bytes >= self.precision.arithmetic.bytes

    @property
    def lanes(self) -> int:
        """Elements of a vector register in the kernel's arithmetic."""
        return self.machine.vector_bytes // self.precision.arithmetic.bytes

    @property
    def macs(self) -> int:
        """Multiply-adds of the region."""
        return sum(layer.macs for layer in self.region)

    @cached_property
    def least_macs(self) -> int:
        """Multiply-adds that every direct kernel of the region executes."""
        return sum(layer.least_macs for layer in self.region)

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the other inputs of the region's layers: a kernel's arguments after its input, in this order.

        Named after what they are and the layer's place, as `residual0`, or `source1_0` where the name ends in a number itself.
        """
        return {in_place(name, place): shape for place, layer in enumerate(self.region) for name, shape in layer.side_shapes.items()}

    def sides_of(self, place: int, arguments: Mapping[str, _Argument]) -> dict[str, _Argument]:
        """Pick a layer's arguments besides its input, by the layer's own names, from a mapping with the names of `side_shapes`."""
        return {name: arguments[in_place(name, place)] for name in self.region[place].side_shapes}

    @property
    def layer(self) -> Layer:
        """The only layer of a region of one."""
        if len(self.region) != 1:
            raise ValueError(f"{self.name} covers {len(self.region)} layers")
        return self.region[0]

    @property
    def symbol(self) -> str:
        """The task's name as a C identifier."""
        return symbol_of(self.name)

    @property
    def least_bytes(self) -> int:
        """Bytes of the input, all weights and biases, and the output: with cold caches, every kernel moves at least these."""
        first, *others = self.region
        (data, output), each = self.storage, self.precision.bytes
        given = sum((data.bytes if name == "input" else each) * math.prod(shape) for name, shape in first.least_read.items())
        read = sum(math.prod(shape) for layer in others for shape in layer.side_shapes.values())
        constants = each * sum(layer.constants for layer in self.region) - sum(map(self._saved_bytes, self.region))
        return given + each * read + constants + output.bytes * math.prod(self.region[-1].output_shape)

    def _saved_bytes(self, layer: Layer) -> int:
        """Return the bytes that a layer's weights save compared with the kernel's precision."""
        if not (layer.weights and isinstance(layer, SumLayer)):
            return 0
        return (self.precision.bytes - storage_named(layer.weights).bytes) * math.prod(layer.weight_shape)


def in_place(name: str, place: int) -> str:
    """Return the argument's name for the layer at that position in a region."""
    return f"{name}{'_' * name[-1].isdigit()}{place}"


def symbol_of(name: str) -> str:
    """Return the symbol of a task's function in a library, from the task's name."""
    return "".join(c if c.isalnum() else "_" for c in name)
