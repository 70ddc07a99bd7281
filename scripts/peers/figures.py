"""What one run gave: its figures as they are kept and shown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tvmmobile.virtual.program import ProgramRun


@dataclass(frozen=True)
class Figures:
    """The figures of one run, from the caller's array to an array of the logits; all modelled or counted, none measured.

    Attributes:
        modelled_ms: milliseconds.
        term_ms: its terms by name.
        core_cycles: of the schedule that `modelled_ms` rests on, of all threads together.
        llvm_mca_cycles: the same by llvm-mca alone.
        instructions: executed, of all threads together.
        l1d_misses, l2_misses: of the simulated caches.
        dram_bytes: read from memory and written back to it.
        other_instructions: what threads executed that the figures leave out.
        difference: from PyTorch, relative to the output's largest magnitude.
    """

    modelled_ms: float
    term_ms: Mapping[str, float]
    core_cycles: int
    llvm_mca_cycles: int
    instructions: int
    l1d_misses: int
    l2_misses: int
    dram_bytes: int
    other_instructions: int
    difference: float

    @classmethod
    def of(cls, run: ProgramRun, difference: float) -> Figures:
        """The figures of a modelled run."""
        modelled = run.modelled
        return cls(
            modelled_ms=modelled.modelled_ms,
            term_ms=dict(modelled.term_ms),
            core_cycles=modelled.core.cycles,
            llvm_mca_cycles=run.core.cycles,
            instructions=run.core.instructions,
            l1d_misses=modelled.misses.l1d,
            l2_misses=modelled.misses.l2,
            dram_bytes=modelled.dram_bytes,
            other_instructions=run.other_instructions,
            difference=difference,
        )

    def to_json(self) -> str:
        """One line, for `from_json`."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Figures:
        """What `to_json` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            value: dict[str, Any] = json.loads(text)
            found = cls(**value)
            good = 0 < found.modelled_ms < math.inf
        except (TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error
        if not good:
            raise ValueError(f"modelled_ms is {found.modelled_ms}")
        return found
