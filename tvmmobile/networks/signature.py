"""The inputs and outputs of a network: tensors with names, shapes and types."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tvmmobile.graph.precision import FLOAT32

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Types besides float32 that a network may take or return, as NumPy calls them.
INTEGERS = ("uint8", "int8", "int32", "int64")
#: Orders of axes, by rank; of what has none here the axes have no letters.
LAYOUTS = {2: "NC", 4: "NCHW"}
#: Axes of images whose channels are last, as TensorFlow has them.
CHANNELS_LAST = "NHWC"
#: Characters of a name.
MOST_NAME = 200
#: Names of the only input and of the only output.
INPUT_NAME, OUTPUT_NAME = "input", "output"
#: Behind an output's name in that of the output with its number of rows.
COUNT = "/count"


@dataclass(frozen=True, order=True)
class Port:
    """An input or output of a network.

    Attributes:
        name: `input` or `output` where it is the only one; else as the network's file has it.
        shape: its extents.
        dtype: float32, which libraries may store in another precision, or one of `INTEGERS`.
        axes: `NHWC` for an image whose channels are last; "" where the rank says the order of its axes.
        zero: the integer that stands for 0 in a quantised input.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = FLOAT32.name
    axes: str = ""
    zero: int = field(default=0, compare=False)

    @property
    def layout(self) -> str:
        """The order of its axes, such as `NCHW`; "" if they have no letters."""
        return self.axes or LAYOUTS.get(len(self.shape), "")

    @property
    def is_float(self) -> bool:
        """True if the tensor holds real numbers."""
        return self.dtype == FLOAT32.name

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def classes(self) -> int:
        """Number of classes that it scores; 0 for other tensors, such as an image or a single number."""
        return self.elements if self.elements == max(self.shape) > 1 else 0

    def stored(self, io_dtype: str) -> str:
        """Return its type in a library whose floats are stored as `io_dtype`."""
        return io_dtype if self.is_float else self.dtype

    def noise(self, generator: np.random.Generator) -> npt.NDArray[Any]:
        """Return white noise with the spread of normalised images; for integers 0 and 1, which may be indices, or any 8-bit values."""
        import numpy as np

        if self.is_float:
            return generator.normal(0.0, 1.0, self.shape).astype(np.float32)
        low, high = {"uint8": (0, 256), "int8": (-128, 128)}.get(self.dtype, (0, 2))
        return generator.integers(low, high, self.shape).astype(self.dtype)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {words(self.shape)}"


def words(shape: Sequence[int]) -> str:
    """Return a shape for people: `[1, 3, 224, 224]`."""
    return f"[{', '.join(map(str, shape))}]"


def named(ports: tuple[Port, ...], only: str) -> tuple[Port, ...]:
    """Return these tensors; a single one is called `only`."""
    return ports if len(ports) > 1 else (replace(ports[0], name=only),)


def keys_of(ports: Sequence[Port], only: str) -> list[str]:
    """Return the names of these tensors in a file of arrays: `only`, or with numbers behind where there are several."""
    return [only] if len(ports) == 1 else [f"{only}{number}" for number in range(len(ports))]
