"""Instruction scheduling of a register tile's loop for in-order cores that issue two instructions per cycle.

On a Cortex-A53, a 16-byte FMLA dual-issues with a load or an addition in general registers, but not with a load into a vector register. So
the tile's operands go through general registers: loads issue beside FMLAs, then insertions of 8 bytes, two in a cycle of their own. An FMLA
uses the adders four cycles after it issues, and insertions need the adders too: no FMLA may issue four cycles before an insertion.
Insertions therefore come in trains, one cycle in four, and no FMLA issues four cycles before a train.

On a Cortex-A55, both an insertion and an 8-byte load into a vector register issue beside an FMLA. An insertion occupies half of the vector
pipelines, a load none. So A's values are only loaded, half a vector at a time; a vector of W is loaded in its lower half, which clears the
upper one, and the upper half is inserted.

Sources: Tencent/ncnn, docs/developer-guide/arm-a53-a55-dual-issue.md, and those of `virtual/cores/cortex_a53.py`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvmmobile.graph.machine import Machine

VECTOR_REGISTERS = 32
#: Most registers for vectors of W: more only delay the first pass.
MOST_WEIGHT_VECTORS = 6
#: Elements per vector that a pass is made for.
LANES = (4, 8)
#: Latencies in cycles: from a load to the insertion of its result (one more than the cores need), from an insertion to an FMLA, and from an
#: addition to a load that uses its result as an address.
_LOADED, _INSERTED, _ADDED = 4, 2, 3
#: Cycles from a load into a vector register to an FMLA, and number of last rows whose first loads of A are left to the next pass.
_FETCHED, _LATE = 4, 4
#: Cycles after an FMLA issues until it needs the adders.
_ADDERS = 4
#: General registers that loads go through.
TEMPORARIES = 10


@dataclass(frozen=True)
class Policy:
    """When to insert, on cores where insertions take cycles of their own.

    Attributes:
        train: a train of insertions begins at most this many FMLAs before the first one that needs an inserted half.
        single: the same limit for an insertion that has a cycle to itself.
        mixed: true if the most urgent half is paired with the least urgent one rather than with the second most urgent.
        start: number of FMLAs before the first train.
    """

    train: int
    single: int
    mixed: bool
    start: int = -1


#: Of 210 policies, those with the shortest passes for tiles of 12 to 24 vectors; the best one for a tile is used.
_POLICIES = (
    *(Policy(train, single, False) for train, single in ((14, 12), (12, 12), (8, 6), (14, 45))),
    *(Policy(train, single, True) for train, single in ((16, 45), (18, 3), (10, 1), (10, 12), (20, 45), (12, 1))),
)

#: Policies for passes with a single train, which take the fewest cycles: the train has to begin exactly when registers become free.
_LATER = tuple(Policy(14, single, False, start) for single in (99, 6) for start in range(21))


def inner_order(machine: Machine, lanes: int) -> int:
    """Return a core's value of the knob `inner` for vectors of `lanes` lanes.

    0 leaves the instruction order to LLVM; 1 and 2 use this module's, 2 if the core issues insertions beside FMLAs.
    """
    return (2 if machine.inserts_beside else 1) if machine.in_order and lanes in LANES else 0


@dataclass(frozen=True)
class TileShape:
    """A register tile.

    Attributes:
        rows, vectors: pixels, and vectors of channels.
        beside: true if the core issues insertions beside FMLAs.
        steps: K steps in one pass of the loop, the elements of a vector.
        chained: true if sums are added in chains: each accumulator has a register for the sum so far, and one for all chains.
    """

    rows: int
    vectors: int
    beside: bool
    steps: int = LANES[0]
    chained: bool = False

    @property
    def accumulators(self) -> int:
        """Number of vectors of output."""
        return self.rows * self.vectors

    @property
    def sums(self) -> int:
        """Number of registers with sums."""
        return self.accumulators * (1 + self.chained)

    @property
    def cycles(self) -> float:
        """Approximate number of cycles of a pass."""
        multiplies, halves = self.steps * self.accumulators, 2 * (self.steps * self.vectors + self.rows)
        if self.beside:
            return multiplies + self.steps * self.vectors / 2 + 1
        # With fewer than three registers for W, insertions can seldom be paired.
        return multiplies + halves / 2 + 2 + (halves / 3 if self.weights < 3 else 0)

    @property
    def fits(self) -> bool:
        """True if a tile's sums and vectors of A leave a register for W."""
        return self.sums + self.rows < VECTOR_REGISTERS

    @property
    def weights(self) -> int:
        """Number of registers that vectors of W rotate through: a divisor of the number of vectors that a pass reads."""
        free = VECTOR_REGISTERS - self.sums - self.rows
        return max(count for count in range(1, MOST_WEIGHT_VECTORS + 1) if count <= free and self.steps * self.vectors % count == 0)

    @property
    def ahead(self) -> int:
        """Number of W vectors that a pass loads for the next pass."""
        return self.weights - 1


