"""Machine code from assembly, by llvm-mc."""

from __future__ import annotations

import subprocess


def assemble(text: str) -> bytes:
    """Machine code of AArch64 assembly, one instruction a line."""
    lines = subprocess.run(
        ["llvm-mc-16", "--triple=aarch64-linux-gnu", "--mcpu=cortex-a72", "--show-encoding"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    code = b""
    for line in lines:
        if "encoding: [" in line:
            code += bytes(int(byte, 16) for byte in line.split("encoding: [")[1].rstrip("]").split(","))
    return code
