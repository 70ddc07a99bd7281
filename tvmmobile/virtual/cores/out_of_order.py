"""A block's cycles by its core's own latencies: an out-of-order core's schedule of the block run over and over.

The model: instructions are dispatched in order into a window; each starts when its operands are ready and its pipelines are free, in any
order, and they leave the window in order. Nothing misses a cache and no branch is predicted wrongly. What a core has of all this, its
tables say: `cortex_a72.py`, `cortex_a76.py`.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tvmmobile.virtual.cores.operands import Instruction, instruction_of

_TRIPS = 24
_WARM_TRIPS = 8
#: From dispatch to the earliest start; it moves every schedule alike, and matters only through the window.
_DISPATCH_LATENCY = 1
_UNLIMITED = 1 << 20
#: Two passes through one pipeline for both halves of 16 bytes; more are several micro-operations.
_PASSES = 2


@dataclass(frozen=True)
class InstructionTiming:
    """What one instruction costs on a core.

    Attributes:
        latency: cycles from the last one in which it takes a pipeline until what it writes can be used; for what takes one pipeline once,
            the latency of the guides. The base register of an access has `CoreTables.base_latency`.
        ports: pipelines, and for how many cycles each of them is taken.
        update: the pipeline that updates the base register by itself, as soon as that register is ready; "" if it waits for the access.
        micro_operations: what it takes in dispatch and in the window.
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
    """What the schedule needs of a core.

    Attributes:
        name: LLVM's name of the core.
        source: where the figures are from.
        window: micro-operations in flight.
        instructions_per_cycle: dispatched at most.
        micro_operations_per_cycle: dispatched at most.
        pipelines: each kind's number. A kind may stand for a part of another one's pipelines: see `part_of`.
        part_of: kinds that are some of another kind's pipelines: what takes them takes the other kind's as well.
        timing: what an instruction costs.
        queues: micro-operations of a kind that can wait for their operands or their pipeline, over all of the kind's pipelines; dispatch
            waits for room. Kinds that are not named, nor a part of a named one, have room for all that the window holds.
        chosen: the parts of a kind between which dispatch chooses, where each has a queue of its own: the one with fewer waiting, of equals
            the first. An operation then goes through that pipeline as often as it takes the kind, from one entry of its queue.
        base_latency: cycles until the base register of a pre- or post-indexed access can be used.
        early_stores: whether a store starts with its address, and waits for its data only to leave the window.
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
    """An instruction's registers, latencies and pipelines on a core."""
    instruction = instruction_of(text)
    timing = tables.timing(instruction)
    writes = tuple((register, timing.latency) for register in instruction.writes)
    apart = bool(timing.update and instruction.base)
    if instruction.base and not apart:
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
        updated=instruction.base if apart else "",
        awaited=instruction.reads[:data],
    )


def steady_cycles(block: Sequence[str], tables: CoreTables) -> float:
    """Cycles per execution of a block, as `disassemble` gives it, that runs over and over, on average."""
    operations = [operation_of(text, tables) for text in block if text]
    if not operations:
        return 0.0
    pipelines = _Pipelines(tables)
    front_end = _FrontEnd(tables)
    ready: defaultdict[str, int] = defaultdict(int)
    early: dict[str, tuple[str, int]] = {}
    retired: list[int] = []  # after each trip
    seen: dict[Hashable, int] = {}
    while len(retired) < _TRIPS:
        for op in operations:
            dispatched = start = front_end.dispatch(op.timing.micro_operations, pipelines.room(op.timing.ports)) + _DISPATCH_LATENCY
            for place, name in enumerate(op.reads):
                chain, cycle = early.get(name, ("", 0))
                taken_over = place == 0 and name == op.accumulator and chain == op.timing.chain
                start = max(start, cycle if taken_over else ready[name])
            end = start
            for port, cycles in pipelines.chosen(op.timing.ports, dispatched - _DISPATCH_LATENCY) if tables.chosen else op.timing.ports:
                end = max(end, pipelines.take(port, start, cycles))
            done = end
            if op.updated:
                ready[op.updated] = pipelines.take(op.timing.update, max(dispatched, ready[op.updated]), 1) + tables.base_latency
            for name, latency in op.writes:
                ready[name] = end + latency
                early.pop(name, None)
                done = max(done, end + latency)
            for name in op.awaited:
                done = max(done, ready[name])
            if op.handed_over:
                early[op.handed_over] = op.timing.chain, end + op.timing.chain_latency
            front_end.leave(done, op.timing.micro_operations)
        retired.append(front_end.retired)
        now = front_end.next_cycle
        registers = tuple((name, max(0, cycle - now)) for name, cycle in sorted(ready.items()))
        chains = tuple((name, chain, max(0, cycle - now)) for name, (chain, cycle) in sorted(early.items()))
        before = seen.setdefault((front_end.state(now), pipelines.state(now), registers, chains), len(retired))
        if before < len(retired):  # from here on every trip repeats one that was
            period, cycles = len(retired) - before, retired[-1] - retired[before - 1]
            while len(retired) < _TRIPS:
                retired.append(retired[-period] + cycles)
    return (retired[-1] - retired[_WARM_TRIPS - 1]) / (_TRIPS - _WARM_TRIPS)


