"""The parts of scripts/bench_peers.py: which systems there are, what they run, what was found, and how it is shown."""
