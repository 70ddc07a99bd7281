"""Compares our libraries with ncnn, MNN, LiteRT (XNNPACK), ONNX Runtime and IREE on virtual boards, and writes tables and plots.

    ./studies/run bench_peers                         # 16 variants on one thread, four on four threads
    ./studies/run bench_peers --only ncnn,ours --alpha 0.25 --resolution 128 --threads 1
    ./studies/run bench_peers --out studies/results   # benchmarks.md, .json, .svg, and a page for each board
    ./studies/run bench_peers --known studies/results/benchmarks.json --out studies/results   # after tuning: ours alone is run again
    ./studies/run bench_peers --known studies/results/benchmarks.json --boards pi5 rk3588-a55   # adds these boards, or renews them
    ./studies/run bench_peers --known studies/results/benchmarks.json --boards   # runs nothing: the pages and plots are written anew
    ./studies/run bench_peers --models mobilenet_v2 mobilenet_v3_large --alpha 1 --resolution 224 --name benchmarks-later
    ./studies/run bench_peers --models ours.pt2 theirs.onnx --threads 1    # your own networks
    ./studies/run bench_peers --dtype float16 --boards pi5 --name benchmarks-half   # the others run in float32 too
    ./studies/run bench_peers --dtype bfloat16 --boards cobalt100 --name benchmarks-bfloat   # and in half precision
    ./studies/run bench_peers --dtype int8 --boards pi4 pi5 --name benchmarks-int8   # all calibrated with the same inputs
    ./studies/run bench_peers --dtype int8 --models net.pt2 --threads 1 --name benchmarks-int8-net   # calibrated by net.npy beside it
    ./studies/run bench_peers --dtype int8 --weights trained --name benchmarks-int8-trained   # on drawn digits, two minutes a network

Converters, AArch64 Pythons with the wheels, models, libraries and finished runs are kept in the cache: interrupt it whenever you like, the
same command goes on. From nothing a board takes about two hours on one idle core; 1.0-224 takes a system about a minute. What QEMU counted
is kept apart from what it costs: after a change of the timing model, and on a board that differs from another in clock or memory alone,
the same runs are modelled again in seconds each. Every number is modelled. Ends with 5 if a system disagrees with PyTorch, and with 1 if
one cannot run; the tables then hold the others.
"""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from studies.digests import digest_of
from studies.harness import Options, option, study, write_json
from studies.peers.models import check_comparable, compiled, exported, model_files, top1_of
from studies.peers.plot import draw_board, draw_boards
from studies.peers.results import (
    DIAGONAL,
    BenchmarkContext,
    BoardFacts,
    GridCell,
    PeerComparison,
    PeerRow,
    from_json,
    hottest_kernels,
    merged,
    to_json,
)
from studies.peers.runs import PeerRun, figures_of
from studies.peers.shortcuts import Shortcuts, shortcuts_of
from studies.peers.systems import DTYPES, OURS_C, OURS_KEYS, System, chosen_systems
from studies.peers.tables import pages
from studies.trained.networks import GENERATED, OWN, TRAINED, check_trainable, recipes_digest, with_trained_weights
from tvmmobile import __version__
from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.precision import INT8, precision_named
from tvmmobile.networks.model import Model
from tvmmobile.pipeline.load import variants as all_variants
from tvmmobile.running.formats import VM, C
from tvmmobile.running.library import Library
from tvmmobile.system.doctor import diagnose, require
from tvmmobile.system.entry_points import progress as say
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.errors import ExitCode, UserError
from tvmmobile.system.files import check_writable, write_text
from tvmmobile.virtual.board import VIRTUAL_SUFFIX, Board, load_board
from tvmmobile.virtual.calibration.fit import calibration_of, run_hash
from tvmmobile.virtual.cores.core_model import model_hash
from tvmmobile.virtual.plugin.build import build_plugin
from tvmmobile.virtual.sysroot import python_sysroot

NETWORK = "mobilenet_v1"
#: Number of threads that is measured besides one, if there are as many cores.
SEVERAL = 4


