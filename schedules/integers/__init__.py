"""Templates for single layers of scaled integers."""
