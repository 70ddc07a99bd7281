"""Executes the few instructions that a `StepsLoop` is made of, on vectors of bytes, and refuses what lies outside of the arrays."""

from __future__ import annotations

import re

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.schedules.integers.steps import StepsLoop

_OPERAND = re.compile(r"\$\{?(\d+)")
#: Where the arrays are, one far from the next.
_PLACES = (1 << 20, 1 << 30, 1 << 40)


class StepsInterpreter:
    """Runs a loop on A and W, flat int8, and a table, int32 or empty."""

    def __init__(self, a: Array, w: Array, table: Array) -> None:
        self._memory = {place: array.tobytes() for place, array in zip(_PLACES, (a, w, table), strict=True)}
        self._general: dict[int, int] = {}
        self._vectors = np.full((32, 16), 0x55, np.uint8)
        self._zero = False

    def run(self, loop: StepsLoop) -> Array:
        """Return the sums, (row, channel); those of all pixels begin as the first one's, as the number of the channel."""
        lines, first, place, executed = loop.assembly(), loop.first_general, 0, 0
        self._vectors[: loop.groups] = np.arange(loop.width, dtype=np.int32).view(np.uint8).reshape(-1, 16)
        self._general = {first + number: where for number, where in enumerate(_PLACES)}
        while place < len(lines):
            executed += 1
            assert executed < 100_000, "does not end"
            name, _, rest = lines[place].partition(" ")
            place += 1
            if name in ("b.ne", "b.eq"):
                place = self._target(lines, place, rest) if self._zero == (name == "b.eq") else place
            elif name == "b":
                place = self._target(lines, place, rest)
            elif name in ("cbz", "cbnz"):
                register, _, label = rest.partition(", ")
                place = self._target(lines, place, label) if (self._general[_numbers(register)[0]] == 0) == (name == "cbz") else place
            elif not name.endswith(":"):
                self._execute(name, rest)
        return self._vectors[: loop.rows * loop.groups].view(np.int32).reshape(loop.rows, loop.width)

    def _target(self, lines: list[str], place: int, label: str) -> int:
        text = label[:-1] + ":"
        return lines.index(text, place) if label[-1] == "f" else place - 1 - lines[place - 1 :: -1].index(text)

    def _execute(self, name: str, rest: str) -> None:
        numbers, general, vectors = _numbers(rest), self._general, self._vectors
        first, immediate = numbers[0], int(rest.rpartition("#")[2].rstrip("]")) if "#" in rest else 0
        if name == "ldr" and ":q}" in rest:
            vectors[first] = np.frombuffer(self._load(general[numbers[1]] + immediate, 16), np.uint8)
        elif name == "ldr" and ":d}" in rest:
            vectors[first] = np.frombuffer(self._load(general[numbers[1]] + immediate, 8).ljust(16, b"\0"), np.uint8)
        elif name == "ext":
            count = 8 if "8b" in rest else 16
            assert len(set(numbers)) == 1
            vectors[first] = np.append(np.roll(vectors[first][:count], -immediate), np.zeros(16 - count, np.uint8))
        elif name == "mov" and ".16b" in rest:
            vectors[first] = vectors[numbers[1]]
        elif name == "ldr":
            general[first] = int.from_bytes(self._load(general[numbers[1]] + immediate, 8), "little")
        elif name == "ldrsw":
            general[first] = int.from_bytes(self._load(general[numbers[1]], 4), "little", signed=True)
            general[numbers[1]] += immediate
        elif name == "ldpsw":
            words = np.frombuffer(self._load(general[numbers[2]], 8), np.int32)
            general[first], general[numbers[1]] = (int(word) for word in words)
            general[numbers[2]] += immediate
        elif name == "ins":
            vectors[first].view(np.uint64)[int(rest.partition(".d[")[2][0])] = general[numbers[1]]
        elif name == "mov":
            general[first] = general[numbers[1]] if len(numbers) > 1 else immediate
        elif name in ("add", "subs"):
            other = general[numbers[2]] if len(numbers) > 2 else immediate
            general[first] = general[numbers[1]] + (other if name == "add" else -other)
            self._zero = general[first] == 0 if name == "subs" else self._zero
        elif name in ("smull", "smlal", "smlal2"):
            half = slice(8, 16) if name.endswith("2") else slice(0, 8)
            one, other = (vectors[number].view(np.int8)[half].astype(np.int32) for number in numbers[1:])
            total = one * other + (0 if name == "smull" else vectors[first].view(np.int16).astype(np.int32))
            assert np.array_equal(total, total.astype(np.int16)), "a sum of 16 bits overflows"
            vectors[first] = total.astype(np.int16).view(np.uint8)
        else:
            pairs = vectors[numbers[1]].view(np.int16).astype(np.int32).reshape(4, 2).sum(1)
            assert name == "sadalp", name
            vectors[first] = (pairs + vectors[first].view(np.int32)).astype(np.int32).view(np.uint8)

    def _load(self, address: int, count: int) -> bytes:
        for place, memory in self._memory.items():
            if place <= address and address + count <= place + len(memory):
                return memory[address - place : address - place + count]
        raise AssertionError(f"{count} bytes at {address:#x} are read")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in _OPERAND.findall(text)]
