"""Concatenations of images' channels in the layout that these have: channels last.

Layout conversion leaves a concatenation as it is where one of its images is made by operators that it does not know, such as the shuffle
behind a transposed convolution. Every image would be turned before it, and the result behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvmmobile.graph.expressions import operator_of
from tvmmobile.graph.passes.rewriting import replace_values


def channel_concatenations(module: Any) -> Any:
    """Rewrite every concatenation, NCHW, of images that are NHWC before and of which the result is NHWC again, in `main`."""
    return replace_values(module, _rewritten)


def _rewritten(value: Any, values: Mapping[Any, Any]) -> Any:
    """The concatenation that a permutation to NHWC shows; `None` for other values."""
    from tvm import relax

    whole: Any = values.get(_turned(value, [0, 2, 3, 1]))
    if operator_of(whole) != "relax.concat" or whole.attrs.axis is None or int(whole.attrs.axis) != 1:
        return None
    images = [_turned(values.get(part), [0, 3, 1, 2]) for part in getattr(whole.args[0], "fields", ())]
    return relax.op.concat(images, 3) if images and all(image is not None for image in images) else None


def _turned(value: Any, axes: list[int]) -> Any:
    """The variable that a permutation with these axes reads; `None` for other values."""
    if operator_of(value) != "relax.permute_dims" or value.attrs.axes is None:
        return None
    return value.args[0] if [int(axis) for axis in value.attrs.axes] == axes else None
