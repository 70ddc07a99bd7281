"""Properties that the compiler needs of every layer, with the default answers for every kind, and the forms of layers in networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from tvmmobile.graph.layouts import Layout
from tvmmobile.graph.parameters import NO_PARAMETERS, Array, LayerParameters
from tvmmobile.graph.precision import FLOAT32, Precision

#: The annotated expressions of a form, by their names.
Parts = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """One form of a layer in a network: a pattern of operators, whose parts are examined once they are found.

    Attributes:
        pattern: pattern of Relax operators.
        parts: parts of the pattern that the functions below look at, by name.
        layer: makes the layer from the parts found; `None` if they are not such a layer (a batch, a bias of another shape).
        reads: returns the tensors that a kernel takes: the layer's input, then those of `side_shapes`; none of them is in the pattern.
        constants: returns the layer's constants.
    """

    pattern: Any
    parts: Parts
    layer: Callable[[Parts], Layer | None]
    reads: Callable[[Parts], Sequence[Any]] = lambda found: found["call"].args[:1]
    constants: Callable[[Parts], LayerParameters] = lambda _: NO_PARAMETERS

    @cached_property
    def operators(self) -> frozenset[str]:
        """The operators that are in every match, such as `relax.add`: a network that lacks one of them has no such layer."""
        return _operators_of_all_matches(self.pattern)


def _operators_of_all_matches(pattern: Any) -> frozenset[str]:
    """Return the operators that every match of a pattern has."""
    from tvm.ir import Op
    from tvm.relax.dpl import CallPattern, ExprPattern, OrPattern

    if isinstance(pattern, OrPattern):
        return _operators_of_all_matches(pattern.left) & _operators_of_all_matches(pattern.right)
    if not isinstance(pattern, CallPattern):
        return frozenset()
    called = pattern.op.expr if isinstance(pattern.op, ExprPattern) else None
    return frozenset([str(called.name)] if isinstance(called, Op) else []).union(*map(_operators_of_all_matches, pattern.args))


def form_of_operator(name: str, layer: Callable[[Parts], Layer | None], others: Parts | None = None, **functions: Any) -> Form:
    """Return the form of a single operator, the part `call`, whose first operand the kernel reads; `others` are parts, too."""
    from tvm.relax.dpl import is_op, wildcard

    call = is_op(f"relax.{name}")(wildcard(), *(others or {}).values())
    return Form(call, {"call": call, **(others or {})}, layer, **functions)


@dataclass(frozen=True)
class IntegerFacts:
    """Facts about an integer layer that its kernels depend on, see `graph.integers`.

    Attributes:
        wide: true if its sums may leave the range that kernels convert to floats at no cost (`IntegerLayer.is_wide`).
        bounded: true if its output's bounds lie inside int8.
        addend: true if a float per channel is added to each scaled sum before rounding.
    """

    wide: bool = False
    bounded: bool = False
    addend: bool = False

    @property
    def name(self) -> str:
        """The facts, as in a layer's name."""
        return "_".join(field.name for field in fields(self) if getattr(self, field.name))


NO_FACTS = IntegerFacts()


