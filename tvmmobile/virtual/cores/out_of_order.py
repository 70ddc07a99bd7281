"""Schedules a repeated block on an out-of-order core, with the core's own latencies.

The model: instructions are dispatched in order into a window, start in any order when their operands are ready and their pipelines are
free, and retire from the window in order. There are no cache misses or mispredicted branches. Each core's figures are in its own file,
such as `cortex_a72.py` and `cortex_a76.py`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tvmmobile.system.compiled import host_library
from tvmmobile.virtual.cores.operands import Instruction, instruction_of

_SOURCE = Path(__file__).with_suffix(".c")
_TRIPS = 24
_WARM_TRIPS = 8
#: Cycles from dispatch to the earliest start; they shift all schedules equally, and matter only for the occupation of the window.
_DISPATCH_LATENCY = 1
_UNLIMITED = 1 << 20
#: Most passes of one micro-operation through a pipeline, for both halves of 16 bytes; more passes are several micro-operations.
_PASSES = 2


@dataclass(frozen=True)
class InstructionTiming:
    """The cost of one instruction on a core.

    Attributes:
        latency: cycles from the last cycle in which it occupies a pipeline until its result can be used; for an instruction that occupies
            one pipeline for one cycle, the latency of the guides. The base register of an access has `CoreTables.base_latency`.
        ports: (pipeline, cycles for which it is occupied).
        update: pipeline that updates the base register independently of the access, as soon as that register is ready; "" if the update
            waits for the access.
        micro_operations: number of micro-operations in dispatch and in the window.
        chain: family of instructions to whose accumulator the result is forwarded early; "" for none.
        chain_latency: cycles until the next instruction of the family can use the forwarded result.
    """

    latency: int
    ports: tuple[tuple[str, int], ...]
    micro_operations: int = 1
    update: str = ""
    chain: str = ""
    chain_latency: int = 0


@dataclass(frozen=True)
class CoreTables:
    """A core's figures for the schedule.

    Attributes:
        name: LLVM's name of the core.
        source: source of the figures.
        window: most micro-operations in flight.
        instructions_per_cycle: most instructions dispatched per cycle.
        micro_operations_per_cycle: most micro-operations dispatched per cycle.
        pipelines: number of pipelines of each kind.
        timing: returns the cost of an instruction.
        part_of: kinds whose pipelines are a subset of another kind's: occupying one also occupies one of the other kind.
        queues: total size of the issue queues of a kind's pipelines, in micro-operations; dispatch waits while they are full. Kinds that
            are not listed, nor part of a listed one, are limited by the window only.
        chosen: two parts of a kind with separate queues, of which dispatch chooses the one with fewer waiting operations, or the first. An
            operation then passes through this pipeline as often as it occupies the kind, from one entry of its queue.
        base_latency: cycles until the base register of a pre- or post-indexed access can be used.
        early_stores: true if a store starts as soon as its address is ready, and only its retirement waits for the data.
    """

    name: str
    source: str
    window: int
    instructions_per_cycle: int
    micro_operations_per_cycle: int
    pipelines: Mapping[str, int]
    timing: Callable[[Instruction], InstructionTiming]
    part_of: Mapping[str, str] = field(default_factory=dict)
    queues: Mapping[str, int] = field(default_factory=dict)
    chosen: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    base_latency: int = 1
    early_stores: bool = False


@dataclass(frozen=True)
class Operation:
    """An instruction's operands and timing on a core.

    Attributes:
        reads: names of registers.
        writes: (register, cycles until it can be used).
        timing: its pipelines and micro-operations.
        accumulator: register that an earlier instruction of its `timing.chain` forwards early; "" for none.
        handed_over: register that it forwards early to a later instruction of its `timing.chain`; "" for none.
        updated: base register that `timing.update` writes; "" for none.
        awaited: registers that it needs in order to retire, but not to start.
    """

    reads: tuple[str, ...]
    writes: tuple[tuple[str, int], ...]
    timing: InstructionTiming
    accumulator: str = ""
    handed_over: str = ""
    updated: str = ""
    awaited: tuple[str, ...] = ()


def operation_of(text: str, tables: CoreTables) -> Operation:
    """Return the operation of an instruction, as text from `disassemble`, on a core."""
    instruction = instruction_of(text)
    timing = tables.timing(instruction)
    writes = tuple((register, timing.latency) for register in instruction.writes)
    updates_apart = bool(timing.update and instruction.base)
    if instruction.base and not updates_apart:
        writes = ((instruction.base, tables.base_latency), *writes)
    by_address = tables.early_stores and instruction.kind == "store" and not (instruction.atomic or instruction.interleaved)
    data = len(instruction.data) if by_address else 0
    handed_over = instruction.writes[0] if timing.chain and instruction.writes else ""
    return Operation(
        reads=instruction.writes + instruction.reads if instruction.keeps else instruction.reads[data:],
        writes=writes,
        timing=timing,
        accumulator=handed_over if instruction.accumulates else "",
        handed_over=handed_over,
        updated=instruction.base if updates_apart else "",
        awaited=instruction.reads[:data],
    )


def steady_cycles(block: Sequence[str], tables: CoreTables) -> float:
    """Return the mean cycles per execution of a block, as text from `disassemble`, that runs repeatedly."""
    operations = [operation_of(text, tables) for text in block if text]
    if not operations:
        return 0.0
    numbers = _Numbers(tables)
    coded = [number for operation in operations for number in numbers.of(operation)]
    retired = retired_after(numbers.of_core(_window(operations, tables)), coded, len(operations), _TRIPS)
    return (retired[-1] - retired[_WARM_TRIPS - 1]) / (_TRIPS - _WARM_TRIPS)


def _window(operations: Sequence[Operation], tables: CoreTables) -> int:
    """Return the size of the window, limited to the number of simulated micro-operations."""
    return max(1, min(tables.window, _TRIPS * sum(operation.timing.micro_operations for operation in operations)))


def pipeline_cycles(block: Sequence[str], tables: CoreTables) -> dict[str, float]:
    """Return the cycles for which one execution of a block occupies each kind of pipeline, each a lower bound on a schedule's cycles."""
    busy = dict.fromkeys(tables.pipelines, 0)
    for timing in (operation_of(text, tables).timing for text in block if text):
        for port, cycles in (*timing.ports, (timing.update, 1)):
            while port:
                busy[port] += cycles
                port = tables.part_of.get(port, "")
    return {name: cycles / tables.pipelines[name] for name, cycles in busy.items()}


