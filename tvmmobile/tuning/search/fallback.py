"""Schedules for layers that no template accepts, sampled from MetaSchedule's own rules for ARM CPUs."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import sys
import types
from collections.abc import Mapping
from typing import Any

from tvmmobile.graph.function_json import block_names
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import make_target
from tvmmobile.kernels.function import apply_trace
from tvmmobile.kernels.serial import TraceSchedule

#: Tensor intrinsics of backends other than ARM.
_FOREIGN_INTRINSICS = ("cuda", "rocm", "metal", "hexagon", "x86", "riscv_cpu")
#: Random draws per requested schedule; some are rejected by postprocessing, and small spaces yield duplicates.
_DRAWS = 8
#: Most stores of a schedule, as a multiple of the unscheduled function's; this rejects schedules that recompute whole sums per element.
_MOST_STORES = 8
_UNCHANGED = TraceSchedule("[[],[]]")


@functools.cache
def _import_intrinsics() -> None:
    """Import the tensor intrinsics that `TuneContext` needs in a fraction of a second instead of ten.

    Other backends are skipped, and so are the callers' source lines, which TVM's parser looks up for every function but uses only for
    methods of classes.
    """
    for name in _FOREIGN_INTRINSICS:
        sys.modules.setdefault(f"tvm.s_tir.tensor_intrin.{name}", types.ModuleType(name))
    frames = inspect.stack
    inspect.stack = _callers
    try:
        importlib.import_module("tvm.s_tir.tensor_intrin")
    finally:
        inspect.stack = frames


def _callers(context: int = 1) -> list[inspect.FrameInfo]:
    """Return the frames of `inspect.stack` without source lines, so that no modules have to be searched."""
    callers, frame = [], inspect.currentframe()
    while frame is not None and (frame := frame.f_back) is not None:
        callers.append(inspect.FrameInfo(frame, frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, None, None))
    return callers


class FallbackSpace:
    """Samples the space that MetaSchedule's ARM rules define for an opaque task, given its TIR function as fused by Relax."""

    def __init__(self, task: Task, source: Any, target: Mapping[str, Any]) -> None:
        import tvm

        _import_intrinsics()
        from tvm.s_tir import meta_schedule as ms

        self._serial = task.threads == 1
        #: True if the function has a root block; loops without blocks, such as a scatter's, cannot be scheduled.
        self._blocks = "root" in block_names(source)
        self._module = tvm.IRModule({"main": source.with_attr("global_symbol", "main")})
        with make_target({**target, "num-cores": max(task.threads, int(target.get("num-cores", 1)))}) as tvm_target:
            context = ms.TuneContext(
                mod=self._module,
                target=tvm_target,
                space_generator=ms.space_generator.PostOrderApply(),
                task_name=task.symbol,
                rand_state=1,
                num_threads=1,
            )
            self._designs = context.generate_design_space()
            # A CPU can run loops of variable length, as in uneven pooling.
            self._postprocessors = [
                postproc for postproc in context.space_generator.postprocs if not isinstance(postproc, ms.postproc.DisallowDynamicLoop)
            ]

    def members(self, count: int) -> tuple[TraceSchedule, ...]:
        """Return at most `count` distinct schedules, the same ones at every call; only the unchanged function if it cannot be scheduled."""
        distinct: dict[TraceSchedule, None] = {}
        for seed in range(1, _DRAWS * count + 1):
            schedule = self._draw(seed)
            if schedule is not None:
                distinct[schedule] = None
            if len(distinct) == count:
                break
        return tuple(distinct) or (_UNCHANGED,)

    def _draw(self, seed: int) -> TraceSchedule | None:
        from tvm.s_tir import Schedule as TirSchedule

        state = TirSchedule(self._module, seed=seed, error_render_level="none")
        self._designs[seed % len(self._designs)].trace.apply_to_schedule(state, remove_postproc=True)
        if self._serial and self._blocks:
            state.unannotate(state.get_sblock("root"), "meta_schedule.parallel")
        if not all(postprocessor.apply(state) for postprocessor in self._postprocessors):
            return None
        if stores_of(state.mod["main"].body) > _MOST_STORES * stores_of(self._module["main"].body):
            return None
        schedule = TraceSchedule(json.dumps(_plain(state.trace.as_json()), separators=(",", ":")))
        return schedule if self._replays(schedule) else None

    def _replays(self, schedule: TraceSchedule) -> bool:
        """Return whether the trace can be applied to its own function; it cannot if an operator has loops without blocks."""
        from tvm.error import InternalError

        try:
            apply_trace(schedule, self._module["main"])
        except InternalError:
            return False
        return True


def stores_of(statement: Any, times: int = 1) -> int:
    """Return the number of stores that a statement executes; loops of unknown length count as one iteration."""
    from tvm import tirx

    if isinstance(statement, tirx.BufferStore):
        return times
    if isinstance(statement, tirx.For) and isinstance(statement.extent, tirx.IntImm):
        times *= int(statement.extent)
    inner = [getattr(statement, name, None) for name in ("body", "block", "init", "then_case", "else_case")]
    return sum(stores_of(part, times) for part in (*inner, *getattr(statement, "seq", ())) if part is not None)


def _plain(value: Any) -> Any:
    """Convert TVM's containers and numbers to Python's, for JSON."""
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "value"):
        return _plain(value.value)
    return [_plain(item) for item in value]