@dataclass(frozen=True)
class VectorHalf:
    """Half of a vector, 8 bytes.

    Attributes:
        of: operand of the vector: `a`, `w` or, in straight-line blocks, `v`.
        index: row of A, index among a pass's vectors of W, or index among a block's vectors.
        high: true for the upper half.
        following: true if the half belongs to the next pass.
    """

    of: str
    index: int
    high: bool
    following: bool


@dataclass(frozen=True)
class LoopAction:
    """One instruction.

    Attributes:
        name: `multiply`; `load` and `insert`, which move a half through a temporary register; `fetch`, which loads a half directly; `nop`;
            or pointer arithmetic: `advance0`, …, `finish0`, ….
        place: K step, vector and row of an FMLA; in straight-line blocks, its index and zeros.
        half, temporary: half and temporary register of a load, insertion or fetch.
    """

    name: str
    place: tuple[int, int, int] = (0, 0, 0)
    half: VectorHalf | None = None
    temporary: int = 0


@dataclass(frozen=True)
class HalfNeed:
    """When a half must be in its register.

    Attributes:
        release: number of FMLAs that must have issued before the half's register may be overwritten.
        need: number of FMLAs that can issue without the half.
    """

    half: VectorHalf
    release: int
    need: int

    @property
    def register(self) -> tuple[str, int]:
        """Register of the half; two insertions in one cycle must not share it."""
        return self.half.of, self.half.index


#: FMLAs in order, each with the halves that it reads.
Multiplies = Sequence[tuple[LoopAction, tuple[VectorHalf, ...]]]


