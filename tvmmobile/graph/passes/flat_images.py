"""Lets linear layers read a flattened image in its own order, channels last, by permuting their weights.

Networks flatten an image with its channels first, as AlexNet and VGG-16 do in front of their classifiers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax

from tvmmobile.graph.expressions import TO_FIRST, VIEW, operator_of, permutation_source, shape_of
from tvmmobile.graph.passes.rewriting import value_pass


@value_pass
def flat_images(value: Any, values: Mapping[Any, Any]) -> Any:
    """Rewrite every product of constant weights and one image that was NHWC before it was flattened, in `main`."""
    if operator_of(value) != "relax.matmul" or not isinstance(value.args[1], tvm.ir.GenericConst):
        return None
    row: Any = values.get(value.args[0])
    image = permutation_source(values.get(row.args[0]), TO_FIRST) if operator_of(row) == VIEW else None
    weights = value.args[1].value.numpy()
    if image is None or weights.ndim != 2 or shape_of(row) != [1, weights.shape[0]] or shape_of(image)[0] != 1:
        return None
    _, height, width, channels = shape_of(image)
    ordered = weights.reshape(channels, height, width, -1).transpose(1, 2, 0, 3).reshape(weights.shape)
    return relax.op.matmul(relax.op.reshape(image, shape_of(row)), relax.const(ordered), value.attrs.out_dtype)
