"""Figures within sentences: each is computed from a JSON file or the tuning logs, and a document has no others but those listed."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from document_blocks import REPOSITORY, benchmark, content, fit_of

from tvmmobile.graph.precision import FLOAT16
from tvmmobile.networks.models.costs import count
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.tuning.records import read_line
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.calibration.fit import mean_error, worst_error
from tvmmobile.virtual.calibration.fitting import fit_terms
from tvmmobile.virtual.calibration.residuals import relative_errors

FITTED = ("pi4", "pi3bplus", "pi5")
#: What makes a number a figure that needs a source.
FIGURE = re.compile(r"(\d[\d.,]*) ?(ms|µs|ns|MB|GB|%|million|cycles|minutes|trials|points)(?!\w)")


@functools.cache
def records() -> dict[tuple[str, str], float]:
    """Return the shipped logs' best latency in µs, one thread, by kernel and template."""
    best: dict[tuple[str, str], float] = {}
    for text in (REPOSITORY / "tuning_logs/pi4-virtual/float32_t1.jsonl").read_bytes().splitlines():
        for record in read_line(text).records:
            if record.latency_us is not None:
                key = record.task.name, getattr(record.schedule, "template", "")
                best[key] = min(best.get(key, float("inf")), record.latency_us)
    return best


def kernel(name: str, template: str) -> float:
    """Best latency in µs of a kernel; `name` without dtype and threads."""
    return records()[f"{name}_float32_t1", template]


def separately(*names: tuple[str, str]) -> float:
    """Latency in ms of kernels one after another."""
    return sum(kernel(*name) for name in names) / 1000


def waiting_ns() -> tuple[float, float, float]:
    """Return the time that the calibrated Pi 4 charges for a load from the second level, one from memory, and a store, in ns."""
    board, shares = load_board("pi4"), {parameter.name: parameter.value for parameter in fit_of("pi4").parameters}
    hit = shares["cache_hits"] * board.caches.l2_cycles / board.clock_hz * 1e9
    return hit, shares["lines_read"] * board.line_copy_ns, shares["stores"] * board.line_copy_ns


def macs() -> float:
    """Multiply-adds of MobileNet v1 1.0-224, millions."""
    return count(ModelSpec("mobilenet_v1", 1.0, 224)).macs / 1e6


def weights_and_image() -> tuple[float, ...]:
    """MB of float32."""
    cost = count(ModelSpec("mobilenet_v1", 1.0, 224))
    return ((cost.parameters + 3 * 224 * 224) * 4 / 1e6,)


def without_strassen() -> tuple[float, float]:
    """MB moved, and ms more."""
    rows = {row["left_out"]: row for row in content("ablation.json")["rows"]}
    return rows["Strassen"]["dram_bytes"] / 1e6, rows["Strassen"]["ms"] - rows["nothing"]["ms"]


def beside_the_core() -> tuple[float, float, float]:
    """Return the memory's time on the Pi 5 for a line that a load reads and one that a store fetches, in ns; a free fit over the first."""
    board, found = load_board("pi5"), {parameter.name: parameter for parameter in fit_of("pi5").parameters}
    bus_ns = board.caches.line_bytes / board.memory.peak_bytes_per_s * 1e9
    return bus_ns, found["stores"].value * board.line_copy_ns, found["lines_read"].unbounded


@functools.cache
def adding_up() -> tuple[float, ...]:
    """Mean and worst errors in percent of networks left out, in floats and in integers, if the Pi 5's terms added up as other cores' do."""
    waiting, fit = load_board("pi5").model_copy(update={"mcpu": "cortex-a72"}), fit_of("pi5")
    seen = [replace(observation, phases=()) for observation in fit.observations]
    _, others = fit_terms(waiting, seen)
    errors = [relative_errors(waiting, without, [one])[0] for one, without in zip(seen, others, strict=True)]
    kinds = (fit.of_board(errors, "pi5", integers) for integers in (False, True))
    return tuple(100 * figure(kind) for kind in kinds for figure in (mean_error, worst_error))


def on_pi5(network: str) -> tuple[float, float]:
    """MB that a network's loads read from memory, and percent by which it is modelled too fast."""
    fit = fit_of("pi5")
    (place,) = [place for place, seen in enumerate(fit.observations) if seen.network == network]
    return fit.observations[place].misses.loads_from_memory * load_board("pi5").caches.line_bytes / 1e6, -100 * fit.errors[place]