def pipeline_cycles(block: Sequence[str], tables: CoreTables) -> dict[str, float]:
    """Cycles that each kind of pipeline is busy with one execution of a block: no schedule by these tables is shorter on average."""
    busy = dict.fromkeys(tables.pipelines, 0)
    for timing in (operation_of(text, tables).timing for text in block if text):
        for port, cycles in (*timing.ports, (timing.update, 1)):
            while port:
                busy[port] += cycles
                port = tables.part_of.get(port, "")
    return {name: cycles / tables.pipelines[name] for name, cycles in busy.items()}


def dispatch_cycles(block: Sequence[str], tables: CoreTables) -> float:
    """Cycles that dispatch takes for one execution of a block: no schedule by these tables is shorter on average."""
    slots = sum(operation_of(text, tables).timing.micro_operations for text in block if text)
    return max(slots / tables.micro_operations_per_cycle, sum(map(bool, block)) / tables.instructions_per_cycle)


def waits_of(block: Sequence[str], tables: CoreTables) -> dict[str, float]:
    """What keeps a block that runs over and over from being faster, in percent of its cycles, as `mca.pressures_of` names it.

    `registers` is how long it would take with pipelines without number, where only dependent operations wait for each other; `resources` is
    the rest.
    """
    cycles = steady_cycles(block, tables)
    unlimited = replace(tables, pipelines=dict.fromkeys(tables.pipelines, _UNLIMITED), part_of={}, queues={}, chosen={})
    chains = min(steady_cycles(block, replace(unlimited, window=_UNLIMITED)), cycles)
    return {"registers": 100 * chains / cycles, "resources": 100 * (1 - chains / cycles)} if cycles else {}


