"""Fits the cost of cache misses on virtual boards to ncnn users' measurements on real ones, and writes the fits to files.

    ./scripts/calibrate --networks DIR

DIR holds the networks' .param files, from `benchmark/models` of https://github.com/Tencent/ncnn. The ncnn wheel of the time when a row was
published runs each of them on the virtual boards as ncnn's own benchmark does: one run to warm up, then the run that is modelled. A core
is fitted to all its boards' rows of one thread, but for those that are excluded; runs in several threads are then checked with that. What a
network did is kept in the cache, so that an interrupted call goes on where it was. The result, with its errors, goes to
`tvmmobile/virtual/calibration/calibrated/CORE.json`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tvmmobile.system.entry_points import progress, reporting_errors
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.errors import ExitCode, UserError
from tvmmobile.system.files import write_bytes, write_text
from tvmmobile.system.markdown import markdown_table
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.calibration.fit import CALIBRATED, Fit, Observation, mean_error, published, run_of, worst_error, write_fit
from tvmmobile.virtual.calibration.fitting import SeveralThreads, fit_core
from tvmmobile.virtual.calibration.terms import Parameter
from tvmmobile.virtual.cores.corrected import corrected_time
from tvmmobile.virtual.modelled import modelled_course, phases_of
from tvmmobile.virtual.profile import Profile, parse_profile
from tvmmobile.virtual.program import profile_program, qemu_words
from tvmmobile.virtual.sysroot import cpuinfo, python_sysroot

#: The networks that are run in several threads: one parameter is fitted to them, and such a run takes minutes.
IN_SEVERAL = ("squeezenet", "mobilenet", "shufflenet_v2")
#: A program like benchncnn: empty weights, an input of 0.01, its allocators. Arguments: the network's path, its input's side, threads.
PROGRAM = """\
import ctypes, sys
import ncnn
libc = ctypes.CDLL(None)
threads, side = int(sys.argv[3]), int(sys.argv[2])
blobs, workspace = ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()
blobs.set_size_compare_ratio(0.0)
workspace.set_size_compare_ratio(0.0)
net = ncnn.Net()
net.opt.num_threads = threads
net.opt.blob_allocator = blobs
net.opt.workspace_allocator = workspace
assert net.load_param(sys.argv[1]) == 0, "no network"
empty = ncnn.DataReaderFromEmpty()
net.load_model(empty)
image = ncnn.Mat(side, side, 3)
image.fill(0.01)
def run():
    extractor = net.create_extractor()
    extractor.input(net.input_names()[0], image)
    return extractor.extract(net.output_names()[0])
libc.prctl(0x7A110004, 0, 0, 0, 0)
run()
libc.prctl(0x7A110001, 0, 0, 0, 0)
run()
libc.prctl(0x7A110002, 0, 0, 0, 0)
del net
"""


@dataclass(frozen=True)
class Row:
    """A published row: one board's latency for each network.

    Attributes:
        board: the virtual board's name.
        threads: number of threads.
        wheel: the program that stands for the one that was measured.
        python: the Debian release whose Python that wheel was built for; empty for this machine's own.
        min_ms: latency of each network that was run here, by its name.
    """

    board: str
    threads: int
    wheel: str
    python: str
    min_ms: Mapping[str, float]


def rows_of(core: str, several: bool = False) -> list[Row]:
    """Return the published rows of a core's boards in one thread, or in several, without those that are excluded."""
    rows = (row for row in published()["rows"] if (row["threads"] > 1) is several and "excluded" not in row and run_of(row))
    found = [Row(row["board"], row["threads"], row["wheel"], row["python"], run_of(row)) for row in rows]
    return [row for row in found if load_board(row.board).mcpu == core]


def cores() -> list[str]:
    """Return the cores that have a published row to fit to."""
    return sorted({load_board(row["board"]).mcpu for row in published()["rows"] if row["threads"] == 1 and "excluded" not in row})


def network_file(folder: Path, network: str) -> Path:
    """Return the network's .param file."""
    path = folder / f"{network}.param"
    if not path.is_file():
        raise UserError(f"there is no {path}.", "Take benchmark/models from https://github.com/Tencent/ncnn, and name that folder.")
    if not path.read_text(encoding="utf-8", errors="replace").startswith("7767517"):
        raise UserError(f"{path} is not an ncnn network.", "Such a file begins with 7767517.")
    return path


def profiled(row: Row, network: str, path: Path, cache: Path) -> Profile:
    """Return the counts of one network on the row's virtual board, from the cache if they are there."""
    board = load_board(row.board)
    side = published()["input_side"][network]
    key = (
        row.wheel,
        row.python,
        PROGRAM,
        path.read_text(encoding="utf-8"),
        side,
        row.threads,
        cpuinfo(board),
        qemu_words(board, "")[1:],
    )
    cached = cache / f"{board.mcpu}-{network}-t{row.threads}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.json.gz"
    if not cached.exists():
        progress(f"{network} on {board.name}, {row.threads} threads …")
        sysroot = python_sysroot(board, (row.wheel,), progress, row.python)
        with tempfile.TemporaryDirectory(prefix="tvmmobile-calibrate-") as folder:
            program = Path(folder, "program.py")
            write_text(program, PROGRAM)
            command = ["python3", str(program), str(path.resolve()), str(side), str(row.threads)]
            write_bytes(cached, gzip.compress(profile_program(board, command, sysroot, skip_start=True)[0]))
    return parse_profile(gzip.decompress(cached.read_bytes()))


