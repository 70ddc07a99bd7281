"""LiteRT's int8 average pools differ from ours only at ties, which is why MLPerf Tiny's ResNet may differ by a step."""

from __future__ import annotations

import numpy as np
from litert_files import LiteRtFile, by_litert, translated


def test_averages_differ_only_at_ties() -> None:
    """For 8×8 pixels, one sum in 64 is halfway between two integers."""
    file, channels = LiteRtFile(), 512
    x = file.tensor((1, 8, 8, channels), "int8", scale=0.125, zero=-128)
    y = file.tensor((1, 1, 1, channels), "int8", scale=0.125, zero=-128)
    options = {"filterHeight": 8, "filterWidth": 8, "strideH": 1, "strideW": 1, "padding": 1}
    file.operator("AVERAGE_POOL_2D", [x], [y], "Pool2DOptions", version=2, **options)
    content = file.ends([x], [y])
    image = np.random.default_rng(0).integers(-128, 128, (1, 8, 8, channels)).astype(np.int8)
    (theirs,), (ours,) = by_litert(content, [image]), translated(content, [image])
    off = theirs.astype(int) - ours.astype(int)
    sums = image.astype(int).sum((1, 2), keepdims=True)
    assert np.array_equal(theirs, np.sign(sums) * ((np.abs(sums) + 32) // 64))
    assert (off != 0).sum() > 0 and np.abs(off).max() == 1 and (sums[off != 0] % 64 == 32).all()
