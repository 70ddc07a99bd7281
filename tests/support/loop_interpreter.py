"""Executes the few instructions that an `InOrderLoop` is made of, and refuses what lies outside of the arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.schedules.emit.in_order_loop import InOrderLoop

#: Where the two arrays are.
_A, _W = PLACES = 1 << 20, 1 << 30
_OPERAND = re.compile(r"\$\{?(\d+)(?::d)?\}?")


class LoopInterpreter:
    """Runs a loop on flat arrays of one type, float32 or half precision.

    Attributes:
        touched: elements of A that were read, as a mask.
    """

    def __init__(self, a: Array, w: Array) -> None:
        self.dtype, self.lanes = a.dtype, 16 // a.dtype.itemsize
        self._memory = {_A: a.tobytes(), _W: w.tobytes()}
        self.touched = np.zeros(a.size, bool)
        self.general: dict[int, int] = {}
        self.vectors: dict[int, Array] = {}
        self.zero = False

    def run(self, loop: InOrderLoop, accumulators: Array) -> Array:
        """Return the (tile's vectors, lanes) accumulators afterwards."""
        given = {number: {"a": _A, "w": _W}.get(str(value), value) for number, value in loop.inputs().items()}
        return self.execute(loop.assembly(), given, accumulators)

    def execute(self, lines: list[str], general: Mapping[int, Any], accumulators: Array) -> Array:
        """Return the same for any assembly, its general registers given; vector registers that were never written are not numbers."""
        count = len(accumulators)
        self.vectors = {n: np.full(self.lanes, np.nan, self.dtype) for n in range(32)} | dict(enumerate(accumulators))
        self.general = dict(general)
        place, steps = 0, 0
        while place < len(lines):
            steps += 1
            assert steps < 1_000_000, "does not end"
            line = lines[place]
            branch = re.fullmatch(r"(b|b\.ne|cbn?z \$(\d+),) ([12])[bf]", line)
            if branch and self._taken(branch[1], branch[2]):
                place = lines.index(f"{branch[3]}:")
                continue
            place += 1
            if not branch and line not in ("1:", "2:", "nop"):
                self._execute(line)
        return np.stack([self.vectors[n] for n in range(count)])

    def _taken(self, name: str, register: str | None) -> bool:
        """Return whether a branch is taken; `register` is the one that it compares with zero."""
        if register:
            return (self.general[int(register)] == 0) == name.startswith("cbz")
        return name == "b" or not self.zero

    def _execute(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        numbers = [int(number) for number in _OPERAND.findall(rest)]
        first, general = numbers[0], self.general
        immediate = int(rest.rpartition("#")[2].rstrip("]")) if "#" in rest else None
        if name == "ldr" and ":d}" in rest:
            self.vectors[first] = np.array([self._load(general[numbers[1]] + (immediate or 0)), 0], "<u8").view(self.dtype)
        elif name == "ldr":
            general[first] = self._load(general[numbers[1]] + (immediate or 0))
        elif name == "ins":
            half = int(rest.partition(".d[")[2][0])
            self.vectors[first].view("<u8")[half] = general[numbers[1]]
        elif name == "fmla":
            other = self.vectors[numbers[2]]
            other = other[int(rest[-2])] if rest.endswith("]") else other
            self.vectors[first] = self.vectors[first] + self.vectors[numbers[1]] * other
        elif name == "fadd":
            self.vectors[first] = self.vectors[numbers[1]] + self.vectors[numbers[2]]
        elif name == "movi":
            self.vectors[first] = np.zeros(self.lanes, self.dtype)
        elif name in ("add", "sub", "subs"):
            other = general[numbers[2]] if immediate is None else immediate
            general[first] = general[numbers[1]] + (other if name == "add" else -other)
            self.zero = general[first] == 0 if name == "subs" else self.zero
        elif name == "mov" and rest.endswith(".16b"):
            self.vectors[first] = self.vectors[numbers[1]].copy()
        elif name == "mov":
            general[first] = general[numbers[1]] if immediate is None else immediate
        else:
            assert name == "csel" and rest.endswith(", eq"), line
            general[first] = general[numbers[1] if self.zero else numbers[2]]

    def _load(self, address: int) -> int:
        base = max(start for start in self._memory if start <= address)
        offset = address - base
        content = self._memory[base][offset : offset + 8]
        assert len(content) == 8, f"reads at {offset} of {len(self._memory[base])} bytes"
        if base == _A:
            size = self.dtype.itemsize
            self.touched[offset // size : (offset + 8) // size] = True
        return int.from_bytes(content, "little")