@dataclass(frozen=True)
class ReadyBoard:
    """A virtual board ready to run on.

    Attributes:
        name: name or path that `load_board` reads it from.
        board: the board itself.
        threads: the thread counts to compare on.
        profile: profile that our libraries are compiled for; `None` if ours is not compared.
        sysroots: sysroot of each system.
    """

    name: str
    board: Board
    threads: tuple[int, ...]
    profile: DeviceProfile | None
    sysroots: dict[str, Path]


def variants(network: str, alphas: Sequence[float], resolutions: Sequence[int], diagonal: bool, threads: int) -> list[Model]:
    """Return the variants to compare on a number of threads: MobileNet v1's diagonal first, then the rest of its grid."""
    found = list(_loaded(network, tuple(alphas), tuple(resolutions)))
    if network != NETWORK:
        return found
    on_it = [model for model in found if (model.spec.alpha, model.spec.resolution) in DIAGONAL]
    if diagonal or (threads > 1 and not alphas and not resolutions):
        return on_it
    return [*on_it, *(model for model in found if model not in on_it)]


@functools.cache
def _loaded(network: str, alphas: tuple[float, ...], resolutions: tuple[int, ...]) -> tuple[Model, ...]:
    """Load all variants of a network once: cells are listed to be checked and again to be run, and importing a file takes seconds."""
    return tuple(all_variants(network, alphas, resolutions))


def thread_counts(board: Board, asked: Sequence[int]) -> tuple[int, ...]:
    """Return the thread counts to compare: the given ones, else one and four, or as many as there are cores.

    Raises:
        UserError: the board has fewer cores than asked for.
    """
    counts = sorted(set(asked or (1, min(SEVERAL, board.cores))))
    if counts[0] < 1:
        raise UserError(f"{counts[0]} threads are too few.", "Give --threads positive numbers.")
    if counts[-1] > board.cores:
        raise UserError(f"{board.board} has {board.cores} cores, not {counts[-1]}.", f"Give --threads {board.cores} or less.")
    return tuple(counts)


def prepare(name: str, systems: Sequence[System], threads: Sequence[int]) -> ReadyBoard:
    """Load a board and make its sysroots."""
    board = load_board(name)
    counts = thread_counts(board, threads)
    ours = any(system.key in OURS_KEYS for system in systems)
    profile = find_device(name if name.endswith(".toml") else name + VIRTUAL_SUFFIX).profile if ours else None
    return ReadyBoard(name, board, counts, profile, {system.key: python_sysroot(board, system.requirements, say) for system in systems})


def _cell(place: ReadyBoard, threads: int, model: Model) -> GridCell:
    return GridCell(place.board.name, threads, model.spec.alpha, model.spec.resolution, model.spec.name)


def _known(context: BenchmarkContext, earlier: PeerComparison | None) -> dict[tuple[GridCell, str], PeerRow]:
    """Return the peers' figures of an earlier comparison that hold in this one; ours are never among them, nor are those that failed."""
    if earlier is None:
        return {}
    peers = (row for row in earlier.rows if row.system in context.titles and row.system not in OURS_KEYS and row.runs)
    return {(row.cell, row.system): row for row in peers if context.alike(earlier.context, row.cell.board, row.system)}


def our_library(place: ReadyBoard, threads: int, model: Model, system: System, logs: Path) -> Library | None:
    """Return the library that one of our systems runs; `None` for a peer."""
    if system.key not in OURS_KEYS or place.profile is None:
        return None
    form, precision = C if system.key == OURS_C else VM, precision_named(system.dtype)
    return compiled(model, threads, place.profile, logs, exported(model, say), say, form, precision)


def row_of(place: ReadyBoard, threads: int, model: Model, system: System, logs: Path) -> PeerRow:
    """Run one system in one cell, on several threads twice; where it fails, the row says why."""
    cell = _cell(place, threads, model)
    who = f"{cell.variant}, {system.key}, {threads} thread{'s' if threads > 1 else ''} on {cell.board}"
    models = exported(model, say)
    untuned = None
    shortcuts: Shortcuts = {}
    runs = []
    try:
        library = our_library(place, threads, model, system, logs)
        if library:
            manifest = library.manifest()
            latencies = [kernel["latency_us"] for kernel in manifest["kernels"]]
            untuned, shortcuts = (latencies.count(None), len(latencies)), shortcuts_of(manifest)
        files = model_files(system, place.board, models, library)
        for attempt in range(1 if threads == 1 else 2):
            figures, ran = figures_of(PeerRun(place.board, place.name, system, files, place.sysroots[system.key], threads, attempt))
            say(f"{who}: {figures.modelled_ms:.2f} ms modelled{'' if ran else ' (kept)'}")
            runs.append(figures)
    except UserError as error:
        say(f"{who}: {error.message}")
        return PeerRow(cell, system.key, (), error.message, untuned, error.exit_code)
    return PeerRow(cell, system.key, tuple(runs), "", untuned, shortcuts=shortcuts)


