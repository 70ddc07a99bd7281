"""Networks that are PyTorch objects, such as a module that a notebook defines: exported to a `.pt2` that worker processes read."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import torch

from tvmmobile.networks.frontend import FRAMEWORK_LOCK, export_torch, refusing
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.python_file import check_module, examples_of
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import write_bytes
from tvmmobile.system.interrupts import insisted
from tvmmobile.system.scratch import scratch_folder

_EXAMPLE = "Give one such as: tvmmobile.load(module, torch.zeros(1, 3, 224, 224))"


def write_object(network: Any, example: Any, name: str) -> OwnFile:
    """Export a module, or take a program that is exported, and write it as a `.pt2` that lasts as long as this process.

    The same network gives the same file wherever it was defined: references to source lines are left out.

    Args:
        network: a `torch.nn.Module`, which stays as it is, or a `torch.export.ExportedProgram`.
        example: the module's inputs: a tensor, or a tuple of them.
        name: name of the network; "" for that of the module's class.

    Raises:
        UserError: it is neither, or cannot be exported.
    """
    if isinstance(network, torch.nn.Module):
        name = name or type(network).__name__
        with FRAMEWORK_LOCK, insisted():  # torch.export has weak references with callbacks
            program = _exported(network, example, name)
    elif isinstance(network, torch.export.ExportedProgram):
        name, program = name or "network", network
    else:
        raise UserError(
            f"{type(network).__name__} is not a network.", "Give a name, a file, a torch.nn.Module, or what torch.export.export returns."
        )
    before = [(node, node.meta.pop("stack_trace", None)) for node in program.graph.nodes]
    content = io.BytesIO()
    try:
        with refusing(f"{name} cannot be saved", "It must be what torch.export.save takes."), FRAMEWORK_LOCK:
            torch.export.save(program, content)
    finally:
        for node, trace in before:
            if trace is not None:
                node.meta["stack_trace"] = trace
    file = OwnFile(scratch_folder("networks") / f"{OwnFile(Path(f'{name}.pt2')).name}.pt2")
    write_bytes(file.path, content.getvalue())
    return file


def _exported(module: torch.nn.Module, example: Any, name: str) -> torch.export.ExportedProgram:

    examples = examples_of(example)
    if not examples:
        given = "no example" if example is None else type(example).__name__
        raise UserError(f"{name} is exported with an example input, a torch.Tensor or a tuple of them, and was given {given}.", _EXAMPLE)
    module = copy.deepcopy(module).cpu().eval()
    check_module(OwnFile(Path(name)), module, examples, _EXAMPLE)
    return export_torch(module, examples)
