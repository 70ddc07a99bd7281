"""The loop over pairs of steps of `integer_long` as one piece of assembly, for cores that issue in order.

LLVM moves products away from the sums that they go to, has no registers left for them, and spills. Here the pixels of a tile follow each
other in each kind of instruction, so that none waits for the one before; a load of 16 bytes starts alone, and stands where its register is
free: the next channel's weights as soon as this one's are used, the next pair's data during the last channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tvmmobile.schedules.in_order_loop import VECTOR_BYTES, inline_function

#: Pixels of which instructions hide each other's latency; the vector registers that there are; how far a load reaches.
_ROWS, _REGISTERS, _REACH = 3, 32, 65520
#: Bytes from the number of pairs to the first pair's places in the table.
_PLACES = 12
#: General registers: pointers to data, weights and table; pairs left; and where both steps' data is.
_GENERAL = ("a", "w", "table", "left", "p0", "p1")


@dataclass(frozen=True)
class PairsLoop:
    """acc[row, channel] += the products of all pairs of steps of a panel, see `integer_long.order_steps`.

    Attributes:
        rows, width: of the tile.
        row_bytes: from one pixel of A to the next.
    """

    rows: int
    width: int
    row_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the registers suffice, and loads reach every row."""
        reach = self.row_bytes * (self.rows - 1)
        return self.rows >= _ROWS and self._vectors <= _REGISTERS and self.row_bytes % VECTOR_BYTES == 0 and reach <= _REACH

    @property
    def symbol(self) -> str:
        """A name that says all of it."""
        return f"tvmmobile_pairs_{self.rows}_{self.width}_{self.row_bytes}"

    @property
    def _sums(self) -> int:
        return self.rows * self.width

    @property
    def _vectors(self) -> int:
        """Sums, two vectors of data for each row and two of weights, products of each row."""
        return self._sums + 2 * self.rows + 2 + self.rows

    def llvm(self) -> str:
        """The function `symbol`(sums, A, W, table), all pointers, as LLVM's text."""
        kinds = ["<4 x float>"] * self._vectors + ["ptr"] * 3 + ["i64"] * 3
        tied = [*range(self._sums), *range(self._vectors, self._vectors + 3)]
        constraints = ["=w" if n < self._sums else "=&w" for n in range(self._vectors)] + ["=&r"] * len(_GENERAL) + list(map(str, tied))
        inputs = [f"<4 x float> %v{n}" for n in range(self._sums)] + [f"ptr %{name}" for name in _GENERAL[:3]]
        head = f"@{self.symbol}(ptr %acc, ptr %a, ptr %w, ptr %table)"
        return inline_function(head, self.assembly(), kinds, constraints, inputs, self._sums, self._sums)

    def assembly(self) -> list[str]:
        """The instructions, registers as `$0`, `$1` and so on, in the order of `_vectors` and `_GENERAL`."""
        g = self._general
        first = [
            f"ldr {g['left'].replace('$', '${')}:w}}, [{g['table']}]",
            f"cbz {g['left']}, 3f",
            f"add {g['table']}, {g['table']}, #{_PLACES}",
        ]
        first += [*self._places(), *(self._data(step, row) for step in range(2) for row in range(self.rows))]
        first += [self._weights(0, 0), self._weights(1, 0)]
        loop = ["1:", f"subs {g['left']}, {g['left']}, #1", "b.eq 2f", *self._pair(True), "b 1b"]
        return [*first, *loop, "2:", *self._pair(False), "3:"]

    @property
    def _general(self) -> dict[str, str]:
        return {name: f"${self._vectors + number}" for number, name in enumerate(_GENERAL)}

    def _places(self) -> list[str]:
        """Reads where the next pair's data is."""
        g = self._general
        adds = [f"add {g[place]}, {g['a']}, {g[place]}" for place in ("p0", "p1")]
        return [f"ldpsw {g['p0']}, {g['p1']}, [{g['table']}], #8", *adds]

    def _vector(self, kind: str, number: int) -> int:
        """The register of data (both steps of a row follow each other), weights or products."""
        return self._sums + {"a": 0, "w": 2 * self.rows, "t": 2 * self.rows + 2}[kind] + number

    def _data(self, step: int, row: int) -> str:
        return f"ldr ${{{self._vector('a', 2 * row + step)}:q}}, [{self._general[f'p{step}']}, #{row * self.row_bytes}]"

    def _weights(self, step: int, channel: int) -> str:
        """A channel's weights of a step; those of the next pair follow this one's."""
        pair, place = divmod(channel, self.width)
        offset = ((2 * pair + step) * self.width + place) * VECTOR_BYTES
        return f"ldr ${{{self._vector('w', step)}:q}}, [{self._general['w']}, #{offset}]"

    def _pair(self, more: bool) -> Iterator[str]:
        """The products of a pair; if there are `more`, the next one's data and first weights are loaded."""
        if more:
            yield from self._places()
        for channel in range(self.width):
            last = channel == self.width - 1
            for step in range(2):
                for half in ("", "2"):
                    for row in range(self.rows):
                        yield self._product(channel, step, half, row)
                if more or not last:
                    yield self._weights(step, channel + 1)
                if more and last:
                    yield from (self._data(step, row) for row in range(self.rows))
            for row in range(self.rows):
                yield f"sadalp ${{{row * self.width + channel}}}.4s, ${{{self._vector('t', row)}}}.8h"
        if more:
            yield f"add {self._general['w']}, {self._general['w']}, #{2 * self.width * VECTOR_BYTES}"

    def _product(self, channel: int, step: int, half: str, row: int) -> str:
        """Eight products of a row's and a channel's bytes; the first ones begin a sum."""
        lanes, name = ("16b", "smlal2") if half else ("8b", "smlal" if step else "smull")
        a, w = (f"${{{self._vector(kind, number)}}}.{lanes}" for kind, number in (("a", 2 * row + step), ("w", step)))
        return f"{name} ${{{self._vector('t', row)}}}.8h, {a}, {w}"
