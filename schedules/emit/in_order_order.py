"""The order of instructions in a register tile's loop, for cores that start two instructions a cycle in program order.

On a Cortex-A53 an FMLA of 16 bytes starts with a load into a general register or with an addition there, but with no load into a vector
register. So what the tile reads goes through general registers: loads beside FMLAs, then insertions of 8 bytes, two in a cycle of their
own. An FMLA occupies the adders four cycles after it starts, and insertions need them as well: in the fourth cycle before one, no FMLA may
start. Insertions therefore follow each other every fourth cycle, and four cycles before such a train no FMLA starts.

On a Cortex-A55 an insertion starts beside an FMLA, and so does a load of 8 bytes into a vector register. An insertion keeps half of the
vector pipelines busy, a load none. So A's values are only loaded, two steps of K at a time; the lower half of a vector of W is loaded,
which clears the upper half, and the upper half is inserted.

Sources: Tencent/ncnn, docs/developer-guide/arm-a53-a55-dual-issue.md, and those of `virtual/cores/cortex_a53.py`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvmmobile.graph.machine import Machine

VECTOR_REGISTERS = 32
#: Registers for vectors of W, at most: more only delay the first pass.
MOST_WEIGHT_VECTORS = 6
#: Steps of K in one pass of the loop: what a vector of A holds.
K_STEPS = 4
#: Cycles from a load to the insertion of its result, one more than the cores need; from an insertion to an FMLA; from an addition to an
#: address.
_LOADED, _INSERTED, _ADDED = 4, 2, 3
#: From a load into a vector register to an FMLA, and how many rows before a pass's end A's loads are left to the next pass.
_FETCHED, _LATE = 4, 4
#: Cycles after which an FMLA needs the adders.
_ADDERS = 4
#: General registers that loads go through.
TEMPORARIES = 10


@dataclass(frozen=True)
class Policy:
    """When insertions happen, on cores where they take their own cycles.

    Attributes:
        train: a train of insertions begins at the latest this many FMLAs before the first one that needs a half.
        single: the same for an insertion that no other one shares its cycle with.
        mixed: true if the most urgent half is paired with the least urgent one rather than with the next.
        start: fewest FMLAs before the first train.
    """

    train: int
    single: int
    mixed: bool
    start: int = -1


#: The policies, out of 210, with the shortest passes for tiles of 12 to 24 vectors; the best of these is used.
_POLICIES = (
    *(Policy(train, single, False) for train, single in ((14, 12), (12, 12), (8, 6), (14, 45))),
    *(Policy(train, single, True) for train, single in ((16, 45), (18, 3), (10, 1), (10, 12), (20, 45), (12, 1))),
)

#: Policies for passes with a single train, which take the fewest cycles: it has to begin just when registers become free.
_LATER = tuple(Policy(14, single, False, start) for single in (99, 6) for start in range(21))


def inner_order(machine: Machine, lanes: int) -> int:
    """Return the order of a register tile's loop on a core, for vectors with that many lanes.

    0 means LLVM's, 1 and 2 this module's; 2 if an insertion starts beside an FMLA.
    """
    return (2 if machine.inserts_beside else 1) if machine.in_order and lanes == K_STEPS else 0


@dataclass(frozen=True)
class TileShape:
    """A register tile: pixels, vectors of channels, and whether an insertion starts beside an FMLA."""

    rows: int
    vectors: int
    beside: bool

    @property
    def cycles(self) -> float:
        """Approximate cycles of a pass."""
        multiplies, halves = K_STEPS * self.rows * self.vectors, 2 * (K_STEPS * self.vectors + self.rows)
        if self.beside:
            return multiplies + K_STEPS * self.vectors / 2 + 1
        # With fewer than three registers for W, insertions seldom find another to share their cycle.
        return multiplies + halves / 2 + 2 + (halves / 3 if self.weights < 3 else 0)

    @staticmethod
    def fits(rows: int, vectors: int) -> bool:
        """Return whether there are registers for a tile."""
        return rows * vectors + rows < VECTOR_REGISTERS

    @property
    def weights(self) -> int:
        """Registers for vectors of W, which take turns: a divisor of what a pass reads."""
        free = VECTOR_REGISTERS - self.rows * self.vectors - self.rows
        return max(count for count in range(1, MOST_WEIGHT_VECTORS + 1) if count <= free and K_STEPS * self.vectors % count == 0)

    @property
    def ahead(self) -> int:
        """Vectors of W that a pass reads for the next one."""
        return self.weights - 1


@dataclass(frozen=True)
class VectorHalf:
    """Eight bytes of a vector.

    Attributes:
        of: `a`, `w` or, outside of loops, `v`.
        index: the row of A, or which of a pass's vectors of W; which of the vectors that are read.
        high: true if they are the upper ones.
        following: true if they are the next pass's.
    """

    of: str
    index: int
    high: bool
    following: bool


@dataclass(frozen=True)
class LoopAction:
    """One instruction.

    Attributes:
        name: `multiply`, `load` and `insert` of a half through a temporary register, `fetch` of a half without one, `nop`; or what
            `advance` and `finish` say of pointers: `advance0`, `finish0` and so on.
        place: the FMLA's step of K, vector and row; outside of loops, its number first.
        half, temporary: the half and the temporary register of a load, insertion or fetch.
    """

    name: str
    place: tuple[int, int, int] = (0, 0, 0)
    half: VectorHalf | None = None
    temporary: int = 0


@dataclass(frozen=True)
class HalfNeed:
    """A half with the FMLAs that must have started before it is overwritten, and those that may start without it."""

    half: VectorHalf
    release: int
    need: int

    @property
    def register(self) -> tuple[str, int]:
        """The register, which insertions in the same cycle must not share."""
        return self.half.of, self.half.index


#: FMLAs, each with the halves that it reads.
Multiplies = Sequence[tuple[LoopAction, tuple[VectorHalf, ...]]]


def needs(shape: TileShape, last: bool) -> list[HalfNeed]:
    """Return the halves that a pass reads, most urgent first; the `last` pass reads none for a next one."""
    rows, vectors = shape.rows, K_STEPS * shape.vectors
    total, found = rows * vectors, []
    for n, high in itertools.product(range(vectors + shape.ahead), (False, True)):
        if shape.ahead <= n < vectors or (not last and n >= vectors):
            half = VectorHalf("w", n % vectors, high, n >= vectors)
            found.append(HalfNeed(half, max(rows * (n - shape.weights + 1), 0), rows * n))
    for row in range(rows):
        if shape.beside:
            # A load overwrites the other half: when its steps of K are over.
            late = row >= rows - _LATE
            found.append(HalfNeed(VectorHalf("a", row, True, False), total // 2 - rows + row + 1, total // 2 + row))
            if late:
                found.append(HalfNeed(VectorHalf("a", row, False, False), 0, row))
            elif not last:
                found.append(HalfNeed(VectorHalf("a", row, False, True), total - rows + row + 1, total + row))
            continue
        found.append(HalfNeed(VectorHalf("a", row, True, False), 0, total // 2 + row))
        if not last:
            found.append(HalfNeed(VectorHalf("a", row, False, True), total // 2 - rows + row + 1, total + row))
    return sorted(found, key=lambda need: (need.need, need.half.high))


@functools.cache
def pass_order(shape: TileShape, last: bool, advance: int, finish: int) -> tuple[LoopAction, ...]:
    """Return the instructions of one pass; `advance` additions come before the loads of the next pass's A, `finish` after all loads."""
    multiplies = []
    for k, j, i in itertools.product(range(K_STEPS), range(shape.vectors), range(shape.rows)):
        w = (VectorHalf("w", k * shape.vectors + j, high, False) for high in (False, True))
        multiplies.append((LoopAction("multiply", (k, j, i)), (*w, VectorHalf("a", i, k >= K_STEPS // 2, False))))
    return shortest(multiplies, needs(shape, last), shape.beside, advance, finish)


def shortest(
    multiplies: Multiplies, waiting: Sequence[HalfNeed], beside: bool, advance: int = 0, finish: int = 0, policies: int | None = None
) -> tuple[LoopAction, ...]:
    """Return the instructions that start these FMLAs in order, in the fewest cycles of all policies; `waiting` begins with the most
    urgent half."""
    if beside:
        return tuple(_BesidePass(multiplies, waiting, advance, finish).actions)
    tried = (*_POLICIES, *_LATER)[:policies]
    passes = [_Pass(multiplies, waiting, advance, finish, policy) for policy in tried]
    return tuple(min(passes, key=lambda one: one.cycle).actions)


class _Cycles:
    """Instructions so far, and what the next ones depend on."""

    def __init__(self, multiplies: Multiplies, advance: int, pending: set[VectorHalf]) -> None:
        self.multiplies, self.advance, self.pending = multiplies, advance, pending
        self.free = list(range(TEMPORARIES))
        self.ready: dict[tuple[str, int], int] = {}
        self.actions: list[LoopAction] = []
        self.cycle = self.done = self.advanced = self.advanced_at = self.finished = 0

    def _able(self) -> bool:
        """Return whether the next FMLA's operands are ready."""
        if self.done == len(self.multiplies):
            return False
        halves = self.multiplies[self.done][1]
        return all(half not in self.pending and self.ready.get((half.of, half.index), 0) <= self.cycle for half in halves)


class _Pass(_Cycles):
    """Fills cycle after cycle with up to two instructions."""

    def __init__(self, multiplies: Multiplies, waiting: Sequence[HalfNeed], advance: int, finish: int, policy: Policy) -> None:
        super().__init__(multiplies, advance, {need.half for need in waiting if not need.half.following})
        self.to_load, self.to_insert, self.finish, self.policy = list(waiting), list(waiting), finish, policy
        self.loaded: dict[VectorHalf, tuple[int, int]] = {}  # temporary register, and the cycle from which it can be inserted
        self.quiet: set[int] = set()  # cycles without an FMLA
        while self.done < len(self.multiplies) or self.to_insert:
            self._cycle()
        self.actions += [LoopAction(f"finish{number}") for number in range(self.finished, self.finish)]

    def _cycle(self) -> None:
        due, able = self._insertable(), self._able()
        urgent = bool(due) and (not able or len(due) > 1 or due[0].need - self.done <= self.policy.single)
        if urgent and (not able or self._adders_free()):
            while not self._adders_free():  # the core waits
                self.quiet.add(self.cycle)
                self.cycle += 1
            pair = due[:2] if len(due) < 2 or not self.policy.mixed else [due[0], due[-1]]
            self._quiet([self._insert(need) for need in pair])
        elif not able or self._train_due():
            self._quiet([])
        else:
            self._multiply()

    def _adders_free(self) -> bool:
        return self.cycle - _ADDERS in self.quiet

    def _train_due(self) -> bool:
        """Return whether FMLAs must pause now for a train of insertions: none is under way, and one is needed soon."""
        if self.done < self.policy.start or any(self.cycle - back in self.quiet for back in range(1, _ADDERS + 1)):
            return False
        if self.done == self.policy.start:
            return True
        soon = [need for need in self.to_insert if need.release <= self.done + 3]
        return bool(soon) and soon[0].need - self.done <= self.policy.train

    def _insertable(self) -> list[HalfNeed]:
        """Return the halves of different registers whose register is free and whose value has arrived."""
        found: dict[tuple[str, int], HalfNeed] = {}
        # An insertion into what the next FMLA reads the other half of would hold it up.
        read = {(half.of, half.index) for _, halves in self.multiplies[self.done : self.done + 1] for half in halves}
        for need in self.to_insert:
            if need.half.following and need.register in read:
                continue
            if need.release <= self.done and self.loaded.get(need.half, (0, 1 << 30))[1] <= self.cycle:
                found.setdefault(need.register, need)
        return list(found.values())

    def _insert(self, need: HalfNeed) -> LoopAction:
        temporary, _ = self.loaded.pop(need.half)
        self.free.append(temporary)
        self.to_insert.remove(need)
        self.pending.discard(need.half)
        self.ready[need.register] = self.cycle + _INSERTED  # also for FMLAs that read the other half
        return LoopAction("insert", half=need.half, temporary=temporary)

    def _general(self, loads: bool = True) -> LoopAction | None:
        """Return the next instruction on general registers, if there is one."""
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
        other = self._general()
        self.actions += [other] if other else []
        self.cycle += 1

    def _quiet(self, actions: list[LoopAction]) -> None:
        """Fill a cycle without an FMLA: insertions, or other instructions."""
        loads = True
        while len(actions) < 2:
            other = self._general(loads)
            loads = loads and (other is None or other.name != "load")
            actions.append(other or LoopAction("nop"))
        # What precedes fills its own cycle, or these would start there.
        if self.actions and self.actions[-1].name == "multiply" and not any(action.name == "insert" for action in actions):
            self.actions.append(LoopAction("nop"))
        self.actions += actions
        self.quiet.add(self.cycle)
        self.cycle += 1


class _BesidePass(_Cycles):
    """An FMLA in each cycle in which its operands are ready, and beside it whatever is most urgent: a fetch, a load or an insertion."""

    def __init__(self, multiplies: Multiplies, waiting: Sequence[HalfNeed], advance: int, finish: int) -> None:
        super().__init__(multiplies, advance, {need.half for need in waiting})
        self.to_fetch = [need for need in waiting if not _inserted(need.half)]
        self.to_load = [need for need in waiting if _inserted(need.half)]
        self.to_insert: list[tuple[HalfNeed, int, int]] = []  # with its temporary register, and the cycle from which it can be inserted
        while self.done < len(multiplies) or self.pending:
            able = self._able()
            if able:
                self.actions.append(multiplies[self.done][0])
                self.done += 1
            other = self._other()
            if other is None and not self.pending and self.finished < finish:
                other, self.finished = LoopAction(f"finish{self.finished}"), self.finished + 1
            self.actions += [other] if other else []
            self.cycle += 1
        self.actions += [LoopAction(f"finish{number}") for number in range(self.finished, finish)]

    def _other(self) -> LoopAction | None:
        """Return the next instruction beside an FMLA."""
        if self.advanced < self.advance:
            self.advanced, self.advanced_at = self.advanced + 1, self.cycle
            return LoopAction(f"advance{self.advanced - 1}")
        waiting = {need.half for need in self.to_fetch}
        lower = ((n, t, at) for n, t, at in self.to_insert if at <= self.cycle and replace(n.half, high=False) not in waiting)
        insertion = next(((n, t) for n, t, _ in lower if n.release <= self.done), None)
        fetch = next((need for need in self.to_fetch if need.release <= self.done and self._addressed(need)), None)
        load = self.to_load[0] if self.to_load and self.free else None
        # The last of these that still arrives in time.
        choices = [(insertion[0].need - _INSERTED, 0)] if insertion else []
        choices += [(fetch.need - _FETCHED, 1)] if fetch else []
        choices += [(load.need - _LOADED - _INSERTED, 2)] if load else []
        kind = min(choices, default=(0, None))[1]
        if kind == 0 and insertion:
            return self._insert(*insertion)
        if kind == 1 and fetch:
            self.to_fetch.remove(fetch)
            return self._there(fetch, LoopAction("fetch", half=fetch.half), _FETCHED)
        if load is None:
            return None
        temporary = self.free.pop(0)
        self.to_insert.append((self.to_load.pop(0), temporary, self.cycle + _LOADED))
        return LoopAction("load", half=load.half, temporary=temporary)

    def _addressed(self, need: HalfNeed) -> bool:
        """Return whether the pointer to the next pass's A is ready for this half."""
        return not (need.half.of == "a" and need.half.following) or self.cycle >= self.advanced_at + _ADDED

    def _insert(self, need: HalfNeed, temporary: int) -> LoopAction:
        self.to_insert = [one for one in self.to_insert if one[0] is not need]
        self.free.append(temporary)
        return self._there(need, LoopAction("insert", half=need.half, temporary=temporary), _INSERTED)

    def _there(self, need: HalfNeed, action: LoopAction, cycles: int) -> LoopAction:
        self.pending.discard(need.half)
        self.ready[need.register] = max(self.ready.get(need.register, 0), self.cycle + cycles)
        return action


def _inserted(half: VectorHalf) -> bool:
    """Return whether a half has to be inserted: loads into vector registers give the lower one."""
    return half.of != "a" and half.high
