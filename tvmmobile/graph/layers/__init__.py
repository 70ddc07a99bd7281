"""Layers as the planner sees them: one operator with its bias and clamp, all shapes static, batch 1."""

from __future__ import annotations

from tvmmobile.graph.layers.attention import Attention, Place
from tvmmobile.graph.layers.conv import Conv2d, TapWindow
from tvmmobile.graph.layers.dense import Dense
from tvmmobile.graph.layers.gating import Gating
from tvmmobile.graph.layers.norm import ChannelNorm, GroupNorm
from tvmmobile.graph.layers.opaque import Opaque
from tvmmobile.graph.layers.parameters import NO_PARAMETERS, Array, LayerParameters
from tvmmobile.graph.layers.pooling import MaxPool, MeanPool, Pool, WindowPool
from tvmmobile.graph.layers.product import Product
from tvmmobile.graph.layers.resize import Resize
from tvmmobile.graph.layers.rounding import Rounding, shift_of
from tvmmobile.graph.layers.softmax import Softmax
from tvmmobile.graph.layers.sums import NO_CLAMP, Clamp, SumLayer
from tvmmobile.graph.layers.window import WindowLayer

Layer = Conv2d | Dense | Pool | WindowPool | Gating | Resize | ChannelNorm | GroupNorm | Attention | Product | Softmax | Opaque | Rounding


__all__ = [
    "NO_CLAMP",
    "NO_PARAMETERS",
    "Array",
    "Attention",
    "ChannelNorm",
    "Clamp",
    "Conv2d",
    "Dense",
    "Gating",
    "GroupNorm",
    "Layer",
    "LayerParameters",
    "MaxPool",
    "MeanPool",
    "Opaque",
    "Place",
    "Pool",
    "Product",
    "Resize",
    "Rounding",
    "Softmax",
    "SumLayer",
    "TapWindow",
    "WindowLayer",
    "WindowPool",
    "shift_of",
]
