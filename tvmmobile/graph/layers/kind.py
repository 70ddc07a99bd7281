"""Facts that the compiler asks of every layer, with the answers of a kind that defines no others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.layers.form import Form
from tvmmobile.graph.parameters import NO_PARAMETERS, Array, LayerParameters


@dataclass(frozen=True)
class Layer(ABC):
    """Base class of all kinds of layers, which are frozen dataclasses. A kind that networks have stands in `graph.layers.KINDS`.

    Attributes:
        reads, writes, wide, bounded, addend: see `ConvertingLayer`.
    """

    # Without types, these are no fields.
    reads = writes = ""
    wide = bounded = addend = False

    @property
    @abstractmethod
    def kind(self) -> str:
        """The layer type as reports name it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Canonical name; two layers are the same kernel exactly when their names agree."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input, with the batch of 1."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output, with the batch of 1: the input's."""
        return self.input_shape

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

    @property
    def least_read(self) -> dict[str, tuple[int, ...]]:
        """Extents of what every kernel reads of the `input` and the others, where a layer does not need all of their elements."""
        return {"input": self.input_shape, **self.side_shapes}

    @property
    def extents(self) -> tuple[float, ...]:
        """Positive numbers that are close together for layers whose schedules suit each other; as many for every layer of the kind."""
        return tuple(map(float, self.input_shape))

    @classmethod
    def forms(cls) -> list[Form]:
        """The forms in which networks have such layers, the most specific first; none where a pass finds the layers by itself."""
        return []

    def compute(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        """Compute the output in floats, of `output_shape`, with PyTorch or NumPy; `side` has the tensors of `side_shapes` by name."""
        raise NotImplementedError(self.name)

    def random_input(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Draw a tensor that tests of kernels read: values as a clamped layer leaves them, about a quarter at the lower bound."""
        return np.clip(generator.normal(1.0, 1.5, shape), 0.0, 6.0)

    def random_parameters(self, generator: np.random.Generator, dtype: np.dtype[Any]) -> LayerParameters:
        """Draw constants of floats with which tests of kernels reach every bound."""
        return NO_PARAMETERS


@dataclass(frozen=True, kw_only=True)
class ConvertingLayer(Layer):
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
