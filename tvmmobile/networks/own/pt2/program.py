"""Networks exported by `torch.export`: from a `.pt2`, or from a user's module."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.export.pt2_archive._package import load_pt2  # `torch.export.load` goes on to an older format where this fails

from tvmmobile.graph.layers import Array
from tvmmobile.networks.budget import check_elements
from tvmmobile.networks.frontend import (
    Compute,
    Imported,
    count_macs,
    decomposed,
    import_program,
    importing,
    place_of,
    quiet,
    refusing,
    returned_as,
    torch_program,
    with_layouts,
)
from tvmmobile.networks.own.files import FileTensor, OwnFile, RequestedShape, read_whole, spec_of
from tvmmobile.networks.own.pt2.archive import checked_archive
from tvmmobile.networks.own.pt2.calls import runner, without_constants
from tvmmobile.networks.own.pt2.halves import in_float32
from tvmmobile.networks.own.pt2.missing_rows import output_names
from tvmmobile.networks.own.pt2.outputs import give_plain_outputs
from tvmmobile.networks.own.pt2.quantised import register_operators, without_integer_weights
from tvmmobile.networks.torch_trace import trace_program
from tvmmobile.system.errors import UserError

#: Arguments of operators that are random in training only.
_SWITCHES = frozenset({"train", "training", "dropout_p"})
_FIX = "Export it so: torch.export.save(torch.export.export(module.cpu().eval(), (torch.zeros(1, 3, 224, 224),)), FILE)"


def load_exported_program(file: OwnFile, wanted: RequestedShape) -> Imported:
    """Return the network in a `.pt2`. Nothing in the file is executed: see `pt2/archive.py`.

    Raises:
        UserError: it is damaged or of another kind, it takes no such input, or PyTorch cannot read or we cannot compile the network.
    """
    content = read_whole(file.path)
    contents = hashlib.sha256(content).hexdigest()
    return imported_program(file, contents, *_program_in(file, content, wanted), wanted, f"{file.label} sha256 {contents}", _FIX)


def with_fixed_rows(file: OwnFile, program: torch.export.ExportedProgram, compute: Compute) -> tuple[torch.export.ExportedProgram, Compute]:
    """Return an exported program, with the greatest extents for results whose extents depend on values, and its runner."""
    shapes = [getattr(node.meta.get("val"), "shape", ()) for node in program.graph.nodes]
    if all(isinstance(extent, int) for shape in shapes for extent in shape):
        return program, compute
    content = io.BytesIO()
    torch.export.save(program, content)
    return _program_in(file, content.getvalue(), RequestedShape())


def _program_in(file: OwnFile, content: bytes, wanted: RequestedShape) -> tuple[torch.export.ExportedProgram, Compute]:
    """Return the program in a `.pt2`, with static shapes, and its runner; raise `UserError` as `load_exported_program` does."""
    content = checked_archive(file, content, wanted, _FIX)
    with refusing(f"{file} cannot be read by PyTorch {torch.__version__}", _FIX), quiet():  # it is damaged or of another version
        register_operators()
        program = load_pt2(io.BytesIO(content)).exported_programs["model"]
        return program, runner(program)


def imported_program(
    file: OwnFile, contents: str, program: torch.export.ExportedProgram, compute: Compute, wanted: RequestedShape, weights: str, fix: str
) -> Imported:
    """Return an exported program in Relax.

    Args:
        contents: SHA-256 of the file.
        compute: runs the network in PyTorch.
        wanted: the dimensions that were asked for.
        weights: origin of the weights.
        fix: a way to make such a program with static shapes.

    Raises:
        UserError: it cannot be compiled.
    """
    _refuse_random(file, program)
    with importing():  # PyTorch's operators raise errors of any kind for arguments that contradict each other
        real = in_float32(program)
        if real is not program:
            program, compute = real, runner(real)
        scales = without_integer_weights(program)
        program = decomposed(program)
    for node in program.graph.nodes:  # `spec_of` refuses inputs and outputs with dynamic extents
        shape = getattr(node.meta.get("val"), "shape", ())
        check_elements(f"{file}: the tensor {node.name!r}", [extent for extent in shape if isinstance(extent, int)])
    changed = [*program.graph_signature.buffers_to_mutate.values()]
    if changed:
        raise UserError(f"{file} changes {changed[0]} when it runs.", "Call eval() before exporting, and keep no state in buffers.")
    give_plain_outputs(program)
    ends = _ends(file, program)
    without_constants(program)
    spec = spec_of(file, contents, *ends, wanted, fix)
    module = import_program(program)
    parameters = sum(parameter.numel() for parameter in program.parameters())
    if scales is not None:
        parameters = scales.parameters + _numbers_read(program)

    def returned(inputs: Sequence[Array]) -> tuple[Array, ...]:
        return returned_as(spec.outputs, compute(inputs))

    trace = partial(trace_program, program)
    return Imported(with_layouts(spec, module), module, weights, count_macs(module), parameters, returned, torch_program, scales, trace)


def _numbers_read(program: torch.export.ExportedProgram) -> int:
    """Count the numbers in parameters that are read: quantised programs keep those that integers have replaced."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    named = program.graph_signature.inputs_to_parameters.items()
    return sum(program.state_dict[name].numel() for node, name in named if nodes[node].users)


