"""Models that the systems run: a variant's network in every format, made once and kept in the cache."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from studies.digests import digest_of
from studies.formats import export_models, iree_compiler
from studies.harness import ROOT
from studies.peers.systems import System
from studies.trained import networks as trained
from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.graph.precision import FLOAT16, FLOAT32, INT8, Precision
from tvmmobile.networks.images import noise_input
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.own.files import SUFFIXES, OwnFile
from tvmmobile.networks.own.loading import files_of, load_own
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.pipeline.build import build
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.quantisation.data import CalibrationData, calibration_data
from tvmmobile.running.formats import VM
from tvmmobile.running.library import Library
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import made_once, write_text
from tvmmobile.system.programs import run_tool
from tvmmobile.virtual.board import Board

Say = Callable[[str], None]
_HALF_MODELS = ROOT / "studies/formats/half_models.py"
_INTEGER_MODELS = ROOT / "studies/formats/integer_models.py"
#: The name of a network from a file, without its suffix, in its folder.
_OWN = "own"
#: How many inputs of noise give integers their scales, ours and the others', where weights are generated.
CALIBRATION = 4
#: Where weights are trained: the inputs that give integers their scales, and how many pictures PyTorch gets right, in percent.
_INPUTS, _TOP1 = "inputs.npy", "top1.txt"
#: What decides a library, besides the tuning logs.
_COMPILER = (
    *(f"tvmmobile/{room}/**/*.py" for room in ("graph", "networks", "kernels", "tuning", "quantisation", "pipeline")),
    "schedules/**/*.py",
)
#: And a C library.
_NATIVE = ("tvmmobile/native/*", "tvmmobile/kernels/*.c")


def exported(model: Model, say: Say) -> Path:
    """Return the folder with a network in the peers' formats, an image and PyTorch's output for it; exported if it is not there yet.

    A network from a file is exported alone: `model_files` converts it to the requested formats, because some converters may reject it.
    """
    if model.own is not None:
        return _own(model.own, model.spec)
    spec = model.spec
    networks = sorted((ROOT / "tvmmobile/networks/models").glob("*.py"))
    weights = [] if model.checkpoint is None else [model.checkpoint]
    recipe = digest_of(
        [*export_models.PROGRAMS, *networks, *weights], trained.recipes_digest() * len(weights) + importlib.metadata.version("torch")
    )
    folder = cache_dir() / "peers" / f"{spec.variant}-{recipe}"
    with made_once(folder) as made:
        if made is not None:
            say(f"exporting {spec.variant} …")
            inputs = trained.calibration_inputs(spec.resolution) if weights else None
            image = None if inputs is None else inputs[:1]
            export_models.export(spec, made, say=lambda _step: None, checkpoint=model.checkpoint, image=image)
            if inputs is not None:
                np.save(made / _INPUTS, inputs)
                right = trained.top1(build_torch_model(spec, model.checkpoint).module, spec.resolution)
                write_text(made / _TOP1, f"{right}\n")
    return folder


def top1_of(models: Path) -> float:
    """Return the percentage of digits that an exported network with trained weights classifies correctly in PyTorch."""
    return float((models / _TOP1).read_text(encoding="utf-8"))


def check_comparable(model: Model, dtype: str) -> None:
    """Raise `UserError` for a network from a file that not all systems can be asked to run: they read one image, and noise gives
    scales to integers only where weights are generated, so inputs must be beside the file.
    """
    file, ports = model.own, (*model.spec.takes, *model.spec.returns)
    if file is None:
        return
    if file.path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{file} is Python, which the other libraries' converters do not take.", "Export it to a .pt2 file.")
    if len(ports) > 2 or not all(port.is_float for port in ports):
        there = "; ".join(map(str, ports))
        raise UserError(
            f"{file} does not take and return one tensor in {FLOAT32.name} each, but {there}: the other libraries are not run with it.",
            "Run it with tvmmobile bench.",
        )
    if dtype == INT8.name and not (inputs := inputs_beside(file)).is_file():
        raise UserError(
            f"{file} has weights of its own, which noise does not calibrate for --dtype {dtype}.",
            f"Put inputs of the network, float32 [N, {', '.join(map(str, model.spec.input_shape[1:]))}], into {inputs}.",
        )


def inputs_beside(file: OwnFile) -> Path:
    """Return the file that has the inputs which calibrate a network from a file: `net.npy` beside `net.pt2`."""
    return file.path.with_suffix(".npy")


def _own(file: OwnFile, spec: ModelSpec) -> Path:
    given = [inputs] if (inputs := inputs_beside(file)).is_file() else []
    folder = cache_dir() / "peers" / f"{spec.variant}-{digest_of([*files_of(file), *given], importlib.metadata.version('torch'))}"
    with made_once(folder) as made:
        if made is not None:
            image = np.array(np.load(inputs, mmap_mode="r")[:1]) if given else noise_input(0, spec.input_shape)
            for path in given:
                shutil.copy(path, made / _INPUTS)
            np.save(made / "image.npy", image)
            np.save(made / "logits.npy", load_own(file, spec.image_size, None, 0).compute((image,))[0])
            for path in files_of(file):
                shutil.copy(path, made / (f"{_OWN}{path.suffix.lower()}" if path == file.path else path.name))
    return folder


def compiled(
    model: Model, threads: int, profile: DeviceProfile, logs: Path, models: Path, say: Say, form: str = VM, precision: Precision = FLOAT32
) -> Library:
    """Compile our library of a variant in one of the `FORMS`, if it is not there yet; image and output of `models` lie beside it."""
    patterns = _COMPILER if form == VM else (*_COMPILER, *_NATIVE)
    sources = [path for pattern in patterns for path in sorted(ROOT.glob(pattern)) if path.is_file()]
    records = sorted((logs / profile.name).glob("*.jsonl"))
    recipe = digest_of([*sources, *records], f"{profile.origin.model} {sorted(profile.target.items())}")
    kind = f"{'' if form == VM else f'-{form}'}{'' if precision == FLOAT32 else f'-{precision.name}'}"
    folder, spec = models / f"{profile.name}-t{threads}{kind}-{recipe}", model.spec
    calibration = _calibration(model, models) if precision.is_integer else None
    job = variant_job(model, profile, (logs,), folder, LibraryOptions(threads, precision, format=form), calibration=calibration)
    with made_once(folder) as made:
        if made is not None:
            say(f"compiling {spec.variant} for {threads} threads …" if threads > 1 else f"compiling {spec.variant} …")
            build(replace(job, out=made))
            copy_image(models, made)
    return job.library


def model_files(system: System, board: Board, models: Path, library: Library | None) -> tuple[Path, ...]:
    """Return the files that a system runs, the one to name first.

    Raises:
        UserError: a converter does not take the network.
    """
    if library is not None:
        return (library.path,)
    own = next(iter(sorted(models.glob(f"{_OWN}.*"))), None)
    if own is not None:
        name = system.model[0].replace(".u8", "") if system.model else "model.onnx"
        models = _converted_own(models, own, name)
    if system.key == "iree":
        folder = models / f"iree-{board.mcpu}-{iree_compiler.digest(board)}"
        with made_once(folder) as made:
            if made is not None:
                iree_compiler.compile_onnx(models / "model.onnx", board, made / "model.vmfb")
                copy_image(models, made)
        return (folder / "model.vmfb",)
    if system.dtype == FLOAT16.name and system.name in ("litert", "onnxruntime"):
        return (_converted(models, system.model[0], "half", [_HALF_MODELS], [system.model[0]]),)
    if system.dtype == INT8.name:
        return _quantised(models, system)
    return tuple(models / name for name in system.model)


def _converted_own(models: Path, own: Path, name: str) -> Path:
    """Return the folder with a network from a file in another format, beside a copy of the image."""
    folder = models / f"{name}-{digest_of(export_models.PROGRAMS)}"
    with made_once(folder) as made:
        if made is not None:
            shape = tuple(np.load(models / "image.npy", mmap_mode="r").shape)
            export_models.convert(export_models.Source.of(own, shape), name, made)
            copy_image(models, made)
            if (inputs := models / _INPUTS).is_file():
                shutil.copy(inputs, made)
    return folder


def _quantised(models: Path, system: System) -> tuple[Path, ...]:
    """Return a model in integers, by the library's own quantiser as far as there is one."""
    name = system.model[0]
    inputs = models / _INPUTS
    if not inputs.is_file():
        folder = models / f"calibration-{CALIBRATION}"
        with made_once(folder) as made:
            if made is not None:
                shape = np.load(models / "image.npy", mmap_mode="r").shape
                np.save(made / _INPUTS, np.concatenate([noise_input(number, shape) for number in range(CALIBRATION)]))
        inputs = folder / _INPUTS
    recipe = [_INTEGER_MODELS, _INTEGER_MODELS.with_name("ncnn_models.py"), inputs]
    model = _converted(models, name, "int8", recipe, [name.replace(".u8", ""), str(inputs)])
    return (model, model.with_suffix(".bin")) if system.name == "ncnn" else (model,)


def _converted(models: Path, name: str, kind: str, recipe: list[Path], arguments: list[str]) -> Path:
    """Return a model made from another by the first program of `recipe`, beside a copy of the image."""
    folder = models / f"{kind}-{name}-{digest_of(recipe)}"
    with made_once(folder) as made:
        if made is not None:
            packages = export_models.converters()
            source, *more = arguments
            command = [sys.executable, str(recipe[0]), str(packages), str(models / source), *more, str(made / name)]
            run_tool(command, f"Converting {name} ({kind})", f"Run it by hand: {recipe[0].name} says how.")
            copy_image(models, made)
    return folder / name


def _calibration(model: Model, models: Path) -> CalibrationData:
    generated = model.own is None and model.checkpoint is None
    return calibration_data(f"noise:{CALIBRATION}" if generated else str(models / _INPUTS), Preprocessing(model.spec.resolution), generated)


def copy_image(models: Path, folder: Path) -> None:
    """Put a variant's image and PyTorch's output for it into `folder`: programs look for them beside the network."""
    for name in ("image.npy", "logits.npy"):
        shutil.copy(models / name, folder)
