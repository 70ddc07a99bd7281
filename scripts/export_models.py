"""Writes a network of tvmmobile's in the formats of ncnn, MNN, LiteRT and ONNX Runtime, all with the same weights.

    ./scripts/export_models --alpha 0.25 --resolution 128 DIR

DIR then holds model.ncnn.param with model.ncnn.bin, model.mnn, model.tflite and model.onnx, and image.npy and logits.npy: an input,
and what PyTorch makes of it. The programs of examples/virtual-run run the models and compare with these.

The converters are kept in the cache (once, about a minute and 800 MB).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sharing import progress, telling

from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.models.weights import single_thread
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.errors import ExitCode, UserError
from tvmmobile.system.files import made_once, replacing
from tvmmobile.system.programs import run_tool

if TYPE_CHECKING:
    import torch

SCRIPTS = Path(__file__).resolve().parent
REQUIREMENTS = SCRIPTS / "converters.lock"
INSTALL_TIMEOUT_S = 1800


def export(spec: ModelSpec, folder: Path, seed: int = 0, say: Callable[[str], None] = print) -> None:
    """Write a variant, with the weights that `tvmmobile` gives it, in all four formats.

    Args:
        spec: the variant.
        folder: where to; made if it is missing, files in it replaced.
        seed: of the weights and the image.
        say: called with a sentence about each thing to wait for.
    """
    import torch

    packages = converters(say)
    folder.mkdir(parents=True, exist_ok=True)
    module = build_torch_model(spec, seed=seed).module
    shape = (1, 3, spec.resolution, spec.resolution)
    # Uniform with unit variance, as normalised photographs have.
    image = np.random.default_rng(seed).uniform(-(3**0.5), 3**0.5, shape).astype(np.float32)
    with torch.no_grad(), single_thread():
        logits = module(torch.from_numpy(image)).numpy()
    with tempfile.TemporaryDirectory(prefix="tvmmobile-export-") as scratch:
        made = Path(scratch)
        np.save(made / "image.npy", image)
        np.save(made / "logits.npy", logits)
        for step in (_to_onnx, _to_ncnn, _to_mnn, _to_litert):
            say(step.__doc__ or "")
            step(module, spec.resolution, made, packages)
        for name in ("image.npy", "logits.npy", "model.onnx", "model.ncnn.param", "model.ncnn.bin", "model.mnn", "model.tflite"):
            with replacing(folder / name) as temporary:
                temporary.write_bytes((made / name).read_bytes())


def converters(say: Callable[[str], None] = print) -> Path:
    """The folder in the cache with the packages of converters.lock, installed if they are not there yet."""
    recipe = f"{sys.version_info[:2]} {REQUIREMENTS.read_text(encoding='utf-8')}"
    name = f"converters-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    return installed(name, ["--require-hashes", "-r", str(REQUIREMENTS)], "converters", say)


def installed(name: str, packages: Sequence[str], what: str, say: Callable[[str], None]) -> Path:
    """The folder of that name in the cache with these packages, as pip takes them; installed if they are not there yet."""
    folder = cache_dir() / name
    with made_once(folder) as made:
        if made is not None:
            say(f"Installing {what} in the cache (once, about a minute) …")
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps"]
            command = [*pip, "--only-binary=:all:", "--target", str(made), *packages]
            run_tool(command, f"Installing {what}", "Check that pip reaches a package index.", INSTALL_TIMEOUT_S)
    return folder


def _to_onnx(module: torch.nn.Module, side: int, made: Path, _packages: Path) -> None:
    """ONNX, by PyTorch …"""
    import torch

    with warnings.catch_warnings():
        # The newer exporter needs packages more, and makes ReduceMean of the pooling, which is less than ONNX Runtime can do.
        warnings.simplefilter("ignore", DeprecationWarning)
        image = torch.zeros(1, 3, side, side)
        names = {"input_names": ["image"], "output_names": ["logits"]}
        torch.onnx.export(module, (image,), str(made / "model.onnx"), dynamo=False, opset_version=17, **names)


def _to_ncnn(module: torch.nn.Module, side: int, made: Path, packages: Path) -> None:
    """ncnn, by its pnnx …"""
    import torch

    torch.jit.trace(module, torch.zeros(1, 3, side, side)).save(str(made / "model.pt"))
    pnnx = packages / "pnnx/pnnx"
    run_tool([str(pnnx), str(made / "model.pt"), f"inputshape=[1,3,{side},{side}]", "fp16=0"], "pnnx", "Run it by hand to see more.")


def _to_mnn(_module: torch.nn.Module, _side: int, made: Path, packages: Path) -> None:
    """MNN, by its converter …"""
    _convert(packages, "mnn", str(made / "model.onnx"), str(made / "model.mnn"))


def _to_litert(module: torch.nn.Module, side: int, made: Path, packages: Path) -> None:
    """LiteRT, by litert-torch …"""
    import torch

    torch.save(module, made / "module")
    _convert(packages, "litert", str(made / "module"), str(side), str(made / "model.tflite"))


def _convert(packages: Path, *arguments: str) -> None:
    command = [sys.executable, str(SCRIPTS / "convert_model.py"), str(packages), *arguments]
    run_tool(command, f"Converting for {arguments[0]}", "Run it by hand: scripts/convert_model.py says how.")
    if not Path(arguments[-1]).is_file():
        raise UserError(f"The converter for {arguments[0]} wrote nothing.", "Run it by hand: scripts/convert_model.py says how.")


@telling
def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the models are written")
    parser.add_argument("--model", default="mobilenet_v1", metavar="NAME", help="default: mobilenet_v1")
    parser.add_argument("--alpha", type=float, default=1.0, metavar="α", help="width multiplier (default: 1)")
    parser.add_argument("--resolution", type=int, default=224, metavar="SIDE", help="input side in pixels (default: 224)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and image (default: 0)")
    given = parser.parse_args()
    export(ModelSpec(given.model, given.alpha, given.resolution), given.folder, given.seed, progress)
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
