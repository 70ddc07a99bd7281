"""Makes the TIR function of a kernel from its task and schedule; trials and networks contain the same function."""

from __future__ import annotations

import json
from typing import Any

from tvmmobile.graph.layers import Array, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import Schedule, TraceSchedule
from tvmmobile.schedules import template_named
from tvmmobile.system.errors import UserError


def kernel_function(task: Task, schedule: Schedule, source: Any) -> Any:
    """Make the kernel `task.symbol`.

    Args:
        source: unscheduled TIR function of an opaque layer.

    Raises:
        UserError: the schedule's template does not exist, or does not support the task.
    """
    if isinstance(schedule, TraceSchedule):
        return apply_trace(schedule, source).with_attr("global_symbol", task.symbol)
    template = template_named(schedule.template, schedule.version)
    if template is None or template.space(task) is None:
        raise UserError(f"no template {schedule.template}@{schedule.version} takes {task.name}.", "Tune it again with this version.")
    return template.emit(task, schedule.values, source)


def packed_constants(task: Task, schedule: Schedule, parameters: tuple[LayerParameters, ...]) -> list[Array]:
    """Pack the constants that the kernel reads into its layouts; none for a trace, whose function contains them."""
    if isinstance(schedule, TraceSchedule):
        return []
    template = template_named(schedule.template, schedule.version)
    assert template is not None
    return template.pack(task, schedule.values, parameters)


def apply_trace(schedule: TraceSchedule, source: Any) -> Any:
    """Replay a MetaSchedule trace, including its postprocessing, on the function for which it was found."""
    import tvm
    from tvm.s_tir import Schedule as TirSchedule
    from tvm.s_tir.schedule import Trace

    # Holding `module` keeps a reference, without which the schedule would change `source` in place.
    module = tvm.IRModule({"main": source.with_attr("global_symbol", "main")})
    state = TirSchedule(module, error_render_level="none")
    Trace.apply_json_to_schedule(json.loads(schedule.trace), state)
    return state.mod["main"]
