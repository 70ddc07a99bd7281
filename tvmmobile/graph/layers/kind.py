"""Facts that the compiler asks of every layer, with the answers of a kind that defines no others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


class LayerKind(ABC):
    """Base class of all kinds of layers.

    Attributes:
        reads, writes, wide, bounded, addend: see `ConvertingLayer`.
    """

    reads: str = ""
    writes: str = ""
    wide: bool = False
    bounded: bool = False
    addend: bool = False

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input, with the batch of 1."""

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all other inputs by name, in the order in which a kernel takes them."""
        return {}

    @property
    def constants(self) -> int:
        """Number of weights and biases."""
        return 0

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return 0

    @property
    def least_macs(self) -> int:
        """Multiply-adds that every direct kernel executes."""
        return self.macs

    @property
    def read_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of all tensors that the layer reads."""
        return (self.input_shape, *self.side_shapes.values())


@dataclass(frozen=True, kw_only=True)
class ConvertingLayer(LayerKind):
    """A layer whose input and output may be stored in another precision than the kernel's, which then converts what it loads and stores.

    Attributes:
        reads, writes: names of the precisions in which the first input and the output are stored; "" for the kernel's. An integer layer may
            also read `uint8`.
        wide: of an integer layer: its sums may leave the range that kernels convert to floats for nothing (`graph.integers.is_wide`).
        bounded: of an integer layer: its output's bounds lie inside int8.
        addend: of an integer layer: a float of its channel is added to each scaled sum before it is rounded (`graph.integers`).
    """

    reads: str = ""
    writes: str = ""
    wide: bool = False
    bounded: bool = False
    addend: bool = False

    def _stored_name(self) -> list[str]:
        stored = [f"from_{self.reads}"] * bool(self.reads) + [f"to_{self.writes}"] * bool(self.writes)
        return stored + ["wide"] * self.wide + ["bounded"] * self.bounded + ["addend"] * self.addend
