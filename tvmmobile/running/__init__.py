"""Compiled libraries on a device: loaded, checked and timed."""
