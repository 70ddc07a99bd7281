"""`tvmmobile virtual`: programs on virtual boards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tvmmobile.virtual.board import Board
    from tvmmobile.virtual.cores.explain import HotBlock
    from tvmmobile.virtual.program import ProgramRun

virtual = typer.Typer(add_completion=False, rich_markup_mode=None)
#: Below this share, instructions that are not modelled are not reported.
_MATTERS = 0.01

_TERMS = {
    "core": "scheduled core cycles",
    "cache_hits": "loads that a cache beyond the first had",
    "lines_read": "lines read from memory",
    "stores": "stores that missed the first level",
    "handover": "work passed between cores",
    "bandwidth": "all threads waiting for memory",
}


@virtual.callback()
def _group() -> None:
    """Model any AArch64 program on a virtual board."""


@virtual.command("run", context_settings={"allow_interspersed_args": False})
def run(
    program: Annotated[list[str], typer.Argument(metavar="PROGRAM", help="AArch64 program and its arguments, after --.")],
    board: Annotated[str, typer.Option("--board", metavar="NAME", help="Virtual board to model.")] = "pi4",
    sysroot: Annotated[
        Path | None, typer.Option("--sysroot", metavar="DIR", help="Directory tree in which the program finds its libraries.")
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", min=1, help="Board cores to model; 1 models only the thread that enters the region.")
    ] = 1,
    skip_start: Annotated[
        bool, typer.Option("--skip-start", help="Simulate nothing before the program calls prctl(0x7a110004,0,0,0,0): it starts faster.")
    ] = False,
    top: Annotated[int, typer.Option("--top", metavar="N", min=0, help="Number of hottest blocks to show.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")] = False,
) -> None:
    """Run an AArch64 program and model its latency on a board.

    The region between prctl(0x7a110001,0,0,0,0) and prctl(0x7a110002,0,0,0,0) is modelled, or the whole run if the program does not call
    them. The program inherits this command's environment, input and output.
    """
    from tvmmobile.virtual.board import VIRTUAL_SUFFIX, load_board

    chosen = load_board(board.removesuffix(VIRTUAL_SUFFIX))

    from tvmmobile.virtual.cores.explain import hot_blocks
    from tvmmobile.virtual.program import run_program
    from tvmmobile.virtual.summary import block_summary, summary

    done = run_program(chosen, program, sysroot, top, threads, skip_start=skip_start)
    blocks = hot_blocks(done, chosen)
    _warn(done)
    if json:
        import json as text

        typer.echo(text.dumps(summary(done, chosen) | ({"hottest": [block_summary(block) for block in blocks]} if top else {})))
    else:
        _print(done, chosen, blocks)


def _warn(done: ProgramRun) -> None:
    if done.other_instructions > _MATTERS * done.core.instructions:
        typer.echo(f"tvmmobile: other threads executed {done.other_instructions:,} instructions, which are not modelled", err=True)
    if done.zeroed_lines > _MATTERS * done.modelled.misses.l1d:
        typer.echo(f"tvmmobile: {done.zeroed_lines:,} cache lines were cleared by DC ZVA, which the simulated caches do not see", err=True)


def _print(done: ProgramRun, board: Board, blocks: list[HotBlock]) -> None:
    from tvmmobile.results.report.wording import plural
    from tvmmobile.system.console import output, table_of
    from tvmmobile.virtual.summary import trust

    console = output()
    table = table_of(("modelled", "of"), ("figure",))
    of_threads = "" if done.modelled.threads == 1 else f", {plural(len(done.modelled.busy_ms), 'thread')}"
    what = {0: "the whole run", 1: "the region"}.get(done.regions, f"{done.regions} regions")
    table.add_row("instructions", what + of_threads, f"{done.core.instructions:,}")
    table.add_row("core cycles", board.cpu, f"{done.core.cycles:,}")
    table.add_row("scheduled core cycles", board.cpu, f"{done.modelled.core.cycles:,}")
    table.add_row("L1D misses", f"{board.caches.l1d_bytes >> 10} KiB, {board.caches.l1d_ways} ways", f"{done.modelled.misses.l1d:,}")
    table.add_row("L2 misses", f"{board.caches.l2_bytes >> 10} KiB, {board.caches.l2_ways} ways", f"{done.modelled.misses.l2:,}")
    if board.caches.has_l3:
        missed = done.modelled.misses.fills
        table.add_row("L3 misses", f"{board.caches.l3_bytes >> 10} KiB, {board.caches.l3_ways} ways", f"{missed:,}")
    table.add_row("DRAM bytes", "fills and write-backs", f"{done.modelled.dram_bytes:,}")
    for name, ms in done.modelled.term_ms.items():
        table.add_row("time (ms)", _TERMS[name], f"{ms:.3f}")
    table.add_row("time (ms)", f"{board.board}, {board.clock_hz / 1e9:g} GHz", f"{done.modelled.modelled_ms:.3f}")
    console.print(table)
    console.print(trust(board, done.modelled.threads), soft_wrap=True)
    for number, block in enumerate(blocks, 1):
        cost = block.cost
        head = f"\n{number}. {block.share:.1%}: {cost.count:,} × {cost.cycles_each:.4g} cycles, {block.place}"
        console.print(head, soft_wrap=True)
        console.print(f"   limited by {block.limit}", soft_wrap=True)
        for line in cost.assembly:
            console.print("   " + line.replace("\t", " ", 1), soft_wrap=True)
