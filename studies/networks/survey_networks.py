"""Tries some 75 networks of torchvision, timm and the field as a user would: exported, tuned on the virtual Pi 4, compared.

    ./studies/run survey_networks                                    # all of them, untuned: about a minute each; the table on stdout
    ./studies/run survey_networks resnet18 unet --trials 8
    ./studies/run survey_networks --trials 8 --out studies/results/survey.json  # networks already there stay

Weights are random. Each network is written as .pt2 and as ONNX by PyTorch's own exporters (ONNX by the older one, which needs no package
more), then goes through `tvmmobile tune`, which compares it with PyTorch or with ONNX Runtime and times it. What cannot be
exported, imported, compiled or run is in the table with its error. The packages are kept in the cache (once, 15 MB), models and logs in
`--work`. Interrupt it whenever you like, the same command goes on.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from studies.harness import Entry, Options, missing_entries, study, tuning_options, write_json
from studies.networks.survey_models import NETWORKS
from studies.packages import locked_packages
from tvmmobile.results.file import read_results
from tvmmobile.system.errors import UserError
from tvmmobile.system.markdown import markdown_table

HERE = Path(__file__).resolve().parent
FORMATS = ("pt2", "onnx")
#: In front of the name of a file's network where a built-in one has that name.
OWN = "own_"
#: In front of what a command complains about.
_ERRORS = re.compile("tvmmobile: (?:internal )?error: ")
#: A network that takes longer has failed.
TIMEOUT_S = 3600


@dataclass(frozen=True)
class SurveyOutcome:
    """The outcome of a network in one format.

    Attributes:
        latency_ms: modelled; None where there is an error.
        error: the largest difference from the reference, as a share of its largest magnitude.
        fallback: share of the time in kernels without a template.
        macs: multiply-adds.
        kernels: number of kernels.
        message: the failure's message; empty without a failure.
    """

    latency_ms: float | None = None
    error: float | None = None
    fallback: float | None = None
    macs: int | None = None
    kernels: int | None = None
    message: str = ""


def exported(name: str, work: Path) -> Mapping[str, str]:
    """Write a network in both formats; return the reason for each that failed, by format."""
    reasons_file = work / f"{name}.json"
    if not reasons_file.is_file():
        needed = "" if NETWORKS[name].source == "here" else str(locked_packages(HERE / "survey.lock", "torchvision and timm"))
        command = [sys.executable, str(HERE / "survey_models.py"), needed, name, str(work)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        if done.returncode:
            return dict.fromkeys(FORMATS, _complaint(done.stderr))
    return dict(json.loads(reasons_file.read_text(encoding="utf-8")))


def out_of(model: Path) -> Path:
    """Return the folder for a file's library and report, beside the file."""
    return model.with_name(f"out-{model.stem}-{model.suffix[1:]}")


