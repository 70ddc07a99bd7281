"""A network imported once more, so that every operator's value can be compared with that of the program that judges it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Traced:
    """The real values inside a network for some inputs, in the order in which they are computed.

    Attributes:
        operators: which operator of the source computes each, for messages, such as `Resize "up1/Resize"`.
        values: as the judge computes them.
        module: the imported Relax module, which returns them.
    """

    operators: tuple[str, ...]
    values: tuple[Array, ...]
    module: Any


#: Traces a network for its inputs.
Trace = Callable[[Sequence[Array]], Traced]
