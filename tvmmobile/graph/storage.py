"""How a layer's input, output and sums are stored, if not in its kernel's precision."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ConvertingLayer:
    """A layer whose input and output may be stored in another precision than the kernel's, which then converts what it loads and stores.

    Attributes:
        reads, writes: names of the precisions in which the first input and the output are stored; "" for the kernel's. An integer layer may
            also read `uint8`.
        wide: of an integer layer: its sums may leave the range that kernels convert to floats for nothing (`graph.integers.is_wide`).
        bounded: of an integer layer: its output's bounds lie inside int8.
        addend: of an integer layer: a float of its channel is added to each scaled sum before it is rounded (`graph.integers`).
    """

    reads: str = ""
    writes: str = ""
    wide: bool = False
    bounded: bool = False
    addend: bool = False

    def _stored_name(self) -> list[str]:
        stored = [f"from_{self.reads}"] * bool(self.reads) + [f"to_{self.writes}"] * bool(self.writes)
        return stored + ["wide"] * self.wide + ["bounded"] * self.bounded + ["addend"] * self.addend
