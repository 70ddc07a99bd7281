"""A network as a library that needs nothing: one AArch64 `.so` or `.a` and a header of plain C."""