def context_of(
    places: Sequence[ReadyBoard], systems: Sequence[System], logs: Path, dtype: str, weights: str = GENERATED
) -> BenchmarkContext:
    """Return the boards, versions and logs that the figures were obtained with."""
    import torch

    facts = {
        place.board.name: BoardFacts(
            place.board.name,
            place.board.board,
            place.board.cpu,
            place.board.clock_hz,
            run_hash(place.board),
            model_hash(place.board),
            calibration_of(place.board) is not None,
        )
        for place in places
    }
    tools = {check.name: check.found for check in diagnose().checks if check.name in ("qemu-aarch64", "llvm-mca")}
    versions = {
        "tvmmobile": __version__,
        "PyTorch": str(torch.__version__),
        **tools,
        "plugin": build_plugin().stem.removeprefix("program-"),
        **({"training": recipes_digest()} if weights == TRAINED else {}),
    }
    titles = {system.key: system.title for system in systems}
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return BenchmarkContext(facts, titles, versions, digest_of(sorted(logs.glob("*/*.jsonl"))), date, dtype=dtype, weights=weights)


def cells_of(options: Options, threads: Sequence[int]) -> list[tuple[int, Model]]:
    """Return the cells to compare on a board, by thread count; the most informative come first.

    Raises:
        UserError: the options leave nothing.
    """
    cells = [
        (count, model)
        for count in threads
        for network in options.models
        for model in variants(network, options.alpha, options.resolution, options.diagonal, count)
    ]
    if not cells:
        raise UserError("nothing is left to compare: the diagonal is 1.0-224, 0.75-192, 0.5-160 and 0.25-128.", "Leave --diagonal out.")
    return sorted(cells, key=lambda cell: (cell[1].spec.alpha, cell[1].spec.resolution) not in DIAGONAL)


def compare(options: Options) -> int:
    """Run everything, and write the files; return the exit code."""
    systems = chosen_systems([key for word in options.only for key in word.split(",") if key], options.dtype)
    boards = {load_board(name).name: name for name in options.boards}  # rk3588 is also rk3588-a76
    for name in boards:
        for _, model in cells_of(options, thread_counts(load_board(boards[name]), options.threads)):
            if options.weights == TRAINED:
                check_trainable(model)
            check_comparable(model, options.dtype)
            options.weights = OWN if model.own is not None and options.dtype == INT8.name else options.weights
        _check_dtype(options.dtype, load_board(boards[name]))
    if not boards and not options.known:
        raise UserError("--boards names no board, and there is no --known.", "Name a board, such as pi4.")
    if boards and any(system.key in OURS_KEYS for system in systems) and not options.logs.is_dir():
        raise UserError(f"--logs {options.logs} does not exist, so there are no records.", "Name a directory that tvmmobile tune wrote to.")
    check_writable(options.out, "--out")
    earlier = from_json(options.known) if options.known else None
    if earlier and boards and earlier.context.dtype != options.dtype:
        raise UserError(
            f"--known {options.known} compares in {earlier.context.dtype}, not in {options.dtype}.", "Keep a file for each --dtype."
        )
    if earlier and boards and earlier.context.weights != options.weights:
        raise UserError(
            f"--known {options.known} has {earlier.context.weights} weights, not {options.weights} ones.", "Keep a file for each --weights."
        )
    if boards:
        for tool in ("qemu-aarch64", "llvm-mca", "llvm-mc", "cc"):
            require(tool)
        places = [prepare(name, systems, options.threads) for name in boards.values()]
        found = run(options, places, systems, earlier)
        codes = {row.exit_code for row in found.rows}
        found = merged(found, earlier) if earlier else found
    else:
        assert earlier is not None
        found, codes = earlier, {int(ExitCode.DONE)}
    write(found, options.out, options.name)
    return ExitCode.DISAGREES if ExitCode.DISAGREES in codes else max(codes)


