"""Templates for single layers in floating point."""