class _FrontEnd:
    """In-order dispatch into the window, and in-order retirement from it."""

    def __init__(self, tables: CoreTables) -> None:
        self._tables = tables
        self._instructions = self._micro_operations = 0  # dispatched, and the slots that passed unused
        self._leaves: list[int] = []  # when each micro-operation in flight leaves the window
        self.retired = 0

    def dispatch(self, micro_operations: int, room: int) -> int:
        """The cycle in which an instruction is dispatched, not before there is `room` for it."""
        widths = self._tables.instructions_per_cycle, self._tables.micro_operations_per_cycle
        cycle = max(room, self._instructions // widths[0], self._micro_operations // widths[1])
        if len(self._leaves) >= self._tables.window:
            cycle = max(cycle, self._leaves[-self._tables.window])
        self._instructions = max(self._instructions, cycle * widths[0]) + 1
        self._micro_operations = max(self._micro_operations, cycle * widths[1]) + micro_operations
        return cycle

    @property
    def next_cycle(self) -> int:
        """The first cycle in which anything else can be dispatched."""
        return max(
            self._instructions // self._tables.instructions_per_cycle, self._micro_operations // self._tables.micro_operations_per_cycle
        )

    def state(self, now: int) -> Hashable:
        """All that what is dispatched from `next_cycle` on depends on, as seen from cycle `now`."""
        instructions = self._instructions - now * self._tables.instructions_per_cycle
        micro_operations = self._micro_operations - now * self._tables.micro_operations_per_cycle
        return instructions, micro_operations, self.retired - now, tuple(max(0, cycle - now) for cycle in self._leaves)

    def leave(self, done: int, micro_operations: int) -> None:
        """An instruction is done in that cycle; it leaves when all before it have left."""
        self.retired = max(self.retired, done)
        self._leaves += [self.retired] * micro_operations
        del self._leaves[: -self._tables.window]


class _Pipelines:
    """Which pipelines are taken in which cycle, and what waits for them."""

    def __init__(self, tables: CoreTables) -> None:
        counts = {name: defaultdict[int, int](int) for name in tables.pipelines}
        self._kinds: dict[str, list[tuple[defaultdict[int, int], int]]] = {}
        self._queue_of: dict[str, _Queue] = {}
        queues = {name: _Queue(entries) for name, entries in tables.queues.items()}
        self._counts, self._queues = tuple(counts.values()), tuple(queues.values())
        #: (first, last): from the first cycle up to the last, without it, no slot is free; slots are never given back.
        self._taken = dict.fromkeys(tables.pipelines, (0, 0))
        for name in tables.pipelines:
            chain = [name]
            while chain[-1] in tables.part_of:
                chain.append(tables.part_of[chain[-1]])
            self._kinds[name] = [(counts[kind], tables.pipelines[kind]) for kind in chain]
            queued = [kind for kind in chain if kind in queues]
            if queued:
                self._queue_of[name] = queues[queued[0]]
        self._parts = tables.chosen
        self._once = {part for parts in tables.chosen.values() for part in parts}

    def room(self, ports: tuple[tuple[str, int], ...]) -> int:
        """The first cycle in which the queues can take what an instruction needs."""
        cycle = 0
        for port, cycles in ports:
            if port in self._parts:
                cycle = max(cycle, min(self._queue_of[part].room(1) for part in self._parts[port]))
            elif port in self._queue_of:
                cycle = max(cycle, self._queue_of[port].room(1 if port in self._once else cycles))
        return cycle

    def chosen(self, ports: tuple[tuple[str, int], ...], now: int) -> tuple[tuple[str, int], ...]:
        """The same with one of the parts for each kind that has some to choose from, in cycle `now`; longer ones take both in turn."""
        found: list[tuple[str, int]] = []
        for port, cycles in ports:
            if port not in self._parts:
                found.append((port, cycles))
                continue
            first, other = self._parts[port]
            if self._queue_of[other].waiting(now) < self._queue_of[first].waiting(now):
                first, other = other, first
            found += [(first, cycles)] if cycles <= _PASSES else [(first, cycles - cycles // 2), (other, cycles // 2)]
        return tuple(found)

    def state(self, now: int) -> Hashable:
        """All that what starts in cycle `now` or later depends on, as seen from there; what is before is forgotten."""
        for used in self._counts:
            for cycle in [cycle for cycle in used if cycle < now]:
                del used[cycle]
        taken = tuple(tuple(sorted((cycle - now, count) for cycle, count in used.items() if count)) for used in self._counts)
        return taken, tuple(queue.state(now) for queue in self._queues)

    def take(self, port: str, start: int, cycles: int) -> int:
        """Take as many free slots of a kind of pipeline from `start` on; the cycle of the last one."""
        kinds, queue = self._kinds[port], self._queue_of.get(port)
        first, at = self._taken[port]
        if not first <= start <= at:
            first = at = start
        while True:
            taken = True
            while taken:  # without a generator: this is where modelling spends its time
                taken = False
                for used, count in kinds:
                    if used[at] >= count:
                        taken = True
                        at += 1
                        break
            for used, _ in kinds:
                used[at] += 1
            if queue:
                queue.enter(at)
                queue = None if port in self._once else queue
            cycles -= 1
            if not cycles:
                self._taken[port] = first, at
                return at


class _Queue:
    """Micro-operations that wait for their operands or their pipeline."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._starts: list[int] = []  # when they leave it: the latest ones of all so far, earliest first

    def room(self, entries: int) -> int:
        """The first cycle in which that many more can enter."""
        missing = len(self._starts) + min(entries, self._entries) - self._entries
        return self._starts[missing - 1] if missing > 0 else 0

    def waiting(self, now: int) -> int:
        """How many are in it in that cycle, dispatched in it or before."""
        return len(self._starts) - bisect_right(self._starts, now)

    def state(self, now: int) -> Hashable:
        """When its micro-operations leave, as seen from cycle `now`."""
        return tuple(max(0, start - now) for start in self._starts)

    def enter(self, start: int) -> None:
        """One has entered that leaves in cycle `start`."""
        insort(self._starts, start)
        del self._starts[: -self._entries]
