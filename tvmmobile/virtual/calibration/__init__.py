"""The cost of a miss, fitted to published latencies."""
