"""Boards that are modelled: QEMU runs the program and counts its blocks, a core model turns them into cycles.

Whatever disassembles or schedules blocks here raises `UserError` where llvm-mc or llvm-mca is not installed.
"""