@dataclass(frozen=True)
class Layer(ABC):
    """Base class of all kinds of layers, which are frozen dataclasses. `graph.layers.KINDS` lists those that networks have.

    Attributes:
        reads, writes: see `ConvertingLayer`.
        weights: see `SumLayer`.
        integers: see `layers.integer.IntegerLayer`.
        extents: names of the sizes that must be close for one layer's schedule to suit another; empty for the input's extents.
        unlike: other properties that distinguish layers, each with the distance between layers that differ in it. A layer whose kind
            lacks a property differs from layers whose kinds have it.
        computes_batches: `compute` takes any number of images, one after another along the first axis.
        reads_blocks: true if the first input may be stored in blocks of channels, see `with_layouts`.
        reads_lines: true if kernels read every cache line of the first input once, in any layout.
        passes_factors: true if equalisation can move factors from the input's channels to the output's.
    """

    # Untyped, so not dataclass fields.
    reads = writes = weights = ""
    integers = NO_FACTS
    extents: ClassVar[tuple[str, ...]] = ()
    unlike: ClassVar[Mapping[str, float]] = {"reads_pieces": 1.0}
    computes_batches: ClassVar[bool] = False
    passes_factors: ClassVar[bool] = False
    reads_blocks: ClassVar[bool] = False
    reads_lines: ClassVar[bool] = False

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
        """Extents of the part of the `input` and of each other tensor that every kernel reads."""
        return {"input": self.input_shape, **self.side_shapes}

    @classmethod
    def forms(cls) -> list[Form]:
        """Return the forms that such layers have in networks, the most specific first; none if a pass of its own finds them."""
        return []

    def compute(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        """Compute the output in floats, of `output_shape`, with PyTorch or NumPy; `side` has the tensors of `side_shapes` by name."""
        raise NotImplementedError(self.name)

    @property
    def writes_blocks(self) -> bool:
        """True if the output, normally in NHWC, may be stored in blocks of channels instead, see `with_layouts`."""
        return False

    def with_layouts(self, before: Layout, after: Layout) -> Self:
        """Return the layer with other layouts of its first input and output; NHWC means the layer's own layout. Kinds with only one layout
        return the layer itself.
        """
        return self

    @property
    def is_pointwise(self) -> bool:
        """True for a matrix product over all pixels of an image."""
        return False

    @property
    def reads_pieces(self) -> bool:
        """True if the first input is made of slices of tensors."""
        return False

    @property
    def is_depthwise(self) -> bool:
        """True for a convolution with one filter per channel."""
        return False

    @property
    def summed_channels(self) -> int:
        """Number of input channels that a convolution sums at each tap."""
        return 0

    @property
    def sum_bounds(self) -> tuple[float, float] | None:
        """Bounds applied to complete sums of products, infinite if unbounded; `None` without such sums, or if other steps follow."""
        return None

    @property
    def looked_up_curve(self) -> str:
        """The curve that integer kernels look up for complete sums; "" for none."""
        return ""

    @property
    def gives_factors(self) -> bool:
        """True if equalisation may divide the output's channels by factors, where `sum_bounds` allow it."""
        return False

    def takes_factors(self, channels: int) -> bool:
        """Return whether equalisation may scale the weights of each of the first input's `channels` by a factor."""
        return False

    def has_integer_form(self, curves: Collection[str]) -> bool:
        """Return whether the layer can be computed in integers, with one of some curves if it has any."""
        return False

    def composed_as(self, precision: Precision) -> Precision | None:
        """Return the precision in which a template must take the layer in a network of `precision`; `None` if no such network has it.

        Layers of networks in integers are found in float32.
        """
        return FLOAT32 if precision.is_integer else precision

    @property
    def apart_in_integers(self) -> bool:
        """True if networks quantised from calibration data contain the layer's operators instead of the layer: some work on plain
        integers.
        """
        return False

    def random_input(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Draw a tensor that tests of kernels read: values as a clamped layer leaves them, about a quarter at the lower bound."""
        return np.clip(generator.normal(1.0, 1.5, shape), 0.0, 6.0)

    def random_parameters(self, generator: np.random.Generator, dtype: np.dtype[Any]) -> LayerParameters:
        """Draw float constants with which tests of kernels reach every bound."""
        return NO_PARAMETERS


@dataclass(frozen=True, kw_only=True)
class ConvertingLayer(Layer):
    """A layer whose input and output may be stored in another precision than the kernel's, which then converts what it loads and stores.

    Attributes:
        reads, writes: names of the precisions in which the first input and the output are stored; "" for the kernel's. An integer layer may
            also read `uint8`.
    """

    reads: str = ""
    writes: str = ""

    def _stored_name(self) -> list[str]:
        return [f"from_{self.reads}"] * bool(self.reads) + [f"to_{self.writes}"] * bool(self.writes)
