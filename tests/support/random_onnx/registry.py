"""Registers the function that draws each operator."""

from __future__ import annotations

from collections.abc import Callable

from random_onnx.draw import Draw

Drawing = Callable[[Draw], None]
#: By class of operators, then by operator.
DRAWINGS: dict[str, dict[str, Drawing]] = {}


def draws(kind: str, *operators: str) -> Callable[[Drawing], Drawing]:
    """Register a function that draws these operators."""

    def register(function: Drawing) -> Drawing:
        DRAWINGS.setdefault(kind, {}).update(dict.fromkeys(operators, function))
        return function

    return register