def needs(shape: TileShape, last: bool) -> list[HalfNeed]:
    """Return the halves that a pass loads, most urgent first; the `last` pass loads none for a next pass."""
    rows, vectors = shape.rows, shape.steps * shape.vectors
    total, halves = rows * vectors, []
    for n, high in itertools.product(range(vectors + shape.ahead), (False, True)):
        if shape.ahead <= n < vectors or (not last and n >= vectors):
            half = VectorHalf("w", n % vectors, high, n >= vectors)
            halves.append(HalfNeed(half, max(rows * (n - shape.weights + 1), 0), rows * n))
    for row in range(rows):
        if shape.beside:
            # A load overwrites the other half, so it waits for that half's K steps.
            late = row >= rows - _LATE
            halves.append(HalfNeed(VectorHalf("a", row, True, False), total // 2 - rows + row + 1, total // 2 + row))
            if late:
                halves.append(HalfNeed(VectorHalf("a", row, False, False), 0, row))
            elif not last:
                halves.append(HalfNeed(VectorHalf("a", row, False, True), total - rows + row + 1, total + row))
            continue
        halves.append(HalfNeed(VectorHalf("a", row, True, False), 0, total // 2 + row))
        if not last:
            halves.append(HalfNeed(VectorHalf("a", row, False, True), total // 2 - rows + row + 1, total + row))
    return sorted(halves, key=lambda need: (need.need, need.half.high))


@functools.cache
def pass_order(shape: TileShape, last: bool, advance: int, finish: int) -> tuple[LoopAction, ...]:
    """Return the instructions of one pass; `advance` instructions precede the loads of the next pass's A, `finish` follow all loads."""
    multiplies = []
    for k, j, i in itertools.product(range(shape.steps), range(shape.vectors), range(shape.rows)):
        w = (VectorHalf("w", k * shape.vectors + j, high, False) for high in (False, True))
        multiplies.append((LoopAction("multiply", (k, j, i)), (*w, VectorHalf("a", i, k >= shape.steps // 2, False))))
    return shortest(multiplies, needs(shape, last), shape.beside, advance, finish)


def shortest(
    multiplies: Multiplies, waiting: Sequence[HalfNeed], beside: bool, advance: int = 0, finish: int = 0, policies: int | None = None
) -> tuple[LoopAction, ...]:
    """Return the instructions that issue these FMLAs in order, under the policy with the fewest cycles.

    Args:
        waiting: halves to load, most urgent first.
        policies: number of policies to try; `None` for all.
    """
    if beside:
        return tuple(_BesidePass(multiplies, waiting, advance, finish).actions)
    tried = (*_POLICIES, *_LATER)[:policies]
    passes = [_Pass(multiplies, waiting, advance, finish, policy) for policy in tried]
    return tuple(min(passes, key=lambda scheduled: scheduled.cycle).actions)


class _Cycles:
    """The instructions so far, and the state that decides which ones can issue next."""

    def __init__(self, multiplies: Multiplies, advance: int, pending: set[VectorHalf]) -> None:
        self.multiplies, self.advance, self.pending = multiplies, advance, pending
        self.free = list(range(TEMPORARIES))
        self.ready: dict[tuple[str, int], int] = {}
        self.actions: list[LoopAction] = []
        self.cycle = self.done = self.advanced = self.advanced_at = self.finished = 0

    def _can_multiply(self) -> bool:
        """Return whether the next FMLA's operands are ready."""
        if self.done == len(self.multiplies):
            return False
        halves = self.multiplies[self.done][1]
        return all(half not in self.pending and self.ready.get((half.of, half.index), 0) <= self.cycle for half in halves)


class _Pass(_Cycles):
    """Schedules a pass for cores where insertions take cycles of their own: fills cycle after cycle with up to two instructions."""

    def __init__(self, multiplies: Multiplies, waiting: Sequence[HalfNeed], advance: int, finish: int, policy: Policy) -> None:
        super().__init__(multiplies, advance, {need.half for need in waiting if not need.half.following})
        self.to_load, self.to_insert, self.finish, self.policy = list(waiting), list(waiting), finish, policy
        self.loaded: dict[VectorHalf, tuple[int, int]] = {}  # temporary register, and the cycle from which it can be inserted
        self.quiet: set[int] = set()  # cycles without an FMLA
        while self.done < len(self.multiplies) or self.to_insert:
            self._cycle()
        self.actions += [LoopAction(f"finish{number}") for number in range(self.finished, self.finish)]

    def _cycle(self) -> None:
        due, can_multiply = self._insertable(), self._can_multiply()
        urgent = bool(due) and (not can_multiply or len(due) > 1 or due[0].need - self.done <= self.policy.single)
        if urgent and (not can_multiply or self._adders_free()):
            while not self._adders_free():  # the core stalls
                self.quiet.add(self.cycle)
                self.cycle += 1
            pair = due[:2] if len(due) < 2 or not self.policy.mixed else [due[0], due[-1]]
            self._quiet([self._insert(need) for need in pair])
        elif not can_multiply or self._train_due():
            self._quiet([])
        else:
            self._multiply()

    def _adders_free(self) -> bool:
        return self.cycle - _ADDERS in self.quiet

    def _train_due(self) -> bool:
        """Return whether FMLAs must pause now for a train of insertions: no train is under way, and a half is needed soon."""
        if self.done < self.policy.start or any(self.cycle - back in self.quiet for back in range(1, _ADDERS + 1)):
            return False
        if self.done == self.policy.start:
            return True
        soon = [need for need in self.to_insert if need.release <= self.done + 3]
        return bool(soon) and soon[0].need - self.done <= self.policy.train

    def _insertable(self) -> list[HalfNeed]:
        """Return the halves whose value has arrived and whose register is free, at most one per register."""
        insertable: dict[tuple[str, int], HalfNeed] = {}
        # An insertion into the other half of a register that the next FMLA reads would stall that FMLA.
        read = {(half.of, half.index) for _, halves in self.multiplies[self.done : self.done + 1] for half in halves}
        for need in self.to_insert:
            if need.half.following and need.register in read:
                continue
            if need.release <= self.done and self.loaded.get(need.half, (0, 1 << 30))[1] <= self.cycle:
                insertable.setdefault(need.register, need)
        return list(insertable.values())

    def _insert(self, need: HalfNeed) -> LoopAction:
        temporary, _ = self.loaded.pop(need.half)
        self.free.append(temporary)
        self.to_insert.remove(need)
        self.pending.discard(need.half)
        self.ready[need.register] = self.cycle + _INSERTED  # also for FMLAs that read the other half
        return LoopAction("insert", half=need.half, temporary=temporary)

    def _general(self, loads: bool = True) -> LoopAction | None:
        """Return the next instruction on general registers, or `None`."""
        if self.advanced < self.advance:
            self.advanced += 1
            self.advanced_at = self.cycle
            return LoopAction(f"advance{self.advanced - 1}")
        if self.to_load and self.free and loads:
            need = self.to_load[0]
            follows = need.half.of == "a" and need.half.following
            if not follows or self.cycle >= self.advanced_at + _ADDED:
                self.to_load.pop(0)
                temporary = self.free.pop(0)
                self.loaded[need.half] = temporary, self.cycle + _LOADED
                return LoopAction("load", half=need.half, temporary=temporary)
        if not self.to_load and self.finished < self.finish:
            self.finished += 1
            return LoopAction(f"finish{self.finished - 1}")
        return None

    def _multiply(self) -> None:
        self.actions.append(self.multiplies[self.done][0])
        self.done += 1
        paired = self._general()
        self.actions += [paired] if paired else []
        self.cycle += 1

    def _quiet(self, actions: list[LoopAction]) -> None:
        """Fill up a cycle without an FMLA with instructions on general registers, or with NOPs."""
        loads = True
        while len(actions) < 2:
            action = self._general(loads)
            loads = loads and (action is None or action.name != "load")
            actions.append(action or LoopAction("nop"))
        # A lone FMLA gets a NOP, or the first of these actions would issue beside it.
        if self.actions and self.actions[-1].name == "multiply" and not any(action.name == "insert" for action in actions):
            self.actions.append(LoopAction("nop"))
        self.actions += actions
        self.quiet.add(self.cycle)
        self.cycle += 1


class _BesidePass(_Cycles):
    """Schedules a pass for cores that issue insertions beside FMLAs: an FMLA whenever its operands are ready, and the most urgent fetch,
    load or insertion beside it.
    """

    def __init__(self, multiplies: Multiplies, waiting: Sequence[HalfNeed], advance: int, finish: int) -> None:
        super().__init__(multiplies, advance, {need.half for need in waiting})
        self.to_fetch = [need for need in waiting if not _inserted(need.half)]
        self.to_load = [need for need in waiting if _inserted(need.half)]
        self.to_insert: list[tuple[HalfNeed, int, int]] = []  # with its temporary register, and the cycle from which it can be inserted
        while self.done < len(multiplies) or self.pending:
            can_multiply = self._can_multiply()
            if can_multiply:
                self.actions.append(multiplies[self.done][0])
                self.done += 1
            paired = self._paired()
            if paired is None and not self.pending and self.finished < finish:
                paired, self.finished = LoopAction(f"finish{self.finished}"), self.finished + 1
            self.actions += [paired] if paired else []
            self.cycle += 1
        self.actions += [LoopAction(f"finish{number}") for number in range(self.finished, finish)]

    def _paired(self) -> LoopAction | None:
        """Return the instruction to issue beside the next FMLA, or `None`."""
        if self.advanced < self.advance:
            self.advanced, self.advanced_at = self.advanced + 1, self.cycle
            return LoopAction(f"advance{self.advanced - 1}")
        waiting = {need.half for need in self.to_fetch}
        lower = ((n, t, at) for n, t, at in self.to_insert if at <= self.cycle and replace(n.half, high=False) not in waiting)
        insertion = next(((n, t) for n, t, _ in lower if n.release <= self.done), None)
        fetch = next((need for need in self.to_fetch if need.release <= self.done and self._addressed(need)), None)
        load = self.to_load[0] if self.to_load and self.free else None
        # The one with the earliest deadline.
        choices = [(insertion[0].need - _INSERTED, 0)] if insertion else []
        choices += [(fetch.need - _FETCHED, 1)] if fetch else []
        choices += [(load.need - _LOADED - _INSERTED, 2)] if load else []
        kind = min(choices, default=(0, None))[1]
        if kind == 0 and insertion:
            return self._insert(*insertion)
        if kind == 1 and fetch:
            self.to_fetch.remove(fetch)
            return self._written(fetch, LoopAction("fetch", half=fetch.half), _FETCHED)
        if load is None:
            return None
        temporary = self.free.pop(0)
        self.to_insert.append((self.to_load.pop(0), temporary, self.cycle + _LOADED))
        return LoopAction("load", half=load.half, temporary=temporary)

    def _addressed(self, need: HalfNeed) -> bool:
        """Return whether the half's address is known: loads for the next pass need the advanced pointer to A."""
        return not (need.half.of == "a" and need.half.following) or self.cycle >= self.advanced_at + _ADDED

    def _insert(self, need: HalfNeed, temporary: int) -> LoopAction:
        self.to_insert = [entry for entry in self.to_insert if entry[0] is not need]
        self.free.append(temporary)
        return self._written(need, LoopAction("insert", half=need.half, temporary=temporary), _INSERTED)

    def _written(self, need: HalfNeed, action: LoopAction, cycles: int) -> LoopAction:
        """Note that a half is written, to be read `cycles` later; return the action."""
        self.pending.discard(need.half)
        self.ready[need.register] = max(self.ready.get(need.register, 0), self.cycle + cycles)
        return action


def _inserted(half: VectorHalf) -> bool:
    """Return whether a half has to be inserted: loads into vector registers write only the lower half."""
    return half.of != "a" and half.high