def _check_dtype(dtype: str, board: Board) -> None:
    """Raise `UserError` for a precision that the board's core does not compute in: all libraries would be slower than in float32."""
    needed = precision_named(dtype).requires
    if needed and needed not in machine_of(board.mcpu).has:
        raise UserError(f"the {board.cpu} of {board.board} does not compute in {dtype}.", "Leave --dtype out, or name another board.")


def run(options: Options, places: Sequence[ReadyBoard], systems: Sequence[System], earlier: PeerComparison | None) -> PeerComparison:
    """Run every system in every cell, but for peers' figures that an earlier comparison has."""
    context = context_of(places, systems, options.logs, options.dtype, options.weights)
    known = _known(context, earlier)
    top1: dict[str, float] = {}
    runs = [(place, count, model, system) for place in places for count, model in cells_of(options, place.threads) for system in systems]
    rows = []
    for number, (place, count, model, system) in enumerate(runs, 1):
        cell = _cell(place, count, model)
        if options.weights == TRAINED:
            model = with_trained_weights(model, say)
            top1[cell.variant] = top1_of(exported(model, say))
        row = known.get((cell, system.key))
        if row is None:
            sys.stderr.write(f"[{number}/{len(runs)}] ")
            row = row_of(place, count, model, system, options.logs)
        rows.append(row)
    if earlier and any((row.cell, row.system) in known for row in rows):
        context = replace(context, known=earlier.context.known or earlier.context.date)
    return PeerComparison(replace(context, top1=top1), tuple(rows), hottest_kernels(context, rows))


def write(found: PeerComparison, folder: Path, stem: str) -> None:
    """Write the file with all figures, the page and plot of all boards, and those of each."""
    found = found.in_order()
    write_json(folder / f"{stem}.json", to_json(found), allow_nan=False)
    draw_boards(found, folder / f"{stem}.svg")
    for board in found.context.boards:
        draw_board(found, board, folder / stem / f"{board}.svg")
    for name, text in pages(found, stem).items():
        write_text(folder / name, text)
    say(f"Written to {folder}: {stem}.md, {stem}.json, {stem}.svg, and the boards' own in {stem}/")


_SYSTEM_NAMES = "ncnn,mnn,litert,onnxruntime,iree,ours,ours-c"
OPTIONS = (
    option("--boards", ["pi4"], "virtual boards; none: run nothing", nargs="*", metavar="NAME"),
    option("--threads", [], f"counts (default: 1 and {SEVERAL}, or all cores where fewer)", nargs="+", type=int, metavar="N"),
    option("--alpha", [], "width multipliers (default: the paper's four)", nargs="+", type=float, metavar="α"),
    option("--resolution", [], "input sides (default: the paper's four)", nargs="+", type=int, metavar="SIDE"),
    option("--models", [NETWORK], "networks, or files with your own: .pt2 or .onnx", nargs="+", metavar="NAME"),
    option("--dtype", DTYPES[0], "what ours computes in; the others also in wider floats, but for int8", choices=DTYPES),
    option("--weights", GENERATED, f"{GENERATED}, or {TRAINED} for some minutes on drawn digits", choices=(GENERATED, TRAINED)),
    option("--name", "benchmarks", "of the files and the folder", metavar="NAME"),
    option("--diagonal", False, "1.0-224, 0.75-192, 0.5-160 and 0.25-128 alone"),
    option("--only", [], f"of {_SYSTEM_NAMES}, with int8 also onnxruntime-u8", nargs="+", metavar="SYSTEM"),
    option("--known", None, "an earlier .json: other boards, and peers' figures", type=Path, metavar="FILE"),
    option("--logs", SHIPPED_LOGS, "our tuning logs (default: the shipped ones)", metavar="DIR"),
    option("--out", Path("out/peers"), "for the results", metavar="DIR"),
)


@study(*OPTIONS)
def main(options: Options) -> int:
    """Run the comparison; return the exit code."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        return compare(options)
    except KeyboardInterrupt:
        print("\nbench_peers: interrupted; finished runs are kept, and the same command resumes.", file=sys.stderr)
        return ExitCode.INTERRUPTED
