"""Which shortcuts integer kernels take, because of a network's weights: what library manifests say of them."""

from __future__ import annotations

from collections.abc import Sequence

from tvmmobile.graph.integers import IntegerParameters, converts_sums
from tvmmobile.graph.layers import Conv2d, Dense, Layer, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.integer import scales_sums_at_once
from tvmmobile.schedules.integer_depthwise import LongDepthwise, three_fit
from tvmmobile.schedules.integer_image import LongImage, image_depth
from tvmmobile.schedules.integer_long import LongProduct, share_by_fours
from tvmmobile.schedules.integer_separable import LongSeparable
from tvmmobile.schedules.separable import alone
from tvmmobile.schedules.space import Knobs
from tvmmobile.schedules.template import Template


def shortcuts(task: Task, template: Template, knobs: Knobs, parameters: Sequence[LayerParameters]) -> list[dict[str, float]]:
    """For each layer of a task, if it is of integers, the shares of its output channels that take each shortcut, from 0 to 1:

    `four_products`: products that are added by fours in 16 bits, of all products; only of templates that do so.
    `three_taps`: taps of depthwise channels that are added by threes; likewise.
    `unconverted`: sums below 2^22 that need no conversion to floats, and whose results fit in 16 bits.
    `scaled_at_once`: sums that are scaled, rounded and moved to the zero point by one instruction.
    """
    parts: list[tuple[Task, Template]] = [(task, template)]
    if isinstance(template, LongSeparable):
        parts = list(zip(alone(task), (LongDepthwise(), LongProduct()), strict=True))
    found = []
    for (part, own), constants in zip(parts, parameters, strict=False):
        if isinstance(constants, IntegerParameters):
            layer = part.region[0]
            ends = {"unconverted": float(not converts_sums(layer)), "scaled_at_once": float(scales_sums_at_once(layer))}
            found.append({**_sums(layer, own, knobs, constants), **ends})
    return found


def _sums(layer: Layer, template: Template, knobs: Knobs, parameters: IntegerParameters) -> dict[str, float]:
    """The shortcuts of products."""
    weight = parameters.weight
    if isinstance(template, LongDepthwise):
        return {"three_taps": float(three_fit(weight).mean())}
    if isinstance(template, LongProduct) and isinstance(layer, Conv2d | Dense):
        depth = template.extents(layer)[1]
    elif isinstance(template, LongImage) and isinstance(layer, Conv2d):
        depth = image_depth(layer)
    else:
        return {}
    return {"four_products": share_by_fours(weight.reshape(-1, weight.shape[-1]), depth, knobs["columns"])}