def dispatch_cycles(block: Sequence[str], tables: CoreTables) -> float:
    """Return the cycles that dispatch takes for one execution of a block, a lower bound on a schedule's cycles."""
    slots = sum(operation_of(text, tables).timing.micro_operations for text in block if text)
    return max(slots / tables.micro_operations_per_cycle, sum(map(bool, block)) / tables.instructions_per_cycle)


def waits_of(block: Sequence[str], tables: CoreTables) -> dict[str, float]:
    """Return what limits a block in a loop, in percent of its cycles, with the names of `mca.pressures_of`.

    `registers` is the time with unlimited pipelines, where only dependences delay operations; `resources` is the rest.
    """
    cycles = steady_cycles(block, tables)
    unlimited = replace(tables, pipelines=dict.fromkeys(tables.pipelines, _UNLIMITED), part_of={}, queues={}, chosen={})
    chains = min(steady_cycles(block, replace(unlimited, window=_UNLIMITED)), cycles)
    return {"registers": 100 * chains / cycles, "resources": 100 * (1 - chains / cycles)} if cycles else {}


class _Numbers:
    """Encodes the input of `out_of_order.c`: kinds of pipelines, registers and families become numbers; -1 means none."""

    def __init__(self, tables: CoreTables) -> None:
        self._tables = tables
        self._kinds = {name: place for place, name in enumerate(tables.pipelines)}
        self._registers: dict[str, int] = {}
        self._chains: dict[str, int] = {}

    def of_core(self, window: int) -> list[int]:
        """Encode the tables, after all operations have been encoded."""
        tables = self._tables
        widths = tables.instructions_per_cycle, tables.micro_operations_per_cycle
        numbers = [window, *widths, _DISPATCH_LATENCY, tables.base_latency, _PASSES, len(self._registers), len(self._kinds)]
        once = {part for parts in tables.chosen.values() for part in parts}
        for name, count in tables.pipelines.items():
            queue = name
            while queue and queue not in tables.queues:
                queue = tables.part_of.get(queue, "")
            parts = (self._kind(part) for part in tables.chosen.get(name, ("", "")))
            whole, size = self._kind(tables.part_of.get(name, "")), tables.queues.get(name, 0)
            numbers += [count, whole, size, self._kind(queue), *parts, name in once]
        return numbers

    def of(self, operation: Operation) -> list[int]:
        """Encode one operation."""
        timing = operation.timing
        numbers = [timing.micro_operations, self._chain(timing.chain), timing.chain_latency]
        numbers += [self._register(name) for name in (operation.accumulator, operation.handed_over)]
        numbers += [self._kind(timing.update), self._register(operation.updated), len(timing.ports)]
        for port, cycles in timing.ports:
            numbers += [self._kind(port), cycles]
        numbers += [len(operation.reads), *map(self._register, operation.reads), len(operation.writes)]
        for name, latency in operation.writes:
            numbers += [self._register(name), latency]
        return [*numbers, len(operation.awaited), *map(self._register, operation.awaited)]

    def _kind(self, name: str) -> int:
        return self._kinds[name] if name else -1

    def _register(self, name: str) -> int:
        return self._registers.setdefault(name, len(self._registers)) if name else -1

    def _chain(self, name: str) -> int:
        return self._chains.setdefault(name, len(self._chains)) if name else -1


def retired_after(tables: Sequence[int], operations: Sequence[int], count: int, trips: int) -> list[int]:
    """Return the cycle in which the last of `count` operations retires in each iteration.

    Args:
        tables, operations: encoded by `_Numbers`.
        count: number of operations.
        trips: number of iterations.

    Raises:
        MemoryError: the schedule does not fit in memory.
    """
    retired = (ctypes.c_int64 * trips)()
    coded = [(ctypes.c_int32 * len(numbers))(*numbers) for numbers in (tables, operations)]
    if not _library().schedule(*coded, count, trips, retired):
        raise MemoryError("there is no memory to schedule a block")
    return list(retired)


@functools.cache
def _library() -> ctypes.CDLL:
    """Load `out_of_order.c`, compiled for the host; in Python, it took most of the time of modelling a kernel."""
    return ctypes.CDLL(str(host_library(_SOURCE, f"Compiling {_SOURCE.name}")))