def _ends(file: OwnFile, program: torch.export.ExportedProgram) -> tuple[list[FileTensor], list[FileTensor]]:
    """Return a program's inputs, without constants, and its outputs, without `None`; raise `UserError` for outputs that are numbers."""
    values, signature = {node.name: node.meta.get("val") for node in program.graph.nodes}, program.graph_signature
    taken = [one.arg for one in signature.input_specs if one.kind == InputKind.USER_INPUT]
    returned = [one.arg for one in signature.output_specs if one.kind == OutputKind.USER_OUTPUT]
    called = output_names(program.call_spec.out_spec, len(returned))
    inputs = [_tensor(one.name, values.get(one.name)) for one in taken if not isinstance(one, ConstantArgument)]
    outputs = []
    for name, one in zip(called, returned, strict=True):
        if not isinstance(one, ConstantArgument):
            outputs.append(_tensor(name, values.get(one.name)))
        elif one.value is not None:
            what = f"{file}: the output {name!r} is the constant {ascii(one.value)[:60]}, not a tensor."
            raise UserError(what, "Leave it out of what the network returns.")
    return inputs, outputs


def _refuse_random(file: OwnFile, program: torch.export.ExportedProgram) -> None:
    """Raise `UserError` for operators that are random, always or as dropouts in training: nothing can be compared with their results."""
    for node in program.graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        names = [argument.name for argument in node.target._schema.arguments]
        given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        in_training = given.get("train") or (node.target == torch.ops.aten.rrelu.default and given.get("training"))
        if (in_training and given.get("p", given.get("dropout", 1))) or given.get("dropout_p"):
            raise UserError(
                f"{file} has a random operator: {node.target}{place_of(node)} is in training mode.",
                "Call eval() before exporting; torch.nn.functional.dropout needs training=self.training as well; attention, dropout_p=0.",
            )
        used = node.users or node.target._schema.is_mutable
        if used and torch.Tag.nondeterministic_seeded in node.target.tags and _SWITCHES.isdisjoint(names):
            what = f"{file} has a random operator: {node.target}{place_of(node)}."
            raise UserError(what, "Have the network take random numbers as an input, or leave them out of what is exported.")


def _tensor(name: str, value: Any) -> FileTensor:
    """Return the name, shape and type of a value of the graph; a value that is not a tensor, such as a number, has no shape."""
    if not isinstance(value, torch.Tensor):
        return FileTensor(name, None, type(value).__name__)
    shape = tuple(extent if isinstance(extent, int) else str(extent) for extent in value.shape)
    return FileTensor(name, shape, str(value.dtype).removeprefix("torch."))
