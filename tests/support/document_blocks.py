"""The parts of documents that are made from JSON files: whole pages, and the text between `<!-- figures: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import functools
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from tvmmobile.networks.models.costs import count
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.results.file import read_results
from tvmmobile.results.report import print_table
from tvmmobile.results.validation import read_validation
from tvmmobile.system.markdown import markdown_table
from tvmmobile.virtual.board import Board, core_values, load_board
from tvmmobile.virtual.calibration.fit import CALIBRATED, Fit, mean_error, published, read_fit, run_of, worst_error

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "studies/results"

DIAGONAL = ((1.0, 224), (0.75, 192), (0.5, 160), (0.25, 128))
PEERS = {"ncnn": "ncnn", "mnn": "MNN", "litert": "LiteRT/XNNPACK", "onnxruntime": "ONNX Runtime"}
#: The calibrated cores, each by a board that it was fitted on.
CORES = {"pi4": "cortex-a72", "pi3bplus": "cortex-a53", "pi5": "cortex-a76", "rk3566": "cortex-a55", "a311d-a73": "cortex-a73"}
CORES |= {"orin-nano": "cortex-a78", "cobalt100": "neoverse-n2", "d9300-x4": "cortex-x4"}
#: The boards that were fitted to, and their cores.
FITTED = {"pi4": "pi4", "rk3399-a72": "pi4", "pi3bplus": "pi3bplus", "rk3399-a53": "pi3bplus"}
FITTED |= {"pi5": "pi5", "rk3566": "rk3566", "a311d-a73": "a311d-a73"}
FITTED |= {"orin-nano": "orin-nano", "cobalt100": "cobalt100", "orion-o6": "cobalt100", "d9300-x4": "d9300-x4"}
#: Those of them with cores of phones, which have a page of their own.
PHONES = ("orin-nano", "cobalt100", "orion-o6", "d9300-x4")
#: Errors that count as close, as the field counts them; and predictors that were trained on measurements, with what their authors report.
CLOSE = 0.10
TRAINED = (
    ("nn-Meter (MobiSys 2021), Cortex-A76 of a Pixel 4, trained on it", "26,000", "99.0 %"),
    ("LitePred (NSDI 2024), a new phone after an hour of measurements", "", "98.6 to 100 %"),
)


def content(name: str) -> Any:
    """Return the content of a JSON file of the studies."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def benchmark(system: str, variant: tuple[float, int] = (1.0, 224), threads: int = 1, board: str = "pi4") -> dict[str, Any]:
    """Return a row of the comparison with other libraries; `ours` is our C library where one was run, as in the comparison's ratios."""
    names, wanted = ("board", "alpha", "resolution", "threads"), (board, *variant, threads)
    found = {one["system"]: one for one in content("benchmarks.json")["benchmarks"] if tuple(one[name] for name in names) == wanted}
    return dict(found.get("ours-c", found[system]) if system == "ours" else found[system])


def milliseconds(value: float) -> str:
    """Return a time as the benchmark pages show it: three figures."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def fit_of(board: str) -> Fit:
    """Return the committed calibration of a board's core."""
    return read_fit(CALIBRATED / f"{CORES[board]}.json")


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], numbers_from: int = 1) -> str:
    """Return a Markdown table; columns from `numbers_from` on are aligned to the right."""
    return "\n".join(markdown_table(headings, rows, numbers_from))


def _percent(value: float) -> str:
    return f"{value * 100:+.1f} %".replace("-", "−")


def _mean_and_worst(errors: Sequence[float]) -> str:
    return f"{mean_error(errors) * 100:.1f} %, {worst_error(errors) * 100:.1f} %"


