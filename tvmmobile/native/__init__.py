"""A network as a library without dependencies: one AArch64 `.so` or `.a`, and a header in plain C."""
