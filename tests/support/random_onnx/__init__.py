"""Random ONNX models, each around one operator."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from random_onnx import elementwise, norms, products, reductions, shapes, windows
from random_onnx.draw import Array, Draw, Impossible
from random_onnx.registry import DRAWINGS

__all__ = ["DRAWINGS", "Case", "draw_case", "sample"]
OPSETS = range(9, 24)
_MODULES = (elementwise, reductions, windows, products, norms, shapes)


def opsets_of(operator: str) -> list[int]:
    """Return those that have the operator."""
    return [opset for opset in OPSETS if onnx.defs.has(operator, opset) and not onnx.defs.get_schema(operator, opset).deprecated]


def sample(count: int, seed: int, operators: Sequence[str] = ()) -> Iterator[Case]:
    """Models of operators in turn, in any order, of random versions."""
    known = [name for name in operators or [name for drawn in DRAWINGS.values() for name in drawn] if opsets_of(name)]
    chosen = [known[int(place)] for place in np.random.default_rng(seed).permutation(len(known))]
    made, numbers = 0, itertools.count()
    while made < count:
        for operator in chosen:
            number = seed * 1_000_000 + next(numbers)
            case = draw_case(operator, int(np.random.default_rng(number).choice(opsets_of(operator))), number)
            if case is not None and made < count:
                made += 1
                yield case


@dataclass(frozen=True)
class Case:
    """A model around one operator, and its inputs.

    Attributes:
        kind: class of the operator.
        seed: seed with which `draw_case` makes it again.
    """

    kind: str
    operator: str
    opset: int
    seed: int
    model: Any
    feeds: dict[str, Array]


def draw_case(operator: str, opset: int, seed: int) -> Case | None:
    """Return a model around an operator of an opset that has it; `None` where it does not have the form drawn."""
    kind = next(kind for kind, operators in DRAWINGS.items() if operator in operators)
    draw = Draw(operator, opset, np.random.default_rng([seed, opset, *operator.encode()]))
    try:
        DRAWINGS[kind][operator](draw)
        model = draw.model()
        onnx.checker.check_model(model)
    except Impossible:
        return None
    return Case(kind, operator, opset, seed, model, draw.feeds)