def result_table() -> str:
    """Return the README's: ours beside the best other library."""
    rows = []
    for variant in DIAGONAL:
        cells = [f"{variant[0]}-{variant[1]}"]
        for threads in (1, 4):
            ours = benchmark("ours-c", variant, threads)
            best = min(PEERS, key=lambda peer: benchmark(peer, variant, threads)["modelled_ms"])
            other = milliseconds(benchmark(best, variant, threads)["modelled_ms"])
            cells += [milliseconds(ours["modelled_ms"]), f"{other} ({PEERS[best]})", f"{ours['ratio_to_best_peer']:.2f}"]
        rows.append(cells)
    return table(("variant", "ours, 1 thread", "best other", "ratio", "ours, 4 threads", "best other", "ratio"), rows)


def tune_output() -> str:
    """Return the output of `tune` for two variants; studies/results/tune.json is the report.json that it wrote."""
    output = io.StringIO()
    with redirect_stdout(output):
        print_table(read_results(RESULTS / "tune.json"))
    lines = [" ".join(re.split("\N{NO-BREAK SPACE}", line)).rstrip() for line in output.getvalue().splitlines()]
    command = "$ ./scripts/tvmmobile tune --target arm --device pi4 --alpha 1 --alpha 0.75 --resolution 224"
    return "\n".join(
        ["```console", command, "pi4-virtual: the virtual Raspberry Pi 4 Model B (latencies are modelled)", "…", *lines, "```"]
    )


def limits_table() -> str:
    """Our libraries beside what multiplying directly would take at least."""
    rows = []
    for variant in DIAGONAL:
        (run,) = benchmark("ours-c", variant)["runs"]
        counts = [
            f"{run['core_cycles'] / 1e6:.1f}",
            f"{count(ModelSpec('mobilenet_v1', *variant)).macs / 4e6:.1f}",
            f"{run['l1d_misses'] / 1e6:.2f}",
        ]
        rows.append([f"{variant[0]}-{variant[1]}", milliseconds(run["modelled_ms"]), *counts, f"{run['dram_bytes'] / 1e6:.1f}"])
    return table(("MobileNet v1, one thread", "modelled ms", "core cycles, M", "direct limit, M", "L1D misses, M", "DRAM, MB"), rows)


def wheels_table() -> str:
    """Other libraries' wheels on the virtual Pi 4."""
    rows = []
    titles = content("benchmarks.json")["context"]["titles"]
    for peer in PEERS:
        (run,) = benchmark(peer)["runs"]
        counts = [f"{run[name] / 1e6:.1f}" for name in ("instructions", "llvm_mca_cycles")]
        counts += [f"{run['l1d_misses'] / 1e6:.2f}", f"{run['dram_bytes'] / 1e6:.1f}"]
        rows.append([titles[peer], *counts, *(f"{benchmark(peer, threads=threads)['modelled_ms']:.1f}" for threads in (1, 4))])
    headings = ("MobileNet v1 1.0-224", "instructions, M", "`core_cycles`, M", "L1D misses, M", "DRAM traffic, MB")
    return table((*headings, "`modelled_ms`, 1 thread", "4 threads"), rows)


def core_cycles_table() -> str:
    """Cycles of the calibration's networks on the calibrated cores."""
    cycles = {board: {seen.network: seen.core_cycles for seen in fit_of(board).observations if seen.board == board} for board in CORES}
    rows = [
        [network, *(f"{cycles[board][network] / 1e6:.1f}" if network in cycles[board] else "" for board in CORES)]
        for network in cycles["pi4"]
    ]
    return table(("core cycles, M", *(f"{core} ({board})" for board, core in CORES.items())), rows)


def parameters_table() -> str:
    """Return the fitted parameters, with the bounds that are a board's own."""
    explained = {
        "cache_hits": "the latency of the level that had the line, for each load that missed the first",
        "lines_read": "a line copy, for each line read from memory (A78, N2, X4: by a load; A76: the bus's time, by a load; not fitted)",
        "stores": "a line copy, for each store that missed the first level (A76, A78, N2, X4: that no cache had)",
        "bandwidth": "twice the copy rate: what memory delivers to several threads (0.5 to 1; A78, N2, X4: not fitted)",
    }
    rows = []
    for name, what in explained.items():
        found = [next(one for one in (*fit_of(board).parameters, fit_of(board).bandwidth) if one.name == name) for board in CORES]
        rows.append([f"`{name}`", what, *(f"{one.value:.2f}" + (f" (at most {one.high:.1f})" if one.high > 1 else "") for one in found)])
    return table(("parameter", "share of", *(core_values(core)["cpu"] for core in CORES.values())), rows, 2)


