"""What a miss costs, fitted to published latencies."""