def gate_shares(verdict: str, *cases: tuple[float, str]) -> tuple[float, ...]:
    """Return how often the simulated gate gave a verdict, in percent, by slowdown and runs a side."""
    rows = {(row["slowdown"], row["runs"]): row for row in content("gate.json")["runs"]}
    verdicts = ("same", "too noisy", "slower", "faster")
    return tuple(100 * rows[case][verdict] / sum(rows[case][name] for name in verdicts) for case in cases)


DW = "dw_64x64_64_k3x3s2x2p1.1.1.1"
CHAIN = "pw_112x112_32x64_relu6+dw_112x112_64_k3x3s2x2p1.1.1.1_to_32c_relu6"
PARTS = ("pw_112x112_32x64_to_32c_relu6", "pointwise"), ("dw_112x112_64_k3x3s2x2p1.1.1.1_32c_to_32c_relu6", "depthwise")
#: (document, a phrase in it, the figures that stand in its places)
CLAIMS: tuple[tuple[str, str, Callable[[], tuple[float, ...]]], ...] = (
    ("docs/kernels.md", "1.0-224 has {:.1f} million multiply-adds", lambda: (macs(),)),
    ("docs/kernels.md", "at least {:.1f} million cycles, or {:.1f} ms at 1.8 GHz", lambda: (macs() / 4, macs() / 4 / 1.8)),
    (
        "docs/kernels.md",
        "{:.1f} ns for a load that hits the second-level cache, {:.1f} ns for one from memory, and {:.1f} ns for a store",
        waiting_ns,
    ),
    (
        "docs/kernels.md",
        "takes {:.0f} µs in NHWC and {:.0f} µs in blocks",
        lambda: (kernel(f"{DW}_relu6", "depthwise"), kernel(f"{DW}_32c_to_32c_relu6", "depthwise")),
    ),
    (
        "docs/kernels.md",
        "14×14, 512 → 512 takes {:.2f} ms directly and {:.2f} ms this way; 7×7, 1024 → 1024 takes {:.2f} ms and {:.2f} ms",
        lambda: tuple(
            kernel(name, template) / 1000
            for name in ("pw_14x14_512x512_32c_to_32c_relu6", "pw_7x7_1024x1024_32c_relu6")
            for template in ("pointwise", "strassen")
        ),
    ),
    ("docs/kernels-precisions.md", "by more than {:.0f} % of its largest magnitude is refused", lambda: (100 * FLOAT16.network_tolerance,)),
    ("docs/kernels-precisions.md", "the two results differ by more than {:.0f} %", lambda: (100 * FLOAT16.tolerance,)),
    ("docs/kernels-operators.md", "28×28×120 takes {:.0f} µs", lambda: (kernel("pool_28x28_120", "pool"),)),
    (
        "docs/kernels-operators.md",
        "It costs {:.0f} µs for 28×28, 120 → 40 and {:.0f} µs for 7×7, 960 → 160",
        lambda: tuple(
            kernel(f"pw_{name}_scaled_add_linear", "pointwise") - kernel(f"pw_{name}_add_linear", "pointwise")
            for name in ("28x28_120x40", "7x7_960x160")
        ),
    ),
    (
        "docs/kernels.md",
        "112×112, 32 → 64 with stride 2 takes {:.2f} ms, and {:.2f} ms as two kernels",
        lambda: (kernel(CHAIN, "chain") / 1000, separately(*PARTS)),
    ),
    ("docs/kernels.md", "every store that misses it costs {:.1f} ns", lambda: waiting_ns()[2:]),
    ("docs/kernels.md", "1.0-224 moves {:.1f} MB between", lambda: (benchmark("ours-c")["runs"][0]["dram_bytes"] / 1e6,)),
    ("docs/kernels.md", "weights and image are only {:.1f} MB", weights_and_image),
    ("docs/kernels.md", "Without Strassen the network moves {:.1f} MB and takes {:.2f} ms more", without_strassen),
    (
        "docs/core-models.md",
        "{:.1f} ns on the Pi 4, {:.1f} ns on the Pi 3B+, {:.1f} ns on the Pi 5 and {:.1f} ns on the RK3399",
        lambda: tuple(load_board(name).line_copy_ns for name in (*FITTED, "rk3399-a72")),
    ),
    ("docs/core-models.md", "{:.1f} ns on the Pi 5); that is documented", lambda: beside_the_core()[:1]),
    (
        "docs/gate.md",
        "calls {:.0f} % of equal variants the same, and leaves open {:.0f} % of them and {:.0f} % of slowdowns of 5 %",
        lambda: (*gate_shares("same", (0.0, "1")), *gate_shares("too noisy", (0.0, "1"), (0.05, "1"))),
    ),
    (
        "docs/gate.md",
        "call {:.0f} % of equal variants the same, eight call {:.0f} %",
        lambda: gate_shares("same", (0.0, "5"), (0.0, "8")),
    ),
    (
        "docs/gate.md",
        "is called the same in {:.1f} % of comparisons with one run a side and in {:.1f} % with repeats",
        lambda: gate_shares("same", (0.05, "1"), (0.05, "as `regress`")),
    ),
    (
        "docs/gate.md",
        "one of just 3 % in {:.0f} % and {:.0f} %",
        lambda: gate_shares("same", (0.03, "1"), (0.03, "as `regress`")),
    ),
    ("docs/core-models.md", "a fit free to choose takes {:.2f} times as much", lambda: beside_the_core()[2:]),
    ("docs/core-models.md", "At {:.0f} ns on the Pi 5", lambda: beside_the_core()[1:2]),
    (
        "docs/core-models.md",
        "networks left out would be {:.1f} % off on average and {:.1f} % at worst in floats, {:.1f} % and {:.1f} % in integers",
        adding_up,
    ),
    ("docs/core-models.md", "ResNet-18 reads {:.0f} MB from memory", lambda: on_pi5("resnet18")[:1]),
    (
        "docs/model-errors.md",
        "MobileNet v2 and GoogLeNet are modelled {:.0f} % and {:.0f} % too fast",
        lambda: (on_pi5("mobilenet_v2")[1], on_pi5("googlenet")[1]),
    ),
)
#: Figures that are no result: limits of a tool or a test, constants of an algorithm, sizes of downloads, facts about a core.
CONSTANTS = {
    "README.md": set(),
    "studies/results/ablation.md": set(),
    "studies/results/benchmarks.md": {"427 MB"},
    "docs/benchmarks.md": set(),
    "docs/gate.md": {"3 %", "1 %", "2 %", "5 %", "90 %", "95 %", "99 %"},
    "docs/kernels.md": set(),
    "studies/results/networks.md": set(),
    "studies/results/search.md": {"1 %", "3 %"},
    "docs/tune.md": {"10 %", "8 trials", "64 trials"},
    "docs/virtual-boards.md": {
        "1 %",
        "0.9 GB",
        "0.4 GB",
        "0.001 %",
        "2 %",
    },
    "docs/core-models.md": {"8 cycles", "36 ns", "6 %"},  # 6 %: tests/virtual/test_cortex_a72.py
}


def words_of(document: str) -> str:
    """Return a document as one line."""
    return " ".join((REPOSITORY / document).read_text(encoding="utf-8").split())


@pytest.mark.parametrize(("document", "phrase", "figures"), CLAIMS, ids=[f"{document}: {phrase}"[:70] for document, phrase, _ in CLAIMS])
def test_sentences_agree_with_their_source(document: str, phrase: str, figures: Callable[[], tuple[float, ...]]) -> None:
    assert phrase.format(*figures()) in words_of(document)


@pytest.mark.parametrize("document", CONSTANTS)
def test_every_other_figure_is_a_known_constant(document: str) -> None:
    text = re.sub(r"```.*?```|<!-- figures.*?<!-- end -->", " ", (REPOSITORY / document).read_text(encoding="utf-8"), flags=re.DOTALL)
    text = " ".join(re.sub(r"`[^`\n]*`|^ *\|.*$", " ", text, flags=re.MULTILINE).split())
    for other, phrase, figures in CLAIMS:
        text = text.replace(phrase.format(*figures()), " ") if other == document else text
    assert {f"{number} {unit}" for number, unit in FIGURE.findall(text)} == CONSTANTS[document]