def accuracy_table(phones: bool = False) -> str:
    """Mean and worst errors by board: fitted, networks left out, the board left out, and in four threads."""
    rows = []
    for board, member in FITTED.items():
        if (board in PHONES) != phones:
            continue
        fit = fit_of(member)
        kinds = [fit.of_board(fit.left_out_errors, board, integers) for integers in (False, True)]
        elsewhere = fit.of_board(fit.board_left_out_errors, board) if fit.board_left_out_ms else ()
        groups = (fit.of_board(fit.errors, board), *kinds, elsewhere, fit.check_errors().get(f"{board}, 4 threads, left out", ()))
        rows.append([_board_title(load_board(board)), *(_mean_and_worst(errors) if errors else "" for errors in groups)])
    for board, member in () if phones else (("rk3588-a76", "pi5"), ("rk3588-a55", "rk3566")):
        rows.append(
            [
                _board_title(load_board(board)),
                "",
                "",
                "",
                "",
                _mean_and_worst(fit_of(member).check_errors()[f"{board}, 4 threads, left out"]),
            ]
        )
    headings = "fit", "floats, network left out", "integers, network left out", "board left out", "several threads, network left out"
    return table(("mean, worst error", *headings), rows)


def shares_table() -> str:
    """Share of networks close to their measurement, each left out of its own fit, by core; beside predictors trained on measurements."""
    found = {core_values(core)["cpu"]: fit_of(board).left_out_errors for board, core in CORES.items()}
    found["all cores"] = tuple(error for errors in found.values() for error in errors)
    rows = [[name, len(errors), _mean_and_worst(errors), _share(errors)] for name, errors in found.items()]
    headings = "core", "networks × boards", "mean, worst error", "share within ±10 %"
    return table(headings, [*rows, *([name, count, "", share] for name, count, share in TRAINED)])


def _share(errors: Sequence[float]) -> str:
    return f"{sum(abs(error) <= CLOSE for error in errors) / len(errors):.0%}".replace("%", " %")


def errors_table(board: str) -> str:
    """Measured and modelled latencies on one board."""
    fit = fit_of(FITTED[board])
    by_board = fit.board_left_out_errors
    rows: list[list[str]] = []
    for place, seen in enumerate(fit.observations):
        if seen.board == board:
            errors = [fit.errors[place], fit.left_out_errors[place], *by_board[place : place + 1]]
            rows.append([seen.network, f"{seen.measured_ms:.2f}", f"{fit.modelled_ms[place]:.2f}", *map(_percent, errors)])
    groups = [fit.of_board(errors, board) for errors in (fit.errors, fit.left_out_errors, *([by_board] if by_board else []))]
    rows.append(["mean, worst", "", "", *map(_mean_and_worst, groups)])
    headings = "measured ms", "modelled ms", "error", "network left out", *(["board left out"] if by_board else [])
    return table((_board_title(load_board(board)), *headings), rows)


def excluded_table() -> str:
    """Return the published rows that nothing was fitted to, and why."""
    rows = [[row["title"], row["measured"], row["threads"], row["excluded"]] for row in published()["rows"] if "excluded" in row]
    return table(("row", "published", "threads", "why it is left aside"), rows, 4)


def rows_table(phones: bool = False) -> str:
    """Return the published rows that were fitted to or checked, and the program that stands for each."""
    rows = [
        [f"`{row['board']}`", row["threads"], row["title"], row["measured"], f"{row['wheel'].partition('==')[2]}: {row['why_wheel']}"]
        for row in published()["rows"]
        if "excluded" not in row and run_of(row) and (row["board"] in PHONES) == phones
    ]
    return table(("board", "threads", "row", "published", "wheel"), rows, 5)


