"""Lowers TIR for LLVM with TVM's passes, of which templates' kernels need only a few.

Templates emit flat buffers, 32-bit indices, explicit vectors and no blocks. Most of TVM's passes have nothing to do there, but took more
than half of the time to build a kernel, in particular `FlattenBuffer`, which simplifies every index, and `CommonSubexprElim`, which LLVM
repeats. Leaving them out changes modelled latencies by at most half a percent.
"""

from __future__ import annotations

import functools
from typing import Any

from tvmmobile.kernels.nans import begin_with_infinity, propagate_nans
from tvmmobile.schedules.emit.kernel import PLAIN

#: Name of our pipeline in TVM.
PIPELINE = "tvmmobile"


@functools.cache
def register() -> None:
    """Register the pipeline with TVM in this process."""
    from tvm.tirx.compilation_pipeline import register_tir_pipeline

    register_tir_pipeline(PIPELINE, _pipeline)


def _pipeline() -> tuple[Any, Any, Any]:
    """Return our passes for functions marked `PLAIN`, TVM's for all others, then TVM's final passes for both."""
    import tvm

    tvm_passes, finish_host, finish_device = tvm.tirx.get_tir_pipeline("s_tir")

    @tvm.transform.module_pass(opt_level=0)  # type: ignore[untyped-decorator]
    def lower(module: Any, _context: Any) -> Any:
        plain: dict[Any, Any] = {}
        other: dict[Any, Any] = {}
        for name, function in module.functions.items():
            (plain if PLAIN in (function.attrs or {}) else other)[name] = function
        lowered = tvm_passes(_serial_booleans()(begin_with_infinity()(tvm.IRModule(other, attrs=module.attrs))))
        lowered.update(_few_passes()(tvm.IRModule(plain)))
        return lowered

    return lower, lambda: tvm.ir.transform.Sequential([finish_host(), propagate_nans()]), finish_device


def _serial_booleans() -> Any:
    """Return a pass that makes vectorised loops over booleans serial unless their extent is a power of two: LLVM 22 stores the results of
    comparing vectors of three lanes wrongly on AArch64.
    """
    import tvm
    from tvm import tirx
    from tvm_ffi import structural_map, structural_walk

    def serial(loop: Any) -> Any:
        if loop.kind != tirx.ForKind.VECTORIZED or int(loop.extent).bit_count() == 1:
            return loop
        kinds: set[str] = set()

        def note(access: Any) -> None:
            kinds.add(str(getattr(access, "value", access).ty.dtype))

        structural_walk(loop.body, ((tirx.BufferStore, tvm.ir.TensorLoad), note))
        if "bool" not in kinds:
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body, annotations=loop.annotations)

    @tvm.tirx.transform.prim_func_pass(opt_level=0)  # type: ignore[untyped-decorator]
    def replace(function: Any, _module: Any, _context: Any) -> Any:
        return function.with_body(structural_map(function.body, (tirx.For, serial), order="post"))

    return replace


def _few_passes() -> Any:
    """Return the passes that change kernels of templates, in TVM's order."""
    import tvm
    from tvm import s_tir, tirx

    return tvm.ir.transform.Sequential(
        [
            s_tir.transform.CanonicalizeLoop(),
            s_tir.transform.LowerOpaqueBlock(),  # replaces loops of extent 1 by their body, as `HoistIfThenElse` fails on some of them
            s_tir.transform.LoopPartition(),
            tirx.transform.VectorizeLoop(True),
            s_tir.transform.HoistIfThenElse(),
            tirx.transform.UnrollLoop(),
            s_tir.transform.RenormalizeSplitPattern(),
            tirx.transform.StmtSimplify(),
            s_tir.transform.RewriteUnsafeSelect(),
            tirx.transform.VerifyMemory(),
            tirx.transform.AnnotateEntryFunc(),
            tirx.transform.SplitHostDevice(),
            tirx.transform.MakePackedAPI(),
            tirx.transform.BF16StorageLegalize(),
        ]
    )
