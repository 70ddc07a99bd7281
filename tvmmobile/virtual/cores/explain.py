"""Explains the cost of a hot block by the busiest part of the core, or by what it waits for."""

from __future__ import annotations

from dataclasses import dataclass

from tvmmobile.virtual.board import Board
from tvmmobile.virtual.cores.bounds import port_cycles
from tvmmobile.virtual.cores.core_model import BlockCost
from tvmmobile.virtual.cores.corrected import OUT_OF_ORDER, WAITS
from tvmmobile.virtual.cores.mca import pressures_of
from tvmmobile.virtual.cores.out_of_order import dispatch_cycles, pipeline_cycles
from tvmmobile.virtual.elf import place_of
from tvmmobile.virtual.program import ProgramRun

#: A block limited by a bound takes at most this factor, plus this many cycles, more: llvm-mca's 50 iterations include about ten cycles to
#: fill and drain the pipeline.
_NEAR, _NEAR_CYCLES = 1.02, 10 / 50
_WAITS = {"resources": "for execution units", "registers": "for results of earlier instructions", "memory": "for earlier stores and loads"}


@dataclass(frozen=True)
class HotBlock:
    """One of the costliest blocks of a run.

    Attributes:
        cost: the block's count, cycles and assembly.
        share: share of the run's corrected core cycles, 0 to 1.
        place: file, offset and function of the block.
        limit: description of what limits its speed, see `limit_of`.
    """

    cost: BlockCost
    share: float
    place: str
    limit: str


def hot_blocks(run: ProgramRun, board: Board) -> list[HotBlock]:
    """Return the hottest blocks of a run in descending order of cost, with what limits them."""
    total = max(run.modelled.core.cycles, 1)
    hottest = run.modelled.core.hottest
    return [HotBlock(cost, cost.cycles / total, place_of(cost.address, run.mappings), limit_of(cost, board)) for cost in hottest]


def limit_of(cost: BlockCost, board: Board) -> str:
    """Describe what limits a block's speed, without a full stop."""
    ports = port_cycles(cost.assembly, board.core)
    if tables := OUT_OF_ORDER.get(board.mcpu):
        ports["dispatch"] = max(ports["dispatch"], dispatch_cycles(cost.assembly, tables))
        pipelines, most = pipeline_cycles(cost.assembly, tables), max(ports.values())
        ports |= {f"pipelines `{name}`": cycles for name, cycles in pipelines.items() if cycles > most}
    busiest = max(ports, key=lambda name: ports[name])
    least = f"{busiest}: {ports[busiest]:.3g} of {cost.cycles_each:.3g} cycles"
    if cost.bounds_only:
        return f"{least} (llvm-mca does not know all of its instructions)"
    if cost.cycles_each <= ports[busiest] * _NEAR + _NEAR_CYCLES:
        return least
    waits = WAITS[board.mcpu](cost.assembly) if board.mcpu in WAITS else pressures_of(cost.assembly, board.mcpu)
    reasons = [f"{_WAITS[name]} {share:.0f} %" for name, share in sorted(waits.items(), key=lambda item: -item[1]) if share >= 1]
    return f"its schedule, waiting {', '.join(reasons)}; {least}" if reasons else f"its schedule; {least}"
