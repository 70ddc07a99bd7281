"""Layers as the planner sees them: one operator with its bias and clamp, all shapes static, batch 1."""

from __future__ import annotations

from tvmmobile.graph.layers.attention import Attention, HeadView
from tvmmobile.graph.layers.conv import Conv2d, TapWindow
from tvmmobile.graph.layers.dense import Dense
from tvmmobile.graph.layers.gating import Gating
from tvmmobile.graph.layers.integer import IntegerLayer
from tvmmobile.graph.layers.kind import IntegerFacts, Layer
from tvmmobile.graph.layers.norm import ChannelNorm, GroupNorm
from tvmmobile.graph.layers.opaque import Opaque
from tvmmobile.graph.layers.pooling import MaxPool, MeanPool, Pool, WindowPool
from tvmmobile.graph.layers.product import Product
from tvmmobile.graph.layers.recurrent import Recurrent
from tvmmobile.graph.layers.resize import Resize
from tvmmobile.graph.layers.rounding import Rounding, shift_of
from tvmmobile.graph.layers.softmax import Softmax
from tvmmobile.graph.layers.sums import NO_CLAMP, Clamp, SumLayer
from tvmmobile.graph.layers.window import WindowLayer
from tvmmobile.graph.parameters import NO_PARAMETERS, Array, LayerParameters

#: The kinds by their names in logs and manifests, in the order in which networks are searched for them; the product with a gate comes last.
KINDS: dict[str, type[Layer]] = {
    "pool": Pool,
    "max_pool": MaxPool,
    "mean_pool": MeanPool,
    "resize": Resize,
    "softmax": Softmax,
    "norm": ChannelNorm,
    "group_norm": GroupNorm,
    "conv2d": Conv2d,
    "dense": Dense,
    "product": Product,
    "gate": Gating,
    "attention": Attention,
    "recurrent": Recurrent,
    "opaque": Opaque,
}
