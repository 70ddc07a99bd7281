"""Fits what cache misses cost on virtual boards to latencies that ncnn's users measured on real ones, and writes the fits down.

    ./scripts/calibrate --networks DIR

DIR holds the networks' .param files, from `benchmark/models` of https://github.com/Tencent/ncnn. The ncnn wheel runs each of them on the
virtual boards as ncnn's own benchmark does: one run to warm up, then the run that is modelled. The fits are to one thread; runs in four
threads, and on other boards with the same core, are then checked with them. What a network did is kept in the cache, so that an
interrupted call goes on where it was. The result, with its errors, goes to `tvmmobile/virtual/calibrated/CORE.json`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from sharing import markdown_table, progress, telling

from tvmmobile.system.environment import cache_dir
from tvmmobile.system.errors import ExitCode, UserError
from tvmmobile.system.files import write_bytes
from tvmmobile.virtual.board import Board, load_board
from tvmmobile.virtual.calibration.fit import CALIBRATED, Check, Fit, Observation, mean_error, published, worst_error, write_fit
from tvmmobile.virtual.calibration.fitting import SeveralThreads, fit_board
from tvmmobile.virtual.calibration.terms import Parameter, term_ms
from tvmmobile.virtual.modelled import modelled_course, modelled_run
from tvmmobile.virtual.profile import Profile, parse_profile
from tvmmobile.virtual.program import profile_program, qemu_words
from tvmmobile.virtual.sysroot import python_sysroot

WHEEL = "ncnn==1.0.20261020"
#: The boards whose figures are fitted to; the other published ones are checked.
FITTED = ("pi4", "pi3bplus", "pi5")
#: The other thread count that there are published figures for.
SEVERAL = 4
REQUIREMENTS = (WHEEL, "numpy==2.4.6")
#: As benchncnn: empty weights, an input of 0.01. The arguments: the network's path, its input's side, the number of threads.
PROGRAM = """
import ctypes, sys
import ncnn, numpy as np
libc = ctypes.CDLL(None)
net = ncnn.Net()
net.opt.num_threads = int(sys.argv[3])
assert net.load_param(sys.argv[1]) == 0, "no network"
net.load_model(ncnn.DataReaderFromEmpty())
side = int(sys.argv[2])
image = np.full((3, side, side), 0.01, np.float32)
def run():
    extractor = net.create_extractor()
    extractor.input(net.input_names()[0], ncnn.Mat(image))
    return np.array(extractor.extract(net.output_names()[0])[1])
run()
libc.prctl(0x7A110001, 0, 0, 0, 0)
run()
libc.prctl(0x7A110002, 0, 0, 0, 0)
"""


def network_file(folder: Path, network: str) -> Path:
    """The network's .param file."""
    path = folder / f"{network}.param"
    if not path.is_file():
        raise UserError(f"There is no {path}.", "Take benchmark/models from https://github.com/Tencent/ncnn, and name that folder.")
    if not path.read_text(encoding="utf-8", errors="replace").startswith("7767517"):
        raise UserError(f"{path} is not an ncnn network.", "Such a file begins with 7767517.")
    return path


def profiled(board: Board, network: str, path: Path, threads: int, cache: Path) -> Profile:
    """What one network does on the virtual board, from the cache if it is known."""
    side = published()["input_side"][network]
    told = (WHEEL, PROGRAM, path.read_text(encoding="utf-8"), side, threads, qemu_words(board, "")[1:])
    kept = cache / f"{board.mcpu}-{network}-t{threads}-{hashlib.sha256(repr(told).encode()).hexdigest()[:16]}.json.gz"
    if not kept.exists():
        progress(f"{network} on {board.name}, {threads} threads …")
        sysroot = python_sysroot(board, REQUIREMENTS, progress)
        with tempfile.TemporaryDirectory(prefix="tvmmobile-calibrate-") as folder:
            program = Path(folder, "program.py")
            program.write_text(PROGRAM, encoding="utf-8")
            command = ["python3", str(program), str(path.resolve()), str(side), str(threads)]
            write_bytes(kept, gzip.compress(profile_program(board, command, sysroot)[0]))
    return parse_profile(gzip.decompress(kept.read_bytes()))


def in_one_thread(board: Board, networks: Path, cache: Path) -> list[Observation]:
    """What the published networks do on the virtual board, beside what they took on the real one."""
    observations = []
    for network, measured_ms in published()["boards"][board.name]["threads_1"].items():
        run = modelled_run(profiled(board, network, network_file(networks, network), 1, cache), board)
        observations.append(Observation(network, measured_ms, run.core.cycles, run.misses))
    return observations


