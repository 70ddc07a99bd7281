"""The arithmetic of kernels: one value that templates, packing, reference, verification, logs and reports read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tvmmobile.graph.machine import Machine
from tvmmobile.system.errors import UserError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Precision:
    """One kind of numbers.

    A network's own input and output stay float32, whatever its kernels compute in: the first and the last kernel convert them
    (`graph/passes/to_precision.py`).

    Attributes:
        name: NumPy's and TVM's name of weights and activations in memory; part of the names of tasks, logs and libraries.
        accumulator: type name of sums in registers.
        total: type name of sums that grow with every term, such as a mean's, and of exponential functions.
        reference: type name of a kernel's reference output, which PyTorch computes.
        tolerance: largest error of a kernel, relative to the largest magnitude of that.
        network_tolerance: largest error of a network, relative to the largest magnitude of the float32 network's output.
        fma_rate: multiply-adds that a core can start in a cycle, as a multiple of those in float32; see `rate_on`.
        bits: integers of the same width with vector maximum and minimum, because positive numbers sort like their bits; "" for none.
        needs: need that a template must declare to be asked for it (`Task.needs`); none if kernels multiply and add as in float32.
        chain: most terms of a product's sum that are added one after another, before such sums are; 0 for any number of terms.
        computes: name of the precision that kernels compute in, if they widen what they load and narrow what they store; "" for its own.
        group: terms of a product that an instruction multiplies and adds, whose weights therefore lie together.
        single: name of the precision of convolutions without such groups, such as depthwise ones, where its range suffices.
        requires: the feature that a core must have for it, see `Machine.has`; "" for nothing beyond ARMv8.0.
    """

    name: str
    accumulator: str
    total: str
    reference: str
    tolerance: float
    network_tolerance: float
    fma_rate: float
    bits: str = ""
    needs: frozenset[str] = frozenset()
    requires: str = ""
    chain: int = 0
    computes: str = ""
    group: int = 1
    single: str = ""

    @property
    def arithmetic(self) -> Precision:
        """The precision that kernels compute in."""
        return precision_named(self.computes or self.name)

    @property
    def numpy(self) -> np.dtype[Any]:
        """NumPy's type of stored numbers."""
        import ml_dtypes  # `tvmmobile models` needs precisions without NumPy
        import numpy as np

        return np.dtype(getattr(ml_dtypes, self.name, self.name))

    @cached_property
    def bytes(self) -> int:
        """Size of a stored element."""
        return self.numpy.itemsize

    @cached_property
    def half_step(self) -> float:
        """Largest relative error of rounding a real number to it; only for floating-point precisions."""
        return float(self.limits.eps) / 2

    @property
    def limits(self) -> Any:
        """Largest, least normal and next number, as NumPy's `finfo`; only for floating-point precisions."""
        import ml_dtypes

        return ml_dtypes.finfo(self.numpy)  # type: ignore[no-untyped-call]

    @cached_property
    def is_integer(self) -> bool:
        """True if stored numbers are integers, which represent real ones by a scale and a zero point."""
        return self.numpy.kind in "iu"

    @property
    def vectors_of_totals(self) -> int:
        """Number of vectors that hold the totals of one."""
        import numpy as np

        return np.dtype(self.total).itemsize // self.bytes

    def tolerance_of(self, quantised: bool) -> float:
        """Return the largest error of a network in this precision, `quantised` by its file or not; see `network_tolerance`."""
        return max(self.network_tolerance, _ROUNDED_TOLERANCE) if quantised else self.network_tolerance

    def needs_on(self, machine: Machine) -> frozenset[str]:
        """Return `needs`, plus features that the core lacks, which no template handles."""
        return self.needs | ({f"core with {self.requires}"} if self.requires and self.requires not in machine.has else set())

    def rate_on(self, machine: Machine) -> float:
        """Return `fma_rate` on a core. `SMULL` multiplies eight bytes at a time, twice as many as floats, `SDOT` 16, `SMMLA` 32."""
        if not self.is_integer:
            return self.fma_rate
        return next((rate for feature, rate in _INTEGER_RATES.items() if feature in machine.has), self.fma_rate)


#: Tolerance of a network that rounds to integers where its file says, in any precision: a value at a tie is one step off in one program or
#: the other, and so are those computed from it. A step of a logit can be eleven of a probability's 255.
_ROUNDED_TOLERANCE = 0.1
#: `fma_rate` of integers, by the best instruction that a core has.
_INTEGER_RATES = {"matrix": 8.0, "dot": 4.0}
#: Sums of a thousand terms stay below 1e-5 in float32.
FLOAT32 = Precision("float32", "float32", "float32", "float32", tolerance=1e-4, network_tolerance=1e-4, fma_rate=1.0, bits="int32")
#: Sums too are in half precision: in chains, those of 512 terms are within half a percent (docs/kernels-precisions.md).
FLOAT16 = Precision(
    "float16",
    "float16",
    "float32",
    "float32",
    tolerance=1e-2,
    network_tolerance=5e-2,
    fma_rate=2.0,
    bits="int16",
    requires="half",
    chain=64,
)
#: Half of float32's bits, with its range: products of four terms at a time are added in float32, and all else is computed in it.
BFLOAT16 = Precision(
    "bfloat16",
    "float32",
    "float32",
    "float32",
    tolerance=2e-2,
    network_tolerance=2e-1,
    fma_rate=4.0,
    needs=frozenset({"widened"}),
    requires="bfloat16",
    computes="float32",
    group=4,
    single=FLOAT16.name,
)
#: Scaled integers, see docs/int8-arithmetic.md: kernels compute exactly what is defined there.
INT8 = Precision("int8", "int32", "int32", "int8", tolerance=0.0, network_tolerance=0.25, fma_rate=2.0, needs=frozenset({"integers"}))
#: Bytes without sign, in which a quantised network may take its input: no kernel computes in them, and what one loads becomes int8.
UINT8 = replace(INT8, name="uint8", reference="uint8")
#: Names of the precisions in which kernels in float32 may read their weights, see `graph.small_weights`.
SMALL_WEIGHTS = (FLOAT16.name, INT8.name)
_KNOWN = {precision.name: precision for precision in (FLOAT32, FLOAT16, BFLOAT16, INT8)}


def register(precision: Precision) -> None:
    """Add a precision to this process; see `workers.Workers` for the others."""
    _KNOWN[precision.name] = precision


def with_weights(dtype: str, weights: str | None) -> str:
    """Return a precision as names show it: weights that are stored in fewer bits follow, such as `float32_int8weights`."""
    return dtype if weights is None else f"{dtype}_{weights}weights"


def is_precision(name: str) -> bool:
    """Return whether there is a precision of that name."""
    return name in _KNOWN


def precision_named(name: str) -> Precision:
    """Return the precision that a task, a log or a library names; `UserError` if this version has none of that name."""
    if name not in _KNOWN:
        raise UserError(f"precision {name!r} is not known.", f"Give one of: {', '.join(sorted(_KNOWN))}.")
    return _KNOWN[name]


def storage_named(name: str) -> Precision:
    """Return the precision that a layer reads or writes: one as in `precision_named`, or `UINT8`."""
    return UINT8 if name == UINT8.name else precision_named(name)