def tried(model: Path, device: str, trials: int, threads: int, more: Sequence[str] = ()) -> SurveyOutcome:
    """Tune, check and time one file, in a process of its own; with more options of `tvmmobile tune`."""
    out = out_of(model)
    options = ["--device", device, "--trials", str(trials), "--threads", str(threads), "--out", str(out), *more]
    command = [sys.executable, "-m", "tvmmobile", "tune", "--model", str(model), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return SurveyOutcome(message=f"not done after {TIMEOUT_S / 60:.0f} minutes")
    if done.returncode:
        return SurveyOutcome(message=_complaint(done.stderr))
    [variant] = read_results(out / "report.json").variants
    shares = [(kernel.network_us or 0.0, kernel.fallback) for kernel in variant.kernels]
    fallback = sum(time for time, is_fallback in shares if is_fallback) / sum(time for time, _ in shares)
    return SurveyOutcome(variant.latency_us / 1000, variant.max_error, fallback, variant.macs, len(shares))


def _complaint(text: str) -> str:
    """Return a command's error message without its advice; the last line if there is no such message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line[found.end() :] for line in lines if (found := _ERRORS.match(line))]
    return (errors or lines or ["ended without a word"])[-1]


def survey(names: Iterable[str], options: Options, known: Mapping[str, Any]) -> dict[str, Any]:
    """Try networks; return `known` with them, and write `--out` after each."""
    found = dict(known)
    options.work.mkdir(parents=True, exist_ok=True)
    for (name,), outcomes in missing_entries({(name,): partial(surveyed, name, options) for name in names}, {(name,) for name in found}):
        found[name] = outcomes
        write_json(options.out, {**described(options), "networks": found})
    return found


def surveyed(name: str, options: Options) -> Entry:
    """Try one network; return its outcomes by format."""
    failures, outcomes = exported(name, options.work), {}
    for form in FORMATS:
        file, lost = options.work / f"{name}.{form}", failures.get(form)
        outcome = SurveyOutcome(message=f"PyTorch: {lost}") if lost else tried(file, options.device, options.trials, options.threads)
        outcomes[form] = asdict(outcome)
    return outcomes


def described(options: Options) -> dict[str, Any]:
    """Return the options that the figures depend on."""
    return {"device": options.device, "trials": options.trials, "threads": options.threads}


def ratios(benchmarks: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return our C library's latency over the fastest other library's by network, from the entries of `bench_peers`' JSON file."""
    ours = (entry for entry in benchmarks if entry["system"] == "ours-c")
    return {entry["model"].removeprefix(OWN): entry["ratio_to_best_peer"] for entry in ours if entry["ratio_to_best_peer"] is not None}


def table(networks: Mapping[str, Mapping[str, Mapping[str, Any]]], compared: Mapping[str, float] | None = None) -> str:
    """Return the outcomes as a Markdown table in the order of `NETWORKS`; with ratios in a column and summarised below, if given."""
    rows = []
    for name, surveyed in NETWORKS.items():
        if name not in networks:
            continue
        outcomes = [networks[name][form] for form in FORMATS]
        good = next((one for one in outcomes if not one["message"]), None)
        cells = [f"{good['macs'] / 1e6:.0f}", f"{good['latency_ms']:.2f}", f"{good['fallback']:.1%}"] if good else ["", "", ""]
        shape = "×".join(map(str, surveyed.shape[1:]))
        ratio = [f"{compared[name]:.2f}" if name in compared else ""] if compared is not None else []
        rows.append((name, surveyed.source, surveyed.kind, shape, *map(answer, outcomes), *cells, *ratio))
    headings = ["network", "from", "for", "input", ".pt2", "ONNX", "multiply-adds, M", "modelled ms", "fallback"]
    headings += ["÷ best other"] if compared is not None else []
    return "\n".join([*markdown_table(headings, rows, 6), *_in_all(compared or {})])


def _in_all(compared: Mapping[str, float]) -> list[str]:
    """Summarise the ratios in a paragraph; nothing without any."""
    if not compared:
        return []
    last = max(compared, key=lambda name: compared[name])
    median = statistics.median(compared.values())
    return ["", f"{len(compared)} networks are compared: the median is {median:.2f}, the largest ratio {compared[last]:.2f} ({last})."]


def answer(outcome: Mapping[str, Any]) -> str:
    """Return a table's words for an outcome: its error, or the failure."""
    return str(outcome["message"]).replace("|", "\\|") or f"{outcome['error']:.0e}"


@study(*tuning_options("NETWORK", "out/survey"))
def main(options: Options) -> None:
    """Try the networks, print the table and write the file."""
    if unknown := [name for name in options.names if name not in NETWORKS]:
        raise UserError(f"there is no network {unknown[0]} in the survey.", f"Known: {', '.join(NETWORKS)}.")
    known: Mapping[str, Any] = {}
    if options.out and options.out.is_file():
        earlier = json.loads(options.out.read_text(encoding="utf-8"))
        if any(earlier[key] != value for key, value in described(options).items()):
            raise UserError(f"{options.out} was made with other options.", "Give those it was made with, or another file.")
        known = earlier["networks"]
    print(table(survey(options.names or NETWORKS, options, known)))
