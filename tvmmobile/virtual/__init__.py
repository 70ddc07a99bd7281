"""Models boards: QEMU runs a program and counts its blocks, and a core model converts them to cycles.

Everything here that disassembles or schedules blocks raises `UserError` if llvm-mc or llvm-mca is not installed.
"""
