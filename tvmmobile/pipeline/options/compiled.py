"""Options for compiled libraries: how they are timed, compared, evaluated and deployed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tvmmobile.gate import DEFAULT_THRESHOLD
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.pipeline.options.option import HelpOrder, Options, option, option_of
from tvmmobile.pipeline.options.run import RunOptions, path_or_none


@dataclass(frozen=True)
class TimingOptions(Options):
    """Options of timing."""

    repeat: int = option(
        30, "--repeat N", "Timed runs on a board; a modelled latency takes one.", order=HelpOrder.NUMBERS, typer_settings={"min": 1}
    )
    warmup_runs: int = option(5, "--warmup-runs N", "Untimed runs first.", typer_settings={"min": 0})


class TimingArguments(TypedDict, total=False):
    """For type checkers: the keywords of calls that take `TimingOptions`; a test holds them equal."""

    repeat: int
    warmup_runs: int


@dataclass(frozen=True)
class BenchOptions(TimingOptions):
    """Options of `bench`."""

    dask: str | None = option_of(RunOptions, "dask")


class BenchArguments(TimingArguments, total=False):
    """For type checkers: the keywords of calls that take `BenchOptions`; a test holds them equal."""

    dask: str | None


@dataclass(frozen=True)
class ComparisonOptions(Options):
    """Options of a comparison."""

    threshold: float = option(
        DEFAULT_THRESHOLD,
        "--threshold PERCENT",
        "Smallest change that counts, in percent; modelled results need no other evidence.",
        cli_default=100 * DEFAULT_THRESHOLD,
        typer_settings={"min": 0},
        from_cli=lambda percent: percent / 100,
        api_doc="Smallest change that counts, as a fraction; modelled results need no other evidence.",
    )


class RegressArguments(TimingArguments, total=False):
    """For type checkers: the keywords of calls that take `ComparisonOptions` and `TimingOptions`; a test holds them equal."""

    threshold: float


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """Options of `evaluate`."""

    limit: int | None = option(
        None, "--limit N", "Evaluate at most N images, evenly spaced over the sorted list; default: all.", typer_settings={"min": 1}
    )
    out: Path | None = option_of(
        RunOptions, "out", order=HelpOrder.NETWORK, api_doc="Where to write the evaluation; after Ctrl-C, the finished part."
    )
    model: str | None = option(None, "--model FILE", "Network file that was compiled; required if there was one.")
    checkpoint: Path | None = option(
        None, "--checkpoint FILE", "State dict that was compiled; required if there was one.", parse=path_or_none
    )
    labels: Path | None = option(None, "--labels FILE", "Class names, one per line.", parse=path_or_none)
    preprocessing: Preprocessing | None = option(None, api_doc="Preprocessing of images; without it, timm's for mobilenetv1_100.")


class EvaluateArguments(TypedDict, total=False):
    """For type checkers: the keywords of calls that take `EvaluateOptions`; a test holds them equal."""

    limit: int | None
    out: str | Path | None
    model: str | None
    checkpoint: str | Path | None
    labels: str | Path | None
    preprocessing: Preprocessing | None


@dataclass(frozen=True)
class DeployOptions(Options):
    """Options of `deploy`."""

    to: str | None = option(None, "--to DIR", "Target directory on the board; default: one removed together with the device.")
    verify: bool = option(False, "--verify", "Run each library on every board, and compare with its reference.")


class DeployArguments(TypedDict, total=False):
    """For type checkers: the keywords of calls that take `DeployOptions`; a test holds them equal."""

    to: str | None
    verify: bool
