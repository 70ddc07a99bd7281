"""Schedules a repeated block on an out-of-order core, by the core's own latencies.

The model: instructions are dispatched in order into a window; each starts when its operands are ready and its pipelines are free, in any
order, and they leave the window in order. Nothing misses a cache and no branch is mispredicted. Each core's tables have its
figures: `cortex_a72.py`, `cortex_a73.py`, `cortex_a76.py`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tvmmobile.system.compiled import HOST_FLAGS, built_once, compile_here
from tvmmobile.virtual.cores.operands import Instruction, instruction_of

_SOURCE = Path(__file__).with_suffix(".c")
_TRIPS = 24
_WARM_TRIPS = 8
#: Cycles from dispatch to the earliest start; they shift all schedules equally, and matter only through the window.
_DISPATCH_LATENCY = 1
_UNLIMITED = 1 << 20
#: Two passes through one pipeline for both halves of 16 bytes; more are several micro-operations.
_PASSES = 2


@dataclass(frozen=True)
class InstructionTiming:
    """The cost of one instruction on a core.

    Attributes:
        latency: cycles from the last one in which it takes a pipeline until what it writes can be used; for what takes one pipeline once,
            the latency of the guides. The base register of an access has `CoreTables.base_latency`.
        ports: pipelines, and for how many cycles each of them is taken.
        update: the pipeline that updates the base register by itself, as soon as that register is ready; "" if it waits for the access.
        micro_operations: micro-operations that it takes in dispatch and in the window.
        chain: the family whose accumulators get its result early; "" for none.
        chain_latency: cycles until the family's next one can have it.
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
        window: micro-operations in flight.
        instructions_per_cycle: dispatched at most.
        micro_operations_per_cycle: dispatched at most.
        pipelines: each kind's number. A kind may stand for a part of another one's pipelines: see `part_of`.
        part_of: kinds that are some of another kind's pipelines: what takes them takes the other kind's as well.
        timing: cost of an instruction.
        queues: micro-operations of a kind that can wait for their operands or their pipeline, over all of the kind's pipelines; dispatch
            waits for room. Kinds that are not named, nor a part of a named one, have room for all that the window holds.
        chosen: the parts of a kind between which dispatch chooses, where each has a queue of its own: the one with fewer waiting, of equals
            the first. An operation then goes through that pipeline as often as it takes the kind, from one entry of its queue.
        base_latency: cycles until the base register of a pre- or post-indexed access can be used.
        early_stores: true if a store starts with its address, and waits for its data only to leave the window.
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
    """One instruction as the core sees it.

    Attributes:
        reads: register names.
        writes: register names and the cycles until each can be used.
        timing: its pipelines and micro-operations.
        accumulator: the register that an earlier instruction of its `timing.chain` hands over early; "" for none.
        handed_over: the register that it hands over to a later one of its `timing.chain`; "" for none.
        updated: the base register that `timing.update` writes; "" for none.
        awaited: registers that it needs to leave the window, but not to start.
    """

    reads: tuple[str, ...]
    writes: tuple[tuple[str, int], ...]
    timing: InstructionTiming
    accumulator: str = ""
    handed_over: str = ""
    updated: str = ""
    awaited: tuple[str, ...] = ()


def operation_of(text: str, tables: CoreTables) -> Operation:
    """Return an instruction's registers, latencies and pipelines on a core."""
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
    """Return the cycles per execution of a block, as `disassemble` gives it, that runs over and over, on average."""
    operations = [operation_of(text, tables) for text in block if text]
    if not operations:
        return 0.0
    numbers = _Numbers(tables)
    coded = [number for operation in operations for number in numbers.of(operation)]
    retired = retired_after(numbers.of_core(_window(operations, tables)), coded, len(operations), _TRIPS)
    return (retired[-1] - retired[_WARM_TRIPS - 1]) / (_TRIPS - _WARM_TRIPS)


def _window(operations: Sequence[Operation], tables: CoreTables) -> int:
    """Return the window's size, limited to the micro-operations it may have to hold."""
    return max(1, min(tables.window, _TRIPS * sum(operation.timing.micro_operations for operation in operations)))


