"""Building blocks of kernels: the IR builder, register tiles, the loops around them, and the order of instructions."""
