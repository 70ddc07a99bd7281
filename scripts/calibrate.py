"""Fits what cache misses cost on a virtual board to latencies that ncnn's users measured on the real one, and writes the fit down.

    ./scripts/calibrate --networks DIR

DIR holds the networks' .param files, from `benchmark/models` of https://github.com/Tencent/ncnn. The ncnn wheel runs each of them on the
virtual board as ncnn's own benchmark does: one thread, one run to warm up, then the run that is modelled. What a network did is kept in
the cache, so that an interrupted call goes on where it was. The result, with its errors, goes to `tvmmobile/virtual/calibrated/BOARD.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tvmmobile.environment import cache_dir
from tvmmobile.errors import ExitCode, UserError
from tvmmobile.files import write_bytes
from tvmmobile.virtual.board import Board, load_board
from tvmmobile.virtual.calibration import (
    CALIBRATED,
    Fit,
    Misses,
    Observation,
    fit_board,
    mean_error,
    published,
    worst_error,
    write_fit,
)
from tvmmobile.virtual.corrected import corrected_hash
from tvmmobile.virtual.plugin import build_plugin
from tvmmobile.virtual.program import run_program
from tvmmobile.virtual.sysroot import python_sysroot

WHEEL = "ncnn==1.0.20261020"
REQUIREMENTS = (WHEEL, "numpy==2.4.6")
#: As benchncnn: empty weights, an input of 0.01, one thread. The path to the network and the input's side are the arguments.
PROGRAM = """
import ctypes, sys
import ncnn, numpy as np
libc = ctypes.CDLL(None)
net = ncnn.Net()
net.opt.num_threads = 1
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
    """The network's .param file.

    Raises:
        UserError: it is not there, or is no such file.
    """
    path = folder / f"{network}.param"
    if not path.is_file():
        raise UserError(f"There is no {path}.", "Take benchmark/models from https://github.com/Tencent/ncnn, and name that folder.")
    if not path.read_text(encoding="utf-8", errors="replace").startswith("7767517"):
        raise UserError(f"{path} is no ncnn network.", "It begins with the number 7767517.")
    return path


def observe(board: Board, network: str, path: Path, side: int, measured_ms: float, cache: Path) -> Observation:
    """What one network does on the virtual board, from the cache if it is known.

    Raises:
        UserError: it cannot be run.
    """
    told = (WHEEL, PROGRAM, path.read_text(encoding="utf-8"), side, corrected_hash(board), build_plugin("program").name)
    kept = cache / f"{board.name}-{network}-{hashlib.sha256(repr(told).encode()).hexdigest()[:16]}.json"
    if not kept.exists():
        print(f"{network} on {board.name} …", file=sys.stderr)
        sysroot = python_sysroot(board, REQUIREMENTS, lambda sentence: print(sentence, file=sys.stderr))
        with tempfile.TemporaryDirectory(prefix="tvmmobile-calibrate-") as folder:
            program = Path(folder, "program.py")
            program.write_text(PROGRAM, encoding="utf-8")
            done = run_program(board, ["python3", str(program), str(path.resolve()), str(side)], sysroot)
        misses = done.misses
        row = {"core_cycles": done.scheduled.cycles, "misses": [misses.load_l2_hits, misses.load_l2_misses, misses.stores]}
        write_bytes(kept, json.dumps(row).encode())
    row = json.loads(kept.read_text(encoding="utf-8"))
    return Observation(network, measured_ms, row["core_cycles"], Misses(*row["misses"]))


def table(fit: Fit) -> list[str]:
    """The fit in Markdown: parameters with their bounds, and each network."""
    lines = ["| parameter | value | bounds | without bounds |", "| --- | --- | --- | --- |"]
    for p in fit.parameters:
        lines.append(f"| {p.name} | {p.value:.4g} {p.unit} | {p.low:.4g} to {p.high:.4g} | {p.unbounded:.4g} |")
    lines += [f"\n{p.name}: from {p.low:.4g}: {p.low_source}; to {p.high:.4g}: {p.high_source}" for p in fit.parameters]
    lines += [f"\n{p.name} lies {p.note}" for p in fit.parameters if p.note]
    lines += ["", "| network | measured (ms) | modelled (ms) | error | left out |", "| --- | --- | --- | --- | --- |"]
    rows = zip(fit.observations, fit.modelled_ms, fit.errors, fit.left_out_errors, strict=True)
    lines += [f"| {seen.network} | {seen.measured_ms:.2f} | {ms:.2f} | {error:+.1%} | {out:+.1%} |" for seen, ms, error, out in rows]
    for name, errors in (("fit", fit.errors), ("leave-one-out", fit.left_out_errors)):
        lines.append(f"\n{name}: mean {mean_error(errors):.1%}, worst {worst_error(errors):.1%}")
    return lines


def calibrate(name: str, networks: Path, cache: Path, output: Path) -> Fit:
    """Run the published networks, fit, and write `output`/BOARD.json.

    Raises:
        UserError: the board has no published latencies, or something cannot be run.
    """
    board, figures = load_board(name), published()
    if name not in figures["boards"] or "memory" not in figures["boards"][name]:
        known = ", ".join(board for board, row in figures["boards"].items() if "memory" in row)
        raise UserError(f"There are no published figures to calibrate {name} with.", f"Boards that have them: {known}.")
    latencies: dict[str, float] = figures["boards"][name]["threads_1"]
    files = {network: network_file(networks, network) for network in latencies}
    seen = [observe(board, network, files[network], figures["input_side"][network], ms, cache) for network, ms in latencies.items()]
    fit = fit_board(board, seen, WHEEL)
    write_fit(fit, output / f"{name}.json")
    return fit


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, required=True, metavar="DIR", help="where the .param files are")
    parser.add_argument("--boards", nargs="+", default=["pi4"], metavar="NAME", help="default: pi4")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where runs are kept")
    parser.add_argument("--output", type=Path, default=CALIBRATED, metavar="DIR", help="where the fits are written")
    parsed = parser.parse_args(arguments)
    try:
        for name in parsed.boards:
            fit = calibrate(name, parsed.networks, parsed.cache or cache_dir() / "calibration", parsed.output)
            print("\n".join(table(fit)))
    except UserError as error:
        print(f"calibrate: error: {error}", file=sys.stderr)
        return error.exit_code
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
