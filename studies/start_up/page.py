"""Writes systems' start-up and memory as a JSON file and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated

from studies.peers.results import BenchmarkContext
from studies.peers.systems import OURS_KEYS
from studies.start_up.starts import PLAIN, MemoryUse, StartUp
from tvmmobile.system.errors import UserError
from tvmmobile.system.markdown import markdown_table

FORMAT = 1

_METHOD = """\
From a process without the network in memory to its first result, on one thread of {board} ({cpu}, timing model
`{model}`). Instructions and pages are counted under QEMU; milliseconds are **modelled**; nothing was measured on hardware.
`./studies/run start_up` wrote this page; [{stem}.json]({stem}.json) has the figures. The networks are MobileNet v1, float32, batch 1.
All systems have the same weights, and every result was compared with PyTorch's.

The programs are those of [benchmarks.md](benchmarks.md): the vendors' AArch64 wheels in Python, TVM's Relax VM, and our C library through
ctypes. The last row is the C library in a C program (`studies/start_up/load_and_run.c`): `dlopen`, three symbols, `init`, `run`.
"""
_START = """\
## Instructions to the first result

*Imports* counts importing each system's Python modules; Python, NumPy and ctypes are loaded before. *Load and first
run* begins after them: the network is read from its file, a session is made, and the network runs once; LiteRT's caller also converts the
image to NHWC. Instructions of all threads of the process count, those of the operating system's kernel do not: the time to read files and
fault in pages is neither counted nor modelled.
"""
_MEMORY = """\
## Memory

Memory is counted in pages of 4 KiB. A page counts from its first use (an instruction in it runs or accesses it, or `read` fills it) until
it is unmapped or returned (`munmap`, `madvise`, `brk`). Code, stack and heap count, and so do pages of files that processes share, such
as our weights and the C library's code. QEMU's own memory does not. Linux reports slightly more as resident, because it also maps pages
next to a file's used ones that the process never uses.

*Whole process* is the peak until the first result, Python included; *loading adds* is the peak above what the process held before it
loaded the network. *Beyond the need* is the whole process minus packed weights and workspace; {bound} MiB are allowed.
"""
MIB = 1 << 20
#: Most memory of a C program besides weights and workspace.
BEYOND_BYTES = 2 * MIB


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class StartReport:
    """Everything that the file holds; `context` has a title for every key."""

    context: BenchmarkContext
    starts: tuple[StartUp, ...]
    memory: tuple[MemoryUse, ...]


def to_text(report: StartReport) -> str:
    """Return the JSON file's text."""
    return json.dumps({"version": FORMAT, **asdict(report)}, indent=1, allow_nan=False) + "\n"


def from_file(path: Path) -> StartReport:
    """Read the output of `to_text`; raise `UserError` for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("version") != FORMAT:
            raise ValueError("another version")
        return StartReport(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: {type(error).__name__}: {error}.", "Write it again: ./studies/run start_up") from error


def page(report: StartReport, stem: str) -> str:
    """Return the document."""
    (facts,) = report.context.boards.values()
    parts = [
        "# Start-up and memory compared with other libraries",
        "",
        _METHOD.format(board=facts.board, cpu=facts.cpu, model=facts.timing_model, stem=stem),
        _START,
        *_starts(report),
        "",
        _MEMORY.format(bound=BEYOND_BYTES // MIB),
        *_memory(report),
        "",
        "## Versions",
        "",
        f"- {', '.join(title for key, title in report.context.titles.items() if key != PLAIN)}",
        f"- {', '.join(f'{name} {version}' for name, version in report.context.versions.items())}",
        f"- tuning logs `{report.context.logs}`; {report.context.date}",
    ]
    return "\n".join(parts) + "\n"


def _starts(report: StartReport) -> Iterator[str]:
    lines = []
    for start in report.starts:
        least = min((peer.instructions for peer in _peers(report.starts) if peer.variant == start.variant), default=0)
        over = f"{start.instructions / least:.2f}" if least else "–"
        imports = "–" if start.imports is None else f"{start.imports / 1e6:.1f}"
        title = report.context.titles[start.key]
        lines.append((start.variant, title, imports, f"{start.instructions / 1e6:.2f}", over, f"{start.modelled_ms:.2f}"))
    headings = "network", "system", "imports, M", "load and first run, M", "÷ lowest peer", "load and first run, modelled ms"
    yield from markdown_table(headings, lines, 2)


def _memory(report: StartReport) -> Iterator[str]:
    lines = []
    for use in report.memory:
        need, beyond = "–", "–"
        if use.needed_bytes is not None:
            need = f"{use.needed_bytes / MIB:.2f}"
            beyond = f"{(use.pages.most_bytes - use.needed_bytes) / MIB:.2f}" if use.key == PLAIN else "–"
        whole, adds = (f"{found / MIB:.2f}" for found in (use.pages.most_bytes, use.pages.loading_bytes))
        lines.append((use.variant, report.context.titles[use.key], whole, adds, need, beyond))
    headings = "network", "system", "whole process, MiB", "loading adds, MiB", "weights and workspace, MiB", "beyond the need, MiB"
    yield from markdown_table(headings, lines, 2)


def _peers(starts: Sequence[StartUp]) -> list[StartUp]:
    return [start for start in starts if start.key not in (*OURS_KEYS, PLAIN)]
