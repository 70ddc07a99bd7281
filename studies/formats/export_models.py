"""Writes a network of tvmmobile's in the formats of ncnn, MNN, LiteRT and ONNX Runtime, all with the same weights.

    ./studies/run export_models --alpha 0.25 --resolution 128 DIR

DIR then holds model.ncnn.param with model.ncnn.bin, model.mnn, model.tflite and model.onnx, and image.npy and logits.npy: an input,
and what PyTorch makes of it. The programs of examples/virtual-run run the models and compare with these.

The converters are kept in the cache (once, about a minute and 800 MB).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from studies.harness import Options, option, study
from studies.packages import locked_packages
from tvmmobile.networks.images import noise_input
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.models.weights import single_thread
from tvmmobile.system.entry_points import progress
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import replacing
from tvmmobile.system.programs import run_tool

if TYPE_CHECKING:
    import torch

HERE = Path(__file__).resolve().parent
#: What decides what a network looks like in other formats.
PROGRAMS = tuple(HERE / name for name in ("export_models.py", "convert_model.py", "converters.txt"))


@dataclass(frozen=True)
class Source:
    """A network to convert.

    Attributes:
        shape: shape of its input, batch first.
        module: the network in PyTorch; `None` for a network that is ONNX.
        file: the exported program (`.pt2`) that `module` is from, or the ONNX file.
    """

    shape: tuple[int, ...]
    module: torch.nn.Module | None = None
    file: Path | None = None

    @classmethod
    def of(cls, file: Path, shape: tuple[int, ...]) -> Source:
        """Return the network in a file, `.pt2` or `.onnx`."""
        import torch

        if file.suffix != ".pt2":
            return cls(shape, file=file)
        module = torch.export.load(file).module()
        module.train = lambda *_: module  # an exported program refuses to be told its mode, which is in the graph
        return cls(shape, module, file)


def export(
    spec: ModelSpec,
    folder: Path,
    seed: int = 0,
    say: Callable[[str], None] = print,
    checkpoint: Path | None = None,
    image: npt.NDArray[np.float32] | None = None,
) -> None:
    """Write a variant, with the weights that `tvmmobile` gives it, in all four formats.

    Args:
        spec: the variant.
        folder: folder for the files; made if it is missing, files in it replaced.
        seed: seed of generated weights, and of an image of noise.
        say: called with a sentence about each thing to wait for.
        checkpoint: state dict with the weights; `None` for generated ones.
        image: the input, `[1, 3, side, side]`; `None` for noise.
    """
    import torch

    packages = converters()
    folder.mkdir(parents=True, exist_ok=True)
    module = build_torch_model(spec, checkpoint, seed).module
    source = Source((1, 3, spec.resolution, spec.resolution), module)
    image = noise_input(seed, source.shape) if image is None else image
    with torch.no_grad(), single_thread():
        logits = module(torch.from_numpy(image)).numpy()
    with tempfile.TemporaryDirectory(prefix="tvmmobile-export-") as scratch:
        made = Path(scratch)
        np.save(made / "image.npy", image)
        np.save(made / "logits.npy", logits)
        for step in STEPS.values():
            say(step.__doc__ or "")
            step(source, made, packages)
        for name in ("image.npy", "logits.npy", "model.ncnn.bin", *STEPS):
            with replacing(folder / name) as temporary:
                temporary.write_bytes((made / name).read_bytes())


def convert(source: Source, name: str, made: Path) -> None:
    """Write one of `STEPS` into `made`, ncnn's weights with its text; raise `UserError` if a converter does not take the network."""
    with tempfile.TemporaryDirectory(prefix="tvmmobile-export-") as scratch:
        place, packages = Path(scratch), converters()
        if name == "model.mnn":
            _to_onnx(source, place, packages)
        STEPS[name](source, place, packages)
        for file in (name, *(["model.ncnn.bin"] if name == "model.ncnn.param" else [])):
            if not (place / file).is_file():
                raise UserError(f"the converter wrote no {file}.", "Leave its library out with --only.")
            shutil.copy(place / file, made / file)


def converters() -> Path:
    """Return the folder in the cache with the packages of converters.lock, installed if they are not there yet."""
    return locked_packages(HERE / "converters.lock", "converters")


def _to_onnx(source: Source, made: Path, _packages: Path) -> None:
    """ONNX, by PyTorch …"""
    import torch

    if source.module is None and source.file is not None:
        shutil.copy(source.file, made / "model.onnx")
        return
    with warnings.catch_warnings():
        # The newer exporter needs packages more, and makes ReduceMean of the pooling, which is less than ONNX Runtime can do.
        warnings.simplefilter("ignore")
        names = {"input_names": ["image"], "output_names": ["logits"]}
        image = torch.zeros(source.shape)
        torch.onnx.export(source.module, (image,), str(made / "model.onnx"), dynamo=False, opset_version=17, **names)


def _to_ncnn(source: Source, made: Path, packages: Path) -> None:
    """ncnn, by its pnnx …"""
    import torch

    if source.module is None and source.file is not None:
        model = made / "model.onnx"
        shutil.copy(source.file, model)
    else:
        model = made / "model.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an exported program checks its input's shape
            torch.jit.trace(source.module, torch.zeros(source.shape)).save(str(model))
    shape = ",".join(map(str, source.shape))
    run_tool([str(packages / "pnnx/pnnx"), str(model), f"inputshape=[{shape}]", "fp16=0"], "pnnx", "Run it by hand to see more.")


def _to_mnn(_source: Source, made: Path, packages: Path) -> None:
    """MNN, by its converter, from ONNX …"""
    _convert(packages, "mnn", str(made / "model.onnx"), str(made / "model.mnn"))


def _to_litert(source: Source, made: Path, packages: Path) -> None:
    """LiteRT, by litert-torch …"""
    import torch

    if source.module is None:
        raise UserError("LiteRT's converter takes networks of PyTorch alone.", "Give the network as .pt2, or leave litert out with --only.")
    module = source.file or made / "module"
    if source.file is None:
        torch.save(source.module, module)
    _convert(packages, "litert", str(module), ",".join(map(str, source.shape)), str(made / "model.tflite"))


def _convert(packages: Path, *arguments: str) -> None:
    command = [sys.executable, str(HERE / "convert_model.py"), str(packages), *arguments]
    run_tool(command, f"Converting for {arguments[0]}", "Run it by hand: studies/formats/convert_model.py says how.")
    if not Path(arguments[-1]).is_file():
        raise UserError(f"the converter for {arguments[0]} wrote nothing.", "Run it by hand: studies/formats/convert_model.py says how.")


#: The formats, in the order in which they are made: MNN's is made from ONNX.
STEPS: Mapping[str, Callable[[Source, Path, Path], None]] = {
    "model.onnx": _to_onnx,
    "model.ncnn.param": _to_ncnn,
    "model.mnn": _to_mnn,
    "model.tflite": _to_litert,
}


@study(
    option("folder", None, "where the models are written", type=Path, metavar="DIR"),
    option("--model", "mobilenet_v1", metavar="NAME"),
    option("--alpha", 1.0, "width multiplier", metavar="α"),
    option("--resolution", 224, "input side in pixels", metavar="SIDE"),
    option("--seed", 0, "of weights and image", metavar="N"),
)
def main(options: Options) -> None:
    """Write the models."""
    export(ModelSpec(options.model, options.alpha, options.resolution), options.folder, options.seed, progress)
