"""`tvmmobile run`: a compiled library on a device, with the user's input."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmmobile.cli.generated import word_of
from tvmmobile.cli.images import Labels, LibraryFile, Mean, NoResize, Std, preprocessing_for, the_library
from tvmmobile.cli.options import Device, Json, RequireHardware
from tvmmobile.pipeline.options.compiled import TimingOptions

if TYPE_CHECKING:
    from tvmmobile.accuracy.classes import Ranked
    from tvmmobile.networks.preprocessing import Preprocessing
    from tvmmobile.pipeline.run import Given, LibraryRun
    from tvmmobile.running.library import Library


def run(
    library: LibraryFile,
    input_file: Annotated[
        Path, typer.Argument(metavar="INPUT", help="Image, or .npy: float32 NCHW or uint8 HWC; .npz for several inputs.")
    ],
    device: Device = "pi4",
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="Number of classes to print.")] = 5,
    labels: Labels = None,
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE.npy", help="Save the output; .npz for several.")] = None,
    save_input: Annotated[
        Path | None, typer.Option("--save-input", metavar="FILE.f32", help="Save the network's input as raw float32, NCHW.")
    ] = None,
    mean: Mean = None,
    std: Std = None,
    no_resize: NoResize = False,
    repeat: Annotated[int, word_of(TimingOptions, "repeat")] = TimingOptions.repeat,
    require_hardware: RequireHardware = False,
    json: Json = False,
) -> None:
    """Run a library on a device with your own image.

    Prints the most likely classes and the latency. Images are scaled, cropped and normalised as timm does for mobilenetv1_100; the output
    says how.
    """
    from tvmmobile.accuracy.classes import most_likely, read_labels
    from tvmmobile.devices.registry import find_device
    from tvmmobile.pipeline.run import run as run_library

    board = find_device(device, require_hardware)
    found = the_library(library, board.profile)
    preprocessing = preprocessing_for(found, mean, std, no_resize)
    names = read_labels(labels, found.spec.classes) if labels else None
    _check_files(found, output, save_input)
    given, origin = _read(found, input_file, preprocessing, save_input)
    done = run_library(found, given, board, repeat=repeat)
    returns = found.spec.returns
    # Only a vector of classes is ranked.
    scores = len(returns) == 1 and returns[0].is_float and done.output.ndim == 2 and done.output.shape[0] == 1
    if output is not None:
        _save(output, found, done)
    _note_if_not_finite(found, done, output)
    ranked = most_likely(done.output, min(top, found.spec.classes), names) if scores else []
    report = _report(found, origin, done, ranked, output)
    _print_json(report) if json else _print(report)


def _takes_image(library: Library) -> bool:
    takes = library.spec.takes
    return len(takes) == 1 and takes[0].is_float


def _check_files(library: Library, output: Path | None, save_input: Path | None) -> None:
    """Raise `UserError` for files that cannot hold the library's outputs and input, or cannot be written."""
    from tvmmobile.system.errors import UserError
    from tvmmobile.system.files import check_file_writable

    suffix = ".npy" if len(library.spec.returns) == 1 else ".npz"
    if output is not None and output.suffix != suffix:
        raise UserError(f"--output {output} does not end in {suffix}.", "Outputs are saved as NumPy saves arrays.")
    if save_input is not None and not _takes_image(library):
        takes = ", ".join(map(str, library.spec.takes))
        raise UserError("--save-input writes one input of float32.", f"The library takes {takes}.")
    for option, file in (("--output", output), ("--save-input", save_input)):
        if file is not None:
            check_file_writable(file, option)


def _read(library: Library, input_file: Path, preprocessing: Preprocessing, save_input: Path | None) -> tuple[Given, str]:
    """Read the library's inputs and their origin; save a single input if that is requested."""
    from tvmmobile.networks.images import read_arrays, read_input
    from tvmmobile.system.files import write_bytes

    if not _takes_image(library):
        arrays = read_arrays(input_file, library.spec.takes)
        return arrays.arrays, arrays.origin
    image = read_input(input_file, preprocessing)
    if save_input is not None:
        write_bytes(save_input, image.array.astype("<f4").tobytes())
    return image.array, image.origin


