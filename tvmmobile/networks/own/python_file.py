"""Networks from a Python file: `path.py:factory`."""

from __future__ import annotations

import hashlib
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tvmmobile.networks.frontend import Imported, by_torch, export_torch, first_line
from tvmmobile.networks.models.checkpoints import load_own_checkpoint
from tvmmobile.networks.own.files import OwnFile, RequestedShape, height_and_width, read_whole
from tvmmobile.networks.own.pt2.program import imported_program, with_fixed_rows
from tvmmobile.networks.signature import words
from tvmmobile.system.errors import UserError
from tvmmobile.system.interrupts import Terminated

#: The input side if neither the factory nor the command line gives one.
DEFAULT_SIDE = 224
_CHANNELS = 3
_FIX = "Give an example input of that kind with the module: return module, torch.zeros(1, 3, 224, 224)"


def load_python(file: OwnFile, wanted: RequestedShape, checkpoint: Path | None, seed: int) -> Imported:
    """Return the network that the file's factory returns. The file is executed, including its imports.

    Args:
        wanted: dimensions of its input, where the factory gives no example; `DEFAULT_SIDE` without either.
        checkpoint: a state dict with the module's own names, all of them.
        seed: seed of PyTorch's generator while the factory runs.

    Raises:
        UserError: the file, the factory, the module or the checkpoint is not what it has to be.
    """
    source = read_whole(file.path)
    contents = hashlib.sha256(source).hexdigest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module, examples = _module_of(file, _factory(file, source, contents))
    module = module.cpu().eval()
    weights = f"{file.label} sha256 {contents}, seed {seed}"
    if checkpoint is not None:
        weights = load_own_checkpoint(module, checkpoint)
    examples = examples or [torch.zeros(wanted.batch or 1, _CHANNELS, *height_and_width(wanted.side or DEFAULT_SIDE))]
    check_module(file, module, examples, "Give the input side with --resolution, or an example input with the module.")
    program, compute = with_fixed_rows(file, export_torch(module, examples), by_torch(module))
    return imported_program(file, contents, program, compute, wanted, weights, _FIX)


def _factory(file: OwnFile, source: bytes, contents: str) -> Callable[[], Any]:
    """Return the function of that name, after executing the file.

    It is compiled here and not by Python's own loader, which would leave a cache beside it and might use a stale one.
    """
    module = types.ModuleType(f"tvmmobile_own_{contents[:16]}")
    module.__file__ = str(file.path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up
    try:
        exec(compile(source, str(file.path), "exec"), vars(module))
    except Terminated:
        raise
    except (Exception, SystemExit) as error:  # it is the user's program, and may raise anything
        raise UserError(f"{file.path} cannot be imported: {_one_line(file, error)}", "Run it with Python for details.") from error
    factory = getattr(module, file.factory, None)
    if not callable(factory):
        functions = [name for name, value in vars(module).items() if isinstance(value, types.FunctionType) and not name.startswith("_")]
        remedy = f"It has: {', '.join(functions)}." if functions else "It has no function."
        raise UserError(f"{file.path} has no function {file.factory}.", remedy)
    checked: Callable[[], Any] = factory
    return checked


def _module_of(file: OwnFile, factory: Callable[[], Any]) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    """Return the module, and the example inputs if there are any."""
    try:
        result = factory()
    except Terminated:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{file} fails: {_one_line(file, error)}", "Make it return the network if called without arguments.") from error
    parts = result if isinstance(result, tuple) else (result, None)
    examples = examples_of(parts[1]) if len(parts) == 2 else None
    if examples is None or not isinstance(parts[0], torch.nn.Module):
        given = ", ".join(type(part).__name__ for part in result) if isinstance(result, tuple) else type(result).__name__
        raise UserError(
            f"{file} returns {given}, not a torch.nn.Module.", "Return the module, or the module and an example input or a tuple of them."
        )
    return parts[0], examples


def examples_of(given: Any) -> list[torch.Tensor] | None:
    """Return example inputs that are given as a tensor, as a tuple of tensors, or not at all; `None` for anything else."""
    found = [given] if isinstance(given, torch.Tensor) else list(given) if isinstance(given, tuple) else []
    if (given is not None and not found) or not all(isinstance(one, torch.Tensor) for one in found):
        return None
    return [one.detach().cpu() for one in found]


def check_module(file: OwnFile, module: torch.nn.Module, examples: Sequence[torch.Tensor], remedy: str) -> None:
    """Check its weights and run it once, so that errors of its own code are not mistaken for errors of the export.

    Raises:
        UserError: a weight is not float32, or it fails; the message names `file` and gives `remedy`.
    """
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise UserError(f"{file}: {name} is {str(tensor.dtype).removeprefix('torch.')}, not float32.", "Return module.float().")
    try:
        with torch.no_grad():
            module(*examples)
    except Exception as error:
        shapes = " and ".join(words(example.shape) for example in examples)
        raise UserError(f"{file}: the module fails for an input of {shapes}: {_one_line(file, error)}", remedy) from error


def _one_line(file: OwnFile, error: BaseException) -> str:
    """Return an error on one line, with the last line of the user's file that it passed through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file.path)]
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(file.path) else next(reversed(lines), None)
    return first_line(error).rstrip(".") + (f" (line {line})." if line else ".")
