"""Compares a library for several boards with each board's own library: latency, memory and size of the file.

    ./studies/run several_cores                                      # from the shipped logs
    ./studies/run several_cores --timed pi5                          # only on that board, in the library for all
    ./studies/run several_cores --precisions int8 --boards pi4 pi5 --alpha 0.25 --side 128 --out FILE.json

Every library is checked against PyTorch and run on its virtual boards, on one thread. Boards whose core lacks a precision are left out of
its library. Scales in int8 are those of noise. The figures are in docs/several-cores.md.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from studies.harness import RESULTS, Entry, Options, Wanted, completed, option, study, title
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.precision import precision_named
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.compile import compile_models
from tvmmobile.pipeline.compiled_library import CompiledLibrary
from tvmmobile.pipeline.load import load
from tvmmobile.results.file import Results
from tvmmobile.results.report.wording import latency_ms
from tvmmobile.system.entry_points import progress
from tvmmobile.system.markdown import markdown_table

#: Six cores: Cortex-A53, A72, A55, A76, A78 and Neoverse N2.
BOARDS = ("pi3bplus", "pi4", "rk3566", "pi5", "exynos1330-a78", "cobalt100")
PRECISIONS = ("float32", "float16", "int8")
#: Fields that tell entries apart.
NAMES = ("network", "precision", "board")
_CALIBRATION = "noise:16"


def boards_with(precision: str, boards: Sequence[str]) -> list[str]:
    """Return the boards whose core has a precision."""
    needed = precision_named(precision).requires
    return [board for board in boards if not needed or needed in find_device(board).profile.machine.has]


def compiled(spec: ModelSpec, precision: str, boards: str | Sequence[str], folder: Path) -> CompiledLibrary:
    """Compile a network's library for a board, or for several."""
    model, calibrate = load(spec.name, alpha=spec.alpha, resolution=spec.resolution), _CALIBRATION if precision == "int8" else None
    return compile_models(model, boards, dtype=precision, calibrate=calibrate, out=folder)


def entry_of(spec: ModelSpec, precision: str, board: str, shared: Callable[[str], CompiledLibrary], folder: Path) -> Entry:
    """Time a board's own library, and the one for all boards that `shared` returns for a precision, on that board."""
    own = compiled(spec, precision, board, folder / f"{precision}-{board}")
    together, alone = ((library, library.bench(board)) for library in (shared(precision), own))
    return {
        **dict(zip(NAMES, (title(spec), precision, board), strict=True)),
        **_figures("shared", *together),
        **_figures("own", *alone),
        "sets": len(together[0].facts.sets),
        "timing_model": alone[1].context.timing_model,
        "cpu": alone[1].context.cpu,
        "date": alone[1].context.date,
    }


def _figures(which: str, library: CompiledLibrary, results: Results) -> dict[str, Any]:
    """Return the figures of a library on a board; their names begin with `which`."""
    (variant,) = results.variants
    figures = {"latency_us": round(variant.latency_us, 1), "memory_bytes": variant.peak_memory_bytes}
    return {f"{which}_{name}": value for name, value in (figures | {"file_bytes": library.path.stat().st_size}).items()}


def table(entries: Sequence[Entry]) -> str:
    """Return the Markdown table of a file's entries: for each precision and board, its own library beside the one for all."""
    rows = []
    for entry in sorted(entries, key=lambda one: (PRECISIONS.index(one["precision"]), BOARDS.index(one["board"]))):
        shared, own = entry["shared_latency_us"], entry["own_latency_us"]
        sizes = [f"{entry[f'{which}_file_bytes'] / 1e6:.1f}" for which in ("shared", "own")]
        more_mib = (entry["shared_memory_bytes"] - entry["own_memory_bytes"]) / 2**20
        apart = f"{(shared / own - 1) * 100:+.2f} %".replace("-", "−")
        where = f"{find_device(entry['board']).profile.board} ({entry['cpu']})"
        memory = f"{more_mib:+.2f}".replace("-", "−")
        rows.append([entry["precision"], where, latency_ms(shared), latency_ms(own), apart, memory, *sizes])
    headings = "precision", "latency on", "in the library for all, ms", "in the board's own, ms", "apart", "memory, MiB more"
    return "\n".join(markdown_table([*headings, "file for all, MB", "its own file, MB"], rows, texts=2))


@study(
    option("--model", "mobilenet_v1"),
    option("--alpha", 1.0),
    option("--side", 224),
    option("--boards", list(BOARDS), nargs="+", metavar="BOARD"),
    option("--timed", [], "(default: all)", nargs="+", metavar="BOARD"),
    option("--precisions", list(PRECISIONS), nargs="+", metavar="DTYPE"),
    option("--out", RESULTS / "several-cores.json", metavar="FILE"),
)
def main(options: Options) -> None:
    """Measure what is missing."""
    spec = ModelSpec(options.model, options.alpha, options.side)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        @functools.cache
        def shared(precision: str) -> CompiledLibrary:
            return compiled(spec, precision, boards_with(precision, options.boards), folder / precision)

        wanted: Wanted = {
            (title(spec), precision, board): partial(entry_of, spec, precision, board, shared, folder)
            for precision in options.precisions
            for board in boards_with(precision, options.timed or options.boards)
        }
        completed(options.out, wanted, NAMES)
    progress(f"written to {options.out}")
