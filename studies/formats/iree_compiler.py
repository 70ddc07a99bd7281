"""Compiles a network for a board's core with IREE's compiler, which runs on this machine and is kept in the cache."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

from studies.packages import installed
from tvmmobile.system.programs import run_tool
from tvmmobile.virtual.board import Board

VERSION = "3.13.0"
#: The best of those tried on 0.25-128, modelled: 9.2 ms without data tiling, 10.7 without channels last, 11.4 without both.
OPTIONS = (
    "--iree-hal-target-backends=llvm-cpu",
    "--iree-llvmcpu-target-triple=aarch64-linux-gnu",
    "--iree-opt-level=O3",
    "--iree-opt-data-tiling",
    "--iree-preprocessing-pass-pipeline=builtin.module(util.func(iree-preprocessing-convert-conv-to-channels-last))",
)
_TIMEOUT_S = 1200
_IMPORT = "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_module('iree.compiler.tools.import_onnx', run_name='__main__')"


def digest(board: Board) -> str:
    """Identifies what decides a network compiled for a board, besides the network (8 hex digits)."""
    return hashlib.sha256(" ".join((VERSION, board.mcpu, *OPTIONS)).encode()).hexdigest()[:8]


def compile_onnx(model: Path, board: Board, output: Path) -> None:
    """Compile an ONNX network for a board's core."""
    name = f"iree-compiler-{VERSION}-py{sys.version_info[0]}{sys.version_info[1]}"
    packages = installed(name, [f"iree-base-compiler=={VERSION}"], "IREE's compiler")
    remedy = "Run it by hand to see more."
    with tempfile.TemporaryDirectory(prefix="tvmmobile-iree-") as scratch:
        imported = f"{scratch}/model.mlir"
        run_tool([sys.executable, "-c", _IMPORT, str(packages), str(model), "-o", imported], "Importing into IREE", remedy, _TIMEOUT_S)
        command = [str(packages / "iree/compiler/_mlir_libs/iree-compile"), imported, "-o", str(output)]
        run_tool([*command, *OPTIONS, f"--iree-llvmcpu-target-cpu={board.mcpu}"], "Compiling with IREE", remedy, _TIMEOUT_S)