def _board_title(board: Board) -> str:
    return f"{board.board.replace(' Model B', '')} ({board.clock_hz / 1e9:.1f} GHz)"


def gate_table() -> str:
    """Return the table of how often the gate was wrong in the simulation."""
    from studies.checks import simulate_gate

    found = content("gate.json")
    return str(simulate_gate.report(found["equal"], found["slowed"]))


def gate_runs_table() -> str:
    """Return the gate's verdicts in the simulation, by runs a side."""
    from studies.checks import simulate_gate

    return str(simulate_gate.runs_report(content("gate.json")["runs"]))


def history_table() -> str:
    """Return the table of how many planted steps are found in simulated histories."""
    from studies.checks import simulate_history

    found = content("history.json")
    return str(simulate_history.report(found["rows"], found["alarms"]))


def quantisation_table() -> str:
    """Return the losses of a trained network by each method of quantisation."""
    from studies.errors import compare_quantisation

    return str(compare_quantisation.table(content("quantisation.json")))


def trained_table() -> str:
    from studies.errors import int8_losses

    return str(int8_losses.trained_table(content("trained-losses.json")))


def photographs_table() -> str:
    """Return the losses by precision of networks trained on photographs."""
    from studies.errors import photographs

    return photographs.table(content("photographs.json"))


def text_table() -> str:
    """Return the losses in int8 of networks that read text."""
    from studies.errors import rendered_text

    return rendered_text.table(content("rendered-text.json"))


def several_cores_table() -> str:
    """Return boards' own libraries beside one for several."""
    from studies.networks import several_cores

    return several_cores.table(content("several-cores.json"))


def zoo_table() -> str:
    """Return the outcomes of the study zoo."""
    from studies.networks import zoo

    return zoo.table(content("zoo.json"))


def survey_table() -> str:
    """Return the outcomes of other people's networks."""
    from studies.networks import survey_networks

    compared = survey_networks.ratios(content("benchmarks-survey.json")["benchmarks"])
    return str(survey_networks.table(content("survey.json")["networks"], compared))


@functools.cache
def _peers_pages(stem: str) -> dict[str, str]:
    from studies.peers.results import from_json
    from studies.peers.tables import pages

    return dict(pages(from_json(RESULTS / f"{stem}.json"), stem))


def peers_table(*stems: str) -> str:
    """Return the boards of some comparisons with other libraries."""
    from studies.peers.results import from_json
    from studies.peers.tables import boards_table

    return "\n".join(boards_table({stem: from_json(RESULTS / f"{stem}.json") for stem in stems}, "../studies/results/"))


def _peers_paths(stem: str) -> list[str]:
    return [f"{stem}.md", *(f"{stem}/{board}.md" for board in content(f"{stem}.json")["context"]["boards"])]


def _networks_page() -> str:
    from studies.networks import compare_networks

    return str(compare_networks.page(compare_networks.COMPARED, read_results(RESULTS / "networks.json")))


def _study_page(module: str, file: str) -> str:
    import importlib

    return str(importlib.import_module(f"studies.{module}").page(content(file)))


def gains_table() -> str:
    """MobileNet v1 with zeros in its 1×1 layers."""
    from studies.networks import pruned

    return "\n".join(pruned.tables(content("pruned.json"))["mobilenet_v1 1.0-224"])


def _start_page() -> str:
    from studies.start_up.page import from_file, page

    return str(page(from_file(RESULTS / "start-up.json"), "start-up"))