def _save(path: Path, library: Library, done: LibraryRun) -> None:
    import numpy as np

    from tvmmobile.system.files import replacing

    names = [port.name for port in library.spec.returns]
    arrays: dict[str, Any] = dict(zip(names, done.network.outputs, strict=True))
    with replacing(path) as temporary, temporary.open("wb") as stream:
        if len(names) == 1:
            np.save(stream, done.output)
        else:
            np.savez(stream, **arrays)


def _note_if_not_finite(library: Library, done: LibraryRun, output: Path | None) -> None:
    import numpy as np

    ports = zip(library.spec.returns, done.network.outputs, strict=True)
    if names := [port.name for port, array in ports if port.is_float and not np.isfinite(array).all()]:
        written = f" They are in {output} all the same." if output is not None else ""
        typer.echo(f"note: the network's {', '.join(names)} holds values that are not finite.{written}", err=True)


def _report(library: Library, origin: str, done: LibraryRun, ranked: list[Ranked], output: Path | None) -> dict[str, Any]:
    """Return everything that is printed; times in milliseconds, `None` where nothing is known."""
    from dataclasses import asdict

    profile, startup = done.profile, done.startup
    return {
        "library": str(library.path),
        "input": origin,
        "device": profile.name,
        "board": profile.board,
        "threads": library.threads,
        "top": [asdict(entry) for entry in ranked],
        "kind": profile.origin.kind,
        "init_ms": None if startup is None else startup.init_seconds * 1e3,
        "first_run_ms": None if startup is None else startup.first_seconds * 1e3,
        "latency_ms": done.latency_ms,
        "samples_ms": [sample / 1e6 for sample in done.network.latency.samples_ns],
        "peak_memory_bytes": done.network.peak_memory_bytes,
        "output": None if output is None else str(output),
    }


def _print_json(report: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(report, indent=1))


def _print(report: dict[str, Any]) -> None:
    from tvmmobile.results.report.wording import clean, plural
    from tvmmobile.system.console import output, table_of

    named = any(entry["label"] for entry in report["top"])
    table = table_of(("class", "label"), ("probability",)) if named else table_of(("class",), ("probability",))
    for entry in report["top"]:
        share = f"{100 * entry['probability']:.2f} %"
        table.add_row(str(entry["index"]), *([clean(entry["label"])] if named else []), share)
    console = output()
    console.print(f"input: {clean(report['input'])}", soft_wrap=True)
    console.print(table if report["top"] else "The output is not a vector of classes; save it with --output FILE.")
    for line in _timing_lines(report):
        console.print(line, soft_wrap=True)
    threads = plural(report["threads"], "thread")
    console.print(f"{report['device']}: {report['board']}, {threads}", soft_wrap=True)
    if report["output"]:
        console.print(f"Written to {report['output']}", soft_wrap=True)


def _timing_lines(report: dict[str, Any]) -> list[str]:
    """Return each time with its origin in a word."""
    kind, memory = report["kind"], report["peak_memory_bytes"] / 2**20
    if kind == "modelled":
        return [
            f"latency {report['latency_ms']:.3f} ms modelled; init and first run are not modelled",
            f"peak memory {memory:.1f} MiB, with the code that the emulator translated",
        ]
    return [
        f"init {report['init_ms']:.1f} ms {kind} (library and virtual machine; the link's round trips included)",
        f"first run {report['first_run_ms']:.3f} ms {kind}",
        f"latency {report['latency_ms']:.3f} ms {kind} (median of {len(report['samples_ms'])})",
        f"peak memory {memory:.1f} MiB",
    ]
