"""How a run goes: where its files and records are, and who works."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tvmmobile.pipeline.options.option import Options, Place, option
from tvmmobile.system.scratch import scratch_folder


def path_or_none(given: str | Path | None) -> Path | None:
    """The path, where one is given."""
    return None if given is None else Path(given)


@dataclass(frozen=True)
class RunOptions(Options):
    """How a run goes."""

    out: Path | None = option(
        None,
        Place.OUT,
        "-o",
        "--out",
        kind=Path,
        typed=Path("out"),
        read=path_or_none,
        metavar="DIR",
        file_okay=False,
        help="Output directory.",
        about="Where libraries go, each with its manifest and reference; default: a folder that lasts as long as this process.",
    )
    logs: Path | None = option(
        None,
        Place.LOGS,
        "--logs",
        read=path_or_none,
        metavar="DIR",
        file_okay=False,
        help="Read and write tuning logs only in DIR; default: read the shipped logs and your own.",
    )
    dask: str | None = option(
        None,
        Place.RUN,
        "--dask",
        metavar="ADDRESS",
        help="Run jobs on the Dask cluster with this scheduler, tls://HOST:PORT; jobs for a registered board still run here.",
    )
    dump_ir: Path | None = option(
        None,
        Place.RUN,
        "--dump-ir",
        read=path_or_none,
        metavar="DIR",
        file_okay=False,
        help="Write the Relax module after each graph pass to DIR.",
    )

    @property
    def unchecked(self) -> str:
        """Why libraries are not run once they are made; "" to run them."""
        return "no check was asked for"

    def folder(self) -> Path:
        """Where libraries go; a new folder where none was named."""
        return scratch_folder("libraries") if self.out is None else self.out


@dataclass(frozen=True)
class CompileOptions(RunOptions):
    """How a run of `compile` goes."""

    check: bool = option(
        True,
        Place.FILES,
        "--no-check",
        typed=False,
        join=operator.not_,
        help="Do not run the libraries once under QEMU and compare their outputs.",
        about="Run each library once under QEMU and compare its output before it is written to `out`; manifests say whether it was.",
    )

    @property
    def unchecked(self) -> str:
        return "" if self.check else "--no-check"


class RunArguments(TypedDict, total=False):
    """The keywords of `RunOptions` in calls."""

    out: str | Path | None
    logs: str | Path | None
    dask: str | None
    dump_ir: str | Path | None


class CheckArguments(TypedDict, total=False):
    """Those that `CompileOptions` adds."""

    check: bool
