"""Small regions that each template of floats takes."""

from __future__ import annotations

from tvmmobile.graph.layers import ChannelNorm, Clamp, Conv2d, Dense, GroupNorm, Layer, MaxPool, MeanPool, Pool, Resize

RELU6: Clamp = (0.0, 6.0)
PADDED = (1, 1, 1, 1)
#: Channels that are odd, fewer than a vector of float32, and not whole vectors; every activation; pieces, gates and residuals.
REGIONS: dict[str, tuple[tuple[Layer, ...], ...]] = {
    "pointwise": (
        (Conv2d(5, 7, 17, 13, clamp=RELU6),),
        (Conv2d(6, 6, 10, 6, clamp="hswish", residual=True, scaled=True),),
        (Conv2d(7, 5, 96, 64, clamp=(-1.0, 1.0), in_layout="NCHW32c", out_layout="NCHW16c"),),
        (Conv2d(5, 4, 7, 9, sources=(6, 5), pieces=((1, 1, 3), (0, 2, 4))),),
    ),
    "depthwise": (
        (Conv2d(6, 5, 7, 7, (3, 5), (2, 1), (1, 0, 0, 2), 7, RELU6),),
        (Conv2d(8, 9, 32, 32, (3, 3), (1, 1), PADDED, 32, "hswish", "NCHW16c", "NCHW32c"),),
    ),
    "image_conv": (
        (Conv2d(9, 8, 3, 9, (3, 3), (2, 2), PADDED, 1, RELU6, "NCHW"),),
        (Conv2d(4, 2, 1, 6, (3, 3), (1, 1), PADDED, 1, "hsigmoid", "NCHW"),),
    ),
    "dense": ((Dense(19, 13),), (Dense(64, 30, RELU6),)),
    "separable": (
        (Conv2d(14, 14, 32, 32, (3, 3), (1, 1), PADDED, 32, RELU6), Conv2d(14, 14, 32, 22, clamp=RELU6, residual=True)),
        (Conv2d(15, 16, 24, 24, (3, 3), (2, 2), PADDED, 24, RELU6), Conv2d(8, 8, 24, 48, clamp="hswish")),
    ),
    "strassen": ((Conv2d(5, 5, 128, 128, clamp=RELU6),), (Conv2d(8, 7, 128, 160, in_layout="NCHW32c", out_layout="NCHW16c"),)),
    "chain": (
        (
            Conv2d(32, 32, 3, 6, (3, 3), (2, 2), PADDED, 1, RELU6, "NCHW"),
            Conv2d(16, 16, 6, 6, (3, 3), (1, 1), PADDED, 6, RELU6),
            Conv2d(16, 16, 6, 10, clamp=RELU6),
        ),
        (Conv2d(14, 12, 8, 24, clamp=RELU6), Conv2d(14, 12, 24, 24, (3, 3), (2, 2), PADDED, 24, RELU6)),
        (Conv2d(16, 16, 3, 8, (3, 3), (2, 2), PADDED, 1, RELU6, "NCHW"), Conv2d(8, 8, 8, 8, (3, 3), (1, 1), PADDED, 8, RELU6)),
    ),
    "conv": (
        (Conv2d(7, 8, 6, 9, (3, 3), (2, 2), PADDED, 3, RELU6),),
        (Conv2d(6, 6, 64, 34, (3, 3), (1, 1), PADDED, residual=True, in_layout="NCHW32c"),),
        (Conv2d(5, 6, 9, 22, (3, 3), (1, 1), PADDED, clamp=RELU6, windows=((0, 2, 0, 3), (1, 3, 1, 2))),),
    ),
    "winograd": ((Conv2d(7, 8, 32, 48, (3, 3), (1, 1), PADDED, clamp=RELU6),), (Conv2d(9, 5, 32, 32, (3, 3), in_layout="NCHW16c"),)),
    "sparse": (
        (Conv2d(5, 7, 17, 13, clamp=RELU6, in_layout="NCHW", out_layout="NCHW", sparse=(60, 1)),),
        (Conv2d(6, 5, 130, 14, clamp="hswish", in_layout="NCHW", out_layout="NCHW", residual=True, sparse=(300, 2)),),
    ),
    "sparse_clusters": (
        (Conv2d(5, 7, 17, 12, clamp=RELU6, in_layout="NCHW", out_layout="NCHW", sparse=(60, 1)),),
        (Conv2d(6, 5, 130, 16, clamp="hswish", in_layout="NCHW", out_layout="NCHW", residual=True, sparse=(300, 2)),),
    ),
    "sparse_separable": (
        (
            Conv2d(8, 16, 20, 20, (3, 3), (1, 1), PADDED, 20, RELU6, "NCHW"),
            Conv2d(8, 16, 20, 12, clamp=RELU6, out_layout="NCHW", sparse=(60, 1)),
        ),
        (
            Conv2d(8, 8, 70, 70, (5, 3), (2, 2), (2, 1, 2, 1), 70, "hswish", "NCHW"),
            Conv2d(4, 4, 70, 16, out_layout="NCHW", sparse=(150, 2)),
        ),
    ),
    "plane_conv": (
        (Conv2d(9, 8, 7, 7, (3, 5), (2, 1), (1, 0, 0, 2), 7, RELU6, "NCHW", "NCHW"),),
        (Conv2d(17, 18, 3, 8, (3, 3), (2, 2), PADDED, 1, "hswish", "NCHW", "NCHW"),),
    ),
    "plane_mean": ((Pool(7, 5, 22, "NCHW"),), (Pool(3, 3, 5, "NCHW"),)),
    "pool": ((Pool(7, 5, 22),), (Pool(6, 6, 32, "NCHW16c"),), (Pool(3, 3, 1),)),
    "max_pool": ((MaxPool(9, 8, 7, (3, 3), (2, 2), PADDED),), (MaxPool(6, 6, 5, (2, 2), sources=(4, 3), pieces=((1, 0, 2), (0, 1, 3))),)),
    "mean_pool": (
        (MeanPool(9, 8, 7, (3, 3), (2, 2), PADDED),),
        (MeanPool(6, 6, 5, (2, 2), sources=(4, 3), pieces=((1, 0, 2), (0, 1, 3))),),
    ),
    "resize": ((Resize(5, 7, 13, 9, 10, "linear", "half_pixel"),), (Resize(8, 6, 9, 5, 13, "floor", "asymmetric"),)),
    "group_norm": ((GroupNorm(5, 7, 30, 5, 1e-5),), (GroupNorm(3, 3, 3, 1, 1e-6),)),
    "channel_norm": ((ChannelNorm(5, 7, 29, 1e-5),), (ChannelNorm(3, 3, 3, 1e-6),), (ChannelNorm(4, 3, 21, 1e-6, centred=False),)),
}
