"""Numbers and names that no network has, beside some that one may have."""

from __future__ import annotations

import math

#: Extents and attributes that no network has, beside some that one may have.
EXTREMES = (
    *(0, 1, 2, 3, 7, 64, 1000, 65536, 10**6, 10**9, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1),
    *(-1, -2, -7, -1000, -(10**9), -(2**31), -(2**63)),
)
REALS = (0.0, -0.0, 1.0, -1.0, 0.5, 1.7, 1e-30, 1e30, 3e38, math.inf, -math.inf, math.nan)
NAMES = (
    *("linear", "nearest", "cubic", "reflect", "edge", "SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET", "half_pixel"),
    "",
    "\udc80",
    "x" * 300,
)