def pipeline_cycles(block: Sequence[str], tables: CoreTables) -> dict[str, float]:
    """Return the cycles of one execution of a block in each kind of pipeline: no schedule by these tables is shorter on average."""
    busy = dict.fromkeys(tables.pipelines, 0)
    for timing in (operation_of(text, tables).timing for text in block if text):
        for port, cycles in (*timing.ports, (timing.update, 1)):
            while port:
                busy[port] += cycles
                port = tables.part_of.get(port, "")
    return {name: cycles / tables.pipelines[name] for name, cycles in busy.items()}


def dispatch_cycles(block: Sequence[str], tables: CoreTables) -> float:
    """Return the cycles that dispatch takes for one execution of a block: no schedule by these tables is shorter on average."""
    slots = sum(operation_of(text, tables).timing.micro_operations for text in block if text)
    return max(slots / tables.micro_operations_per_cycle, sum(map(bool, block)) / tables.instructions_per_cycle)


def waits_of(block: Sequence[str], tables: CoreTables) -> dict[str, float]:
    """Return the limits of a block in a loop, in percent of its cycles, with the names of `mca.pressures_of`.

    `registers` is its time with unlimited pipelines, where only dependent operations wait for each other; `resources` is the rest.
    """
    cycles = steady_cycles(block, tables)
    unlimited = replace(tables, pipelines=dict.fromkeys(tables.pipelines, _UNLIMITED), part_of={}, queues={}, chosen={})
    chains = min(steady_cycles(block, replace(unlimited, window=_UNLIMITED)), cycles)
    return {"registers": 100 * chains / cycles, "resources": 100 * (1 - chains / cycles)} if cycles else {}


class _Numbers:
    """The input of `out_of_order.c`: kinds of pipelines, registers and families as numbers; -1 means none."""

    def __init__(self, tables: CoreTables) -> None:
        self._tables = tables
        self._kinds = {name: place for place, name in enumerate(tables.pipelines)}
        self._registers: dict[str, int] = {}
        self._chains: dict[str, int] = {}

    def of_core(self, window: int) -> list[int]:
        """Encode the tables, once all operations are known."""
        tables = self._tables
        widths = tables.instructions_per_cycle, tables.micro_operations_per_cycle
        found = [window, *widths, _DISPATCH_LATENCY, tables.base_latency, _PASSES, len(self._registers), len(self._kinds)]
        once = {part for parts in tables.chosen.values() for part in parts}
        for name, count in tables.pipelines.items():
            queue = name
            while queue and queue not in tables.queues:
                queue = tables.part_of.get(queue, "")
            parts = (self._kind(part) for part in tables.chosen.get(name, ("", "")))
            found += [count, self._kind(tables.part_of.get(name, "")), tables.queues.get(name, 0), self._kind(queue), *parts, name in once]
        return found

    def of(self, operation: Operation) -> list[int]:
        """Encode one operation."""
        timing = operation.timing
        found = [timing.micro_operations, self._chain(timing.chain), timing.chain_latency]
        found += [self._register(name) for name in (operation.accumulator, operation.handed_over)]
        found += [self._kind(timing.update), self._register(operation.updated), len(timing.ports)]
        for port, cycles in timing.ports:
            found += [self._kind(port), cycles]
        found += [len(operation.reads), *map(self._register, operation.reads), len(operation.writes)]
        for name, latency in operation.writes:
            found += [self._register(name), latency]
        return [*found, len(operation.awaited), *map(self._register, operation.awaited)]

    def _kind(self, name: str) -> int:
        return self._kinds[name] if name else -1

    def _register(self, name: str) -> int:
        return self._registers.setdefault(name, len(self._registers)) if name else -1

    def _chain(self, name: str) -> int:
        return self._chains.setdefault(name, len(self._chains)) if name else -1


def retired_after(tables: Sequence[int], operations: Sequence[int], count: int, trips: int) -> list[int]:
    """Return the cycle in which the last of `count` operations has left the window, after each trip."""
    retired = (ctypes.c_int64 * trips)()
    coded = [(ctypes.c_int32 * len(numbers))(*numbers) for numbers in (tables, operations)]
    if not _library().schedule(*coded, count, trips, retired):
        raise MemoryError("there is no memory to schedule a block")
    return list(retired)


@functools.cache
def _library() -> ctypes.CDLL:
    """Load `out_of_order.c`, compiled for this machine: in Python it took most of the time of modelling a kernel."""

    def build(output: Path) -> None:
        compile_here(_SOURCE, output, f"Compiling {_SOURCE.name}")

    return ctypes.CDLL(str(built_once(_SOURCE, ".so", HOST_FLAGS, build)))
