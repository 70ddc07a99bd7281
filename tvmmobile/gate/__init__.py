"""Detects regressions of latency."""
