"""Mutations of LiteRT models that change one number or vector of numbers anywhere in them.

Each keeps the file well-formed, so that it comes as far as the importer; bytes and JSON values at random rarely do.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import lru_cache
from random import Random
from typing import Any

from hostile.extremes import EXTREMES, REALS
from hostile.mutations import mutate_bytes


@lru_cache(maxsize=16)
def _litert_model(content: bytes) -> Any:
    from litert_files import schema

    return schema().ModelT.InitFromPackedBuf(content, 0)


def mutate_litert(content: bytes, random: Random) -> bytes:
    """Change one thing of a LiteRT model; bytes where it cannot be written."""
    import flatbuffers

    try:
        model = copy.deepcopy(_litert_model(content))
        parts = list(_fields(model))
        holder, name, value = random.choice(parts)
        setattr(holder, name, _litert_value(value, random))
        if random.randrange(8) == 0:
            del model.subgraphs[0].operators[random.randrange(len(model.subgraphs[0].operators))]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
    except Exception:  # flatbuffers' own, for values that do not fit
        return mutate_bytes(content, random)


def _fields(part: Any, data: bool = False) -> Iterator[tuple[Any, str, Any]]:
    """Every number and vector of numbers below an object; of buffers, small ones only."""
    for name, value in vars(part).items():
        if hasattr(value, "Pack"):
            yield from _fields(value)
        elif isinstance(value, list) and value and hasattr(value[0], "Pack"):
            for inner in value:
                yield from _fields(inner)
        elif isinstance(value, bool | int | float) or (value is not None and not isinstance(value, str | bytes) and len(value)):
            yield part, name, value


def _litert_value(value: Any, random: Random) -> Any:
    import numpy as np

    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice((*EXTREMES, *range(-1, 30), value + 1, value - 1))
    if isinstance(value, float):
        return random.choice(REALS)
    array = np.array(value)
    kind = random.randrange(6)
    if kind == 0:
        return array[:-1]
    if kind == 1:
        return np.concatenate([array, array[:1]])
    if array.dtype == np.uint8 and array.size >= 4 and kind < 5:  # integers of shapes and axes
        words = array[: array.size // 4 * 4].copy().view(np.int32)
        words[random.randrange(words.size)] = random.choice([one for one in EXTREMES if abs(one) < 2**31])
        return words.view(np.uint8)
    with np.errstate(all="ignore"):
        choices = REALS if array.dtype.kind == "f" else [np.int64(one).astype(array.dtype) for one in EXTREMES]
        array[random.randrange(array.size)] = random.choice(choices)
    return array