def validations_page(folder: Path) -> str:
    """Return the table of the validations that others have sent."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        found = read_validation(path)
        board, valid = found.measured, found.valid()
        errors = [point.error for point in valid]
        ranks = "–" if found.kernel_ranks is None else f"{found.kernel_ranks:.2f}"
        off = (f"{mean_error(errors):.1%}", f"{worst_error(errors):.1%}") if errors else ("–", "–")
        core = f"{board.cpu}, {board.clock_hz / 1e9:g} GHz"
        points = f"{len(valid)} of {len(found.points)}"
        rows.append((f"[{path.stem}]({path.name})", board.board or "not known", core, board.kind, found.model.board, points, ranks, *off))
    headings = [
        "file",
        "board",
        "core",
        "times",
        "virtual board",
        "valid points",
        "rank correlation of kernels",
        "off on average",
        "at worst",
    ]
    empty = "None has been received so far: no board beside its model, on hardware.\n"
    table = f"{markdown_table(headings, rows)}\n" if rows else empty
    return f"""# Validations by others

[`tvmmobile device validate NAME --share FILE`](../validate.md#sharing-it) compares a board with its model and writes a file without names,
serial numbers and paths. Files that people send are kept here as they came, and the table is made from them. *Off* is the modelled time
over the measured one, less 1. Times of emulated boards are marked and say nothing about the board.

{table}"""


#: Documents that a study writes as a whole.
PAGES: dict[str, Callable[[], str]] = {
    **{
        f"studies/results/{path}": lambda stem=stem, path=path: _peers_pages(stem)[path]  # type: ignore[misc]
        for stem in sorted(path.stem for path in RESULTS.glob("benchmarks*.json"))
        for path in _peers_paths(stem)
    },
    "studies/results/start-up.md": _start_page,
    "studies/results/networks.md": _networks_page,
    "studies/results/ablation.md": lambda: _study_page("kernels.ablation", "ablation.json"),
    "studies/results/search.md": lambda: _study_page("kernels.compare_search", "search.json"),
    "studies/results/pruned.md": lambda: _study_page("networks.pruned", "pruned.json"),
    "studies/results/half-errors.md": lambda: _study_page("errors.half_errors", "half-errors.json"),
}
PAGES["docs/validations/README.md"] = lambda: validations_page(REPOSITORY / "docs/validations")
#: By document, the blocks of figures in it.
BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"result": result_table},
    "docs/benchmarks.md": {
        "float32": lambda: peers_table("benchmarks"),
        "later": lambda: peers_table("benchmarks-later"),
        "half": lambda: peers_table("benchmarks-half", "benchmarks-half-later"),
        "int8": lambda: peers_table("benchmarks-int8", "benchmarks-int8-later", "benchmarks-int8-later-t4"),
        "phones": lambda: peers_table("benchmarks-phones-int8", "benchmarks-phones-half"),
        "trained": lambda: peers_table("benchmarks-int8-trained", "benchmarks-int8-later-trained"),
        "survey": lambda: peers_table("benchmarks-survey"),
    },
    "docs/tune.md": {"tune": tune_output},
    "docs/several-cores.md": {"sets": several_cores_table},
    "docs/pruning.md": {"gains": gains_table},
    "docs/kernels.md": {"limits": limits_table},
    "docs/gate.md": {"simulation": gate_table, "runs": gate_runs_table},
    "docs/history.md": {"steps": history_table},
    "docs/survey.md": {"survey": survey_table},
    "docs/zoo.md": {"zoo": zoo_table},
    "docs/quantisation-accuracy.md": {
        "photographs": photographs_table,
        "lite0": lambda: peers_table("benchmarks-int8-lite0"),
        "text": text_table,
        "methods": quantisation_table,
        "trained": trained_table,
    },
    "docs/virtual-boards.md": {"wheels": wheels_table, "accuracy": accuracy_table},
    "docs/core-models.md": {"cores": core_cycles_table, "parameters": parameters_table},
    "docs/model-errors.md": {
        **{board: lambda board=board: errors_table(board) for board in FITTED if board not in PHONES},  # type: ignore[misc]
        "rows": rows_table,
        "excluded": excluded_table,
    },
    "docs/model-errors-phones.md": {
        "accuracy": lambda: accuracy_table(phones=True),
        "shares": shares_table,
        **{board: lambda board=board: errors_table(board) for board in PHONES},  # type: ignore[misc]
        "rows": lambda: rows_table(phones=True),
    },
}
