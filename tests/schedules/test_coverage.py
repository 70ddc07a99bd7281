"""Templates take all shapes of convolutional networks whose channels divide by 4."""

from __future__ import annotations

import random

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_for

SHAPES = 600


def random_layer(rng: random.Random) -> Conv2d:
    """A depthwise or a 1×1 convolution: channels up to 1024, sides up to 224, strides 1 and 2, paddings a kernel of its size may have."""
    side, channels, stride = rng.randint(1, 224), 4 * rng.randint(1, 256), rng.choice((1, 2))
    if rng.random() < 0.5:
        return Conv2d(side, rng.randint(1, 224), channels, 4 * rng.randint(1, 256), (1, 1), (stride, stride))
    kernel = rng.choice((3, 5))
    before, after = rng.randint(0, kernel // 2), rng.randint(kernel // 2, kernel - 1)
    side = max(side, kernel)
    return Conv2d(side, side, channels, channels, (kernel, kernel), (stride, stride), (before, before, after, after), channels)


def test_templates_take_nearly_every_shape() -> None:
    """The bar is 95 % of them."""
    rng = random.Random(1704)
    layers = [random_layer(rng) for _ in range(SHAPES)]
    accepted = [layer for layer in layers if template_for(Task((layer,))) is not None]
    assert len(accepted) >= 0.95 * len(layers), [layer.name for layer in layers if layer not in accepted]
