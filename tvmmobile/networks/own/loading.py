"""Loads the networks that `--model` and its options name, ready for the compiler. Only what reads a file of that kind is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvmmobile.graph.bindings import bindings_of
from tvmmobile.graph.expressions import operator_of
from tvmmobile.networks.budget import check_elements, check_module
from tvmmobile.networks.frontend import FRAMEWORK_LOCK, Imported
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.own.files import OwnFile, RequestedShape, Side, height_and_width
from tvmmobile.system.errors import UserError
from tvmmobile.system.interrupts import insisted


def own_specs(
    file: OwnFile, sides: Sequence[Side], checkpoint: Path | None, seed: int, batch: int | None = None
) -> list[tuple[ModelSpec, bool]]:
    """Return the network's identity for each side, or for the file's own side, and whether it is quantised. It is loaded and imported here,
    to fail early.

    Raises:
        UserError: see `load_own`.
    """
    loaded = (load_own(file, side, checkpoint, seed, batch) for side in dict.fromkeys(sides) or (None,))
    return [(imported.spec, imported.scales is not None) for imported in loaded]


def load_own(file: OwnFile, side: Side | None, checkpoint: Path | None, seed: int, batch: int | None = None) -> Imported:
    """Return the network, imported, for a side and a batch if they are asked for; `checkpoint` and `seed` are for Python files.

    Raises:
        UserError: the file cannot be read, or the network cannot be compiled.
    """
    if side is not None and min(height_and_width(side)) < 1:
        raise UserError(f"resolution {side} is not positive.", "Give --resolution an input side in pixels, such as 224, or HxW.")
    if batch is not None and batch < 1:
        raise UserError(f"batch {batch} is not positive.", "Give --batch a number of images, such as 4.")
    check_elements("an input of this --resolution and --batch", (batch or 1, *height_and_width(side or 1)))
    for name, shape in file.shapes:
        check_elements(f"the --shape of {name}", shape)
    if file.values and file.path.suffix.lower() != ".onnx":
        raise UserError("--value is for ONNX files.", f"Have {file} compute with the number instead of an input.")
    with FRAMEWORK_LOCK, insisted():  # torch.export has weak references with callbacks
        imported = _imported(file, RequestedShape(side, batch), checkpoint, seed)
    if not imported.macs or not imported.parameters:
        raise UserError(f"{file} has no convolution or matrix product with weights.", "Give a network that has one.")
    check_module(str(file), imported.module, imported.macs)
    _check_divisors(file, imported.module)
    return imported


def _imported(file: OwnFile, wanted: RequestedShape, checkpoint: Path | None, seed: int) -> Imported:
    if file.factory:
        from tvmmobile.networks.own.python_file import load_python

        return load_python(file, wanted, checkpoint, seed)
    if checkpoint is not None:
        raise UserError(f"{file} holds its own weights, so --checkpoint does not apply.", "Leave out --checkpoint.")
    if (suffix := file.path.suffix.lower()) == ".onnx":
        from tvmmobile.networks.own.onnx.file import load_onnx as load
    elif suffix == ".pt2":
        from tvmmobile.networks.own.pt2.program import load_exported_program as load
    else:
        from tvmmobile.networks.own.litert.file import load_litert as load
    return load(file, wanted)


def _check_divisors(file: OwnFile, module: Any) -> None:
    """Raise `UserError` for a division by a constant that is 0, which TVM refuses to fold."""
    import tvm

    for binding in bindings_of(module["main"]):
        if operator_of(binding.value) in _DIVISIONS and isinstance(divisor := binding.value.args[1], tvm.ir.GenericConst):
            numbers = divisor.value.numpy()
            if not (numbers.any() if numbers.dtype.kind == "f" else numbers.all()):
                raise UserError(f"{file} divides by a constant that is 0.", "Check its weights, and export it again.")


_DIVISIONS = {"relax.divide", "relax.floor_divide", "relax.mod", "relax.floor_mod"}


def files_of(file: OwnFile) -> list[Path]:
    """Return the file and those beside it that hold its weights, but not files that Python code imports or reads."""
    names: list[str] = []
    if file.path.suffix.lower() == ".onnx":
        from tvmmobile.networks.own.onnx.file import files_beside

        names = files_beside(file)
    return [path for path in (file.path, *(file.path.parent / name for name in names)) if path.is_file()]


def load_again(file: OwnFile, spec: ModelSpec, checkpoint: Path | None, seed: int) -> Imported:
    """Load the same network again, in another process; raise `UserError` if it has changed."""
    imported = load_own(file, spec.image_size, checkpoint, seed, spec.input_shape[0])
    if imported.spec != spec:
        raise UserError(
            f"{file} has changed since this run began.", "Do not change it during a run; run the same command again.", again=True
        )
    return imported
