"""Detects regressions of latency."""

#: Smallest change of a latency that counts, as a fraction.
DEFAULT_THRESHOLD = 0.03
