"""`tvmmobile device validate`: a real board beside its model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmmobile.cli.options import DeviceName, Pin

if TYPE_CHECKING:
    from rich.console import Console

    from tvmmobile.pipeline.validation.refit import Refit
    from tvmmobile.results.validation import Validation

#: Number of terms named for a point, largest first.
_TERMS_NAMED = 2
#: A parameter is badly determined if leaving out one point moves it by more than this share of its bound.
_WIDE = 0.1


def validate(
    name: DeviceName,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE", dir_okay=False, help="File to write, small enough to share; default: out/validation-NAME.json."
        ),
    ] = None,
    board: Annotated[
        str | None,
        typer.Option("--board", metavar="NAME", help="Virtual board, or a board's file, to compare with; default: the same board or core."),
    ] = None,
    refit: Annotated[
        Path | None,
        typer.Option("--refit", metavar="FILE.toml", dir_okay=False, help="Fit the model's parameters and write a virtual board's file."),
    ] = None,
    share: Annotated[
        Path | None,
        typer.Option(
            "--share", metavar="FILE", dir_okay=False, help="Write a second file, for strangers: without names, serial numbers and paths."
        ),
    ] = None,
    pin: Pin = False,
) -> None:
    """Measure a fixed suite on a real board, and compare it with the board's model.

    Prints both for each kernel and network, their rank correlation, and the term of the model that explains most of the difference. Run it
    again to continue after an interruption.
    """
    from tvmmobile.cli.progress import Shown
    from tvmmobile.pipeline.validation.validate import validate_device
    from tvmmobile.system.console import output

    file = out or Path("out") / f"validation-{name}.json"
    done = validate_device(name, file, board=board, refit=refit, share=share, pin=pin, listener=Shown())
    console = output()
    _print(console, done.validation)
    if done.refit is not None:
        _print_refit(console, done.refit)
    written = [file, *([share] if share else []), *([done.refit.path] if done.refit else [])]
    console.print(f"Written: {', '.join(map(str, written))}", soft_wrap=True)


def _print(console: Console, validation: Validation) -> None:
    from tvmmobile.results.report.wording import latency_ms, plural, signed
    from tvmmobile.system.console import table_of
    from tvmmobile.virtual.calibration.fit import mean_error, worst_error
    from tvmmobile.virtual.calibration.residuals import erring

    kind = validation.measured.kind
    table = table_of(("kernel or network", "modelled time"), (f"{kind}\nms", "modelled\nms", "off\n"))
    for point in validation.points:
        largest = sorted(point.term_ms.items(), key=lambda term: -term[1])[:_TERMS_NAMED]
        terms = ", ".join(f"{name} {ms / point.modelled_ms:.0%}" for name, ms in largest if ms > 0)
        mark = " (not valid)" if point.invalid else "" if point.steady else " (unsteady)"
        times = latency_ms(point.measured_ms * 1e3), latency_ms(point.modelled_ms * 1e3)
        table.add_row(point.name + mark, terms, *times, signed(point.error))
    console.print(table)
    for reason in dict.fromkeys(point.invalid for point in validation.points if point.invalid):
        console.print(f"not valid: {reason}", soft_wrap=True)
    for what, ranks in (("kernel", validation.kernel_ranks), ("network", validation.network_ranks)):
        errors = [point.error for point in validation.valid(what)]
        if errors:
            ranked = "too few for a rank correlation" if ranks is None else f"rank correlation {ranks:.2f}"
            console.print(
                f"{plural(len(errors), what)}: {ranked}, {mean_error(errors):.1%} off on average, {worst_error(errors):.1%} at worst"
            )
    for term in validation.terms:
        console.print(f"  {term.name} × {term.alone:.3g} instead of {term.value:.3g} explains {term.explained:.0%} of the difference")
    errs = erring(validation.terms, [point.error for point in validation.valid()])
    console.print(f"The term that errs: {errs.name}" if errs else "No term stands out.")


def _print_refit(console: Console, refit: Refit) -> None:
    from tvmmobile.system.console import table_of
    from tvmmobile.virtual.calibration.fit import mean_error, worst_error

    table = table_of(("parameter", "note"), ("before", "fitted", "one left out"))
    for row in refit.parameters:
        wide = row.high - row.low > _WIDE * row.fitted.high
        note = row.fitted.note or ("badly determined" if wide else "")
        table.add_row(row.fitted.name, note, f"{row.before:.3f}", f"{row.fitted.value:.3f}", f"{row.low:.3f} to {row.high:.3f}")
    console.print(table)
    for when, errors in (("before", refit.before), ("fitted", refit.after), ("each left out of its fit", refit.left_out)):
        console.print(f"{when}: {mean_error(errors):.1%} off on average, {worst_error(errors):.1%} at worst")
    console.print(f"Use it: tvmmobile tune --device {shlex.quote(str(refit.path))}", soft_wrap=True)