def in_one_thread(rows: Iterable[Row], networks: Path, cache: Path) -> list[Observation]:
    """Return the counts of the published networks on the virtual boards, with their published latencies."""
    observations = []
    for row in rows:
        for network, measured_ms in row.min_ms.items():
            profile = profiled(row, network, network_file(networks, network), cache)
            seen = profile.of_thread(profile.thread)
            board = load_board(row.board)
            core = corrected_time(seen.executed(), board, 0)
            observations.append(Observation(row.board, network, measured_ms, core.cycles, seen.misses(), phases_of(seen, board)))
    return observations


def in_several_threads(rows: Iterable[Row], networks: Path, cache: Path, parameters: Sequence[Parameter]) -> list[SeveralThreads]:
    """Return the published times in several threads, each with a model that takes the bandwidth."""
    runs = []
    for row in rows:
        for network in (name for name in IN_SEVERAL if name in row.min_ms):
            profile = profiled(row, network, network_file(networks, network), cache)
            course = modelled_course(profile, load_board(row.board), parameters)
            modelled_ms = partial(lambda share, course: sum(course.term_ms(share).values()), course=course)
            runs.append(SeveralThreads(row.board, network, row.threads, row.min_ms[network], modelled_ms))
    return runs


def table(fit: Fit) -> list[str]:
    """Return the fit in Markdown: parameters with their bounds, and each network on each board."""
    parameters = (*fit.parameters, fit.bandwidth)
    values = [(p.name, f"{p.value:.4g}", f"{p.low:.4g} to {p.high:.4g}", f"{p.unbounded:.4g}") for p in parameters]
    lines = [f"## {fit.core}, fitted on {', '.join(fit.board_names)}", ""]
    lines += markdown_table(("parameter", "value", "bounds", "without bounds"), values)
    for p in parameters:
        lines.append(f"\n{p.name}: {p.what}. From {p.low:.4g}: {p.low_source}; to {p.high:.4g}: {p.high_source}.")
        lines += [f"It lies {p.note}."] if p.note else []
    headings = "measured (ms)", "modelled (ms)", "error", "left out"
    by_board = fit.board_left_out_ms or [None] * len(fit.observations)
    fitted = zip(fit.observations, fit.modelled_ms, fit.left_out_ms, by_board, strict=True)
    rows = [(seen.board, seen.network, *_errors(seen.measured_ms, *times_ms)) for seen, *times_ms in fitted]
    checks = [(f"{c.board}, {c.threads}", c.network, *_errors(c.measured_ms, c.modelled_ms, c.left_out_ms)) for c in fit.checks]
    lines += ["", *markdown_table(("board", "network", *headings, "board left out"), rows, 2), ""]
    lines += [*markdown_table(("board, threads", "network", *headings), checks, 2), ""]
    return lines + [
        f"- {name}: mean {mean_error(errors):.1%}, worst {worst_error(errors):.1%}" for name, errors in fit.all_errors().items()
    ]


def _errors(measured_ms: float, *modelled_ms: float | None) -> tuple[str, ...]:
    errors = ("" if ms is None else f"{ms / measured_ms - 1:+.1%}" for ms in modelled_ms)
    return f"{measured_ms:.2f}", f"{modelled_ms[0]:.2f}", *errors


def calibrate(core: str, networks: Path, cache: Path, output: Path) -> Fit:
    """Run the published networks, fit, check, and write `output`/CORE.json."""
    if core not in cores():
        raise UserError(f"there are no published figures to calibrate {core} with.", f"Cores that have them: {', '.join(cores())}.")
    rows = rows_of(core)
    boards = {row.board: (load_board(row.board), row.wheel) for row in rows}
    several = partial(in_several_threads, rows_of(core, several=True), networks, cache)
    fit = fit_core(boards, in_one_thread(rows, networks, cache), several)
    write_fit(fit, output / f"{core}.json")
    return fit


@reporting_errors
def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, required=True, metavar="DIR", help="where the .param files are")
    parser.add_argument("--cores", nargs="+", default=cores(), metavar="NAME", help=f"default: {' '.join(cores())}")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where runs are kept")
    parser.add_argument("--output", type=Path, default=CALIBRATED, metavar="DIR", help="where the fits are written")
    parsed = parser.parse_args()
    for name in parsed.cores:
        fit = calibrate(name, parsed.networks, parsed.cache or cache_dir() / "calibration", parsed.output)
        print("\n".join(table(fit)))
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