def in_several_threads(board: Board, networks: Path, cache: Path, parameters: Sequence[Parameter]) -> list[SeveralThreads]:
    """The same in several threads, for any bandwidth."""
    runs = []
    for network, measured_ms in published()["boards"][board.name][f"threads_{SEVERAL}"].items():
        profile = profiled(board, network, network_file(networks, network), SEVERAL, cache)
        course = modelled_course(profile, board, parameters)
        runs.append(SeveralThreads(network, SEVERAL, measured_ms, lambda share, course=course: sum(course.term_ms(share).values())))
    return runs


def checks_elsewhere(fit: Fit, networks: Path, cache: Path) -> list[Check]:
    """What the fit models of the other published boards with the core, in one thread."""
    checks = []
    for name in published()["boards"]:
        board = load_board(name)
        if board.mcpu == fit.core and name != fit.board:
            for seen in in_one_thread(board, networks, cache):
                modelled = term_ms(board, seen.core_cycles, seen.misses, fit.parameters)
                checks.append(Check(name, 1, seen.network, seen.measured_ms, round(sum(modelled.values()), 4)))
    return checks


def table(fit: Fit) -> list[str]:
    """The fit in Markdown: parameters with their bounds, and each network."""
    parameters = (*fit.parameters, fit.bandwidth)
    values = [(p.name, f"{p.value:.4g}", f"{p.low:.4g} to {p.high:.4g}", f"{p.unbounded:.4g}") for p in parameters]
    lines = [f"## {fit.core}, fitted on {fit.board}", "", *markdown_table(("parameter", "value", "bounds", "without bounds"), values)]
    for p in parameters:
        lines.append(f"\n{p.name}: {p.what}. From {p.low:.4g}: {p.low_source}; to {p.high:.4g}: {p.high_source}.")
        lines += [f"It lies {p.note}."] if p.note else []
    headings = "network", "measured (ms)", "modelled (ms)", "error", "left out"
    fitted = zip(fit.observations, fit.modelled_ms, fit.left_out_ms, strict=True)
    rows = [(seen.network, *_errors(seen.measured_ms, ms, left_out_ms)) for seen, ms, left_out_ms in fitted]
    checks = [(f"{c.board}, {c.threads}", c.network, *_errors(c.measured_ms, c.modelled_ms, c.left_out_ms)) for c in fit.checks]
    lines += ["", *markdown_table(headings, rows), "", *markdown_table(("board, threads", *headings), checks, 2), ""]
    for name, errors in (("fit", fit.errors), ("leave-one-out", fit.left_out_errors), *fit.check_errors().items()):
        lines.append(f"- {name}: mean {mean_error(errors):.1%}, worst {worst_error(errors):.1%}")
    return lines


def _errors(measured_ms: float, modelled_ms: float, left_out_ms: float | None) -> tuple[str, ...]:
    error, left_out = ("" if ms is None else f"{ms / measured_ms - 1:+.1%}" for ms in (modelled_ms, left_out_ms))
    return f"{measured_ms:.2f}", f"{modelled_ms:.2f}", error, left_out


def calibrate(name: str, networks: Path, cache: Path, output: Path) -> Fit:
    """Run the published networks, fit, check, and write `output`/CORE.json."""
    board, figures = load_board(name), published()["boards"]
    if f"threads_{SEVERAL}" not in figures.get(name, {}):
        what = f"published figures of {SEVERAL} threads" if name in figures else "published figures"
        raise UserError(f"There are no {what} to calibrate {name} with.", f"Boards that have them: {', '.join(FITTED)}.")
    fit = fit_board(board, in_one_thread(board, networks, cache), partial(in_several_threads, board, networks, cache), WHEEL)
    fit = replace(fit, checks=(*fit.checks, *checks_elsewhere(fit, networks, cache)))
    write_fit(fit, output / f"{fit.core}.json")
    return fit


@telling
def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, required=True, metavar="DIR", help="where the .param files are")
    parser.add_argument("--boards", nargs="+", default=FITTED, metavar="NAME", help=f"default: {' '.join(FITTED)}")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where runs are kept")
    parser.add_argument("--output", type=Path, default=CALIBRATED, metavar="DIR", help="where the fits are written")
    parsed = parser.parse_args()
    for name in parsed.boards:
        fit = calibrate(name, parsed.networks, parsed.cache or cache_dir() / "calibration", parsed.output)
        print("\n".join(table(fit)))
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
