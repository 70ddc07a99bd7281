"""Arguments of calls that take one value or several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def one_or_several(given: Any) -> tuple[Any, ...]:
    """Return the values of an argument that takes one or several; a text is one."""
    return (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
