"""Options of a run: the folders of its files and records, and its workers."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.pipeline.options.library import LibraryArguments
from tvmmobile.pipeline.options.option import HelpOrder, Options, option
from tvmmobile.system.scratch import scratch_folder

_FOLDER = {"file_okay": False}


def path_or_none(given: str | Path | None) -> Path | None:
    """Return the path, where one is given."""
    return None if given is None else Path(given)


@dataclass(frozen=True)
class RunOptions(Options):
    """Options of a run."""

    out: Path | None = option(
        None,
        "-o, --out DIR",
        "Output directory.",
        order=HelpOrder.OUT,
        cli_type=Path,
        cli_default=Path("out"),
        typer_settings=_FOLDER,
        parse=path_or_none,
        api_doc="Where libraries go, each with its manifest and reference; default: a folder that lasts as long as this process.",
    )
    logs: Path | None = option(
        None,
        "--logs DIR",
        "Read and write tuning logs only in DIR; default: read the shipped logs and your own.",
        order=HelpOrder.LOGS,
        typer_settings=_FOLDER,
        parse=path_or_none,
    )
    dask: str | None = option(
        None,
        "--dask ADDRESS",
        "Run jobs on the Dask cluster with this scheduler, tls://HOST:PORT; jobs for a registered board still run here.",
        order=HelpOrder.RUN,
    )
    dump_ir: Path | None = option(
        None, "--dump-ir DIR", "Write the Relax module after each graph pass to DIR.", typer_settings=_FOLDER, parse=path_or_none
    )

    def folder(self) -> Path:
        """Return the folder for libraries: a new one where none was named."""
        return scratch_folder("libraries") if self.out is None else self.out


class RunArguments(LibraryArguments, total=False):
    """For type checkers: the keywords of calls that take `LibraryOptions` and `RunOptions`; a test holds them equal."""

    out: str | Path | None
    logs: str | Path | None
    dask: str | None
    dump_ir: str | Path | None


@dataclass(frozen=True)
class CompileOptions(RunOptions):
    """Options of a run of `compile`."""

    check: bool = option(
        True,
        "--no-check",
        "Do not run the libraries once under QEMU and compare their outputs.",
        order=HelpOrder.FILES,
        cli_default=False,
        from_cli=operator.not_,
        api_doc="Run each library once under QEMU and compare its output before it is written to `out`; manifests say whether it was.",
    )
    share_weights: float = option(
        0.5,
        "--share-weights PERCENT",
        "With several devices: choose kernels up to this much slower, so that they use each other's weights; 0: the fastest.",
        typer_settings={"min": 0.0, "max": 100.0},
    )


class CompileArguments(RunArguments, total=False):
    """For type checkers: the keywords of calls that take `LibraryOptions` and `CompileOptions`; a test holds them equal."""

    check: bool
    share_weights: float
