"""Boards that are modelled: QEMU runs the program and counts its blocks, a core model turns them into cycles."""
