"""Networks from an ONNX file, compared with ONNX Runtime."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.inliner import inline_local_functions
from tvm.tirx import IntImm

from tvmmobile.graph.layers import Array
from tvmmobile.networks.frontend import Imported, count_macs, importing, refuse_operators, refusing, returned_as, with_layouts
from tvmmobile.networks.own.files import (
    FileTensor,
    OwnFile,
    RequestedShape,
    height_and_width,
    read_whole,
    refuse_dynamic,
    spec_of,
)
from tvmmobile.networks.own.onnx.constant_nodes import count_parameters, with_initializers
from tvmmobile.networks.own.onnx.constants import fold_constants, without_functions
from tvmmobile.networks.own.onnx.external import names_beside, read_beside
from tvmmobile.networks.own.onnx.fourier import has_rough_transform
from tvmmobile.networks.own.onnx.halves import DOUBLES, HALVES, in_float32
from tvmmobile.networks.own.onnx.importer import import_onnx, known_operators, unknown_operators
from tvmmobile.networks.own.onnx.limits import check_onnx, check_values
from tvmmobile.networks.own.onnx.missing_rows import FilledOutput, filled_up, with_greatest_extents
from tvmmobile.networks.own.onnx.outputs import with_plain_outputs
from tvmmobile.networks.own.onnx.quantised import computes_in_integers, is_quantised, without_integers
from tvmmobile.networks.own.onnx.reference import start_reference_evaluator
from tvmmobile.networks.own.onnx.repairs import repair
from tvmmobile.networks.own.onnx.runtime import start_onnx_runtime
from tvmmobile.networks.own.onnx.sparse import fill_zeros
from tvmmobile.networks.own.onnx.tensors import STANDARD, all_graphs, opset_of
from tvmmobile.networks.own.onnx.trace import trace_onnx
from tvmmobile.networks.own.references import HostReference, Start
from tvmmobile.networks.quantised import WeightScales
from tvmmobile.system.errors import UserError

#: The first opset that ONNX Runtime knows throughout.
_FIRST_OPSET = 7
_FIX = "Give --resolution if height or width is dynamic, --batch for the first dimension, or --shape for a whole input."
#: An operator whose scale was one for each group in opsets 18 to 20, and is one for each channel since.
_OLD_NORM = "GroupNormalization"


def load_onnx(file: OwnFile, wanted: RequestedShape) -> Imported:
    """Return the network in an ONNX file, for one input side, with weights from files beside it.

    Raises:
        UserError: it is damaged or of another kind, newer than the `onnx` here, has another side, or cannot be compiled.
    """
    content = read_whole(file.path)
    model = _parsed(file, content)
    _checked_versions(file, model)
    check_onnx(file, model)
    with _naming_old_operators(file, model):
        return _loaded(file, model, content, wanted)


def _loaded(file: OwnFile, model: Any, content: bytes, wanted: RequestedShape) -> Imported:
    with refusing(f"{file} is not a valid ONNX model", "Export it again."):
        repair(model)
    digest = hashlib.sha256(content)
    for tensor in read_beside(file, model):
        digest.update(tensor.raw_data)
    with refusing(f"{file} is not a valid ONNX model", "Export it again."):
        fill_zeros(file, model)
    _fix_dimensions(file, model.graph, wanted)
    _fix_values(file, model.graph)
    digest.update(repr(file.values).encode() if file.values else b"")
    _check_dimensions(file, model.graph)
    with refusing(f"{file} is not a valid ONNX model", "Export it again."):
        model = with_plain_outputs(in_float32(model, HALVES))
    return imported_onnx(file, model, digest.hexdigest(), wanted, _FIX)


def imported_onnx(
    file: OwnFile, model: Any, contents: str, wanted: RequestedShape, fix: str, programs: Sequence[tuple[str, Start]] = ()
) -> Imported:
    """Return a network in a `ModelProto` that holds all its weights.

    Args:
        contents: SHA-256 of the files that it is from, in hexadecimal.
        fix: a way to make such a file with static shapes.
        programs: those that its output is to be compared with rather than with ONNX Runtime's.

    Raises:
        UserError: it is not valid, has another side, or cannot be compiled.
    """
    given, parameters, opset = model, count_parameters(model), opset_of(model)
    model, scales, filled = _checked(file, model)
    check_values(file, model.graph)
    if scales is not None:
        parameters = scales.parameters or parameters  # only activations may be quantised
    refuse_operators(unknown_operators(model))
    inputs = _tensors(given.graph, _inputs(model.graph))
    for tensor in inputs:
        refuse_dynamic(file, tensor, "input", fix)
    with importing():
        module = import_onnx(model, opset)
    outputs = _with_known_shapes(_tensors(given.graph, model.graph.output), module)
    spec = spec_of(file, contents, inputs, outputs, wanted, fix, model.graph.name)
    computed = model if computes_in_integers(given.graph) else given
    reference = _reference(file, computed, computed if filled else model, [tensor.name for tensor in inputs], programs)
    spec, weights = with_layouts(spec, module), f"{file.label} sha256 {contents}"

    def compute(given: Sequence[Array]) -> tuple[Array, ...]:
        return returned_as(spec.outputs, filled_up(reference.compute(given), filled))

    trace = partial(trace_onnx, model, partial(import_onnx, opset=opset), lambda traced, names: _reference(file, traced, traced, names, ()))
    return Imported(spec, module, weights, count_macs(module), parameters, compute, reference.program, scales, trace)


def _reference(file: OwnFile, given: Any, simple: Any, inputs: Sequence[str], programs: Sequence[tuple[str, Start]]) -> HostReference:
    """Return the programs that compute a network's output on the host from the file's operators (`given`) or those of `_checked`."""
    runtime = ("ONNX Runtime", partial(start_onnx_runtime, given, inputs))
    evaluator = ("onnx.reference", partial(start_reference_evaluator, simple, inputs))
    return HostReference(str(file), [*programs, *([evaluator, runtime] if has_rough_transform(simple.graph) else [runtime, evaluator])])


def files_beside(file: OwnFile) -> list[str]:
    """Return the files with weights that an ONNX file needs, relative to its folder; none where it cannot be read."""
    try:
        return names_beside(file, _parsed(file, read_whole(file.path)))
    except UserError:
        return []


def _parsed(file: OwnFile, content: bytes) -> Any:
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own class, not Python's
        raise UserError(f"{file} is damaged or not an ONNX file.", "Export it again.") from error
    if not model.graph.node:
        raise UserError(f"{file} is damaged or not an ONNX file: it has no operators.", "Export it again.")
    return model


def _checked_versions(file: OwnFile, model: Any) -> None:
    """Raise `UserError` if the installed `onnx` does not know the versions of the operators or of the format."""
    for name, given, known in (
        ("opset", opset_of(model), onnx.defs.onnx_opset_version()),
        ("IR version", int(model.ir_version), int(onnx.IR_VERSION)),
    ):
        if given > known:
            raise UserError(f"{file} has {name} {given}; onnx {onnx.__version__} knows up to {known}.", f"Export it with {name} {known}.")


@contextmanager
def _naming_old_operators(file: OwnFile, model: Any) -> Iterator[None]:
    """Refuse a model of an old opset that cannot be loaded by the operators that have changed since.

    ONNX's version converter does not help: it adds a vector along the wrong axis.
    """
    opset = opset_of(model)
    try:
        yield
    except UserError as error:
        kinds = dict.fromkeys(node.op_type for node in model.graph.node if node.domain in STANDARD)
        changed = [kind for kind in kinds if onnx.defs.has(kind) and _version(kind, opset) != _version(kind, _FIRST_OPSET)]
        if opset >= _FIRST_OPSET or not changed:
            raise
        what = f"{file} has opset {opset}, in which these operators are not those of opset {_FIRST_OPSET}, the first that is supported"
        raise UserError(f"{what}: {', '.join(changed)}.", "Export it with opset 13 or newer.") from error


def _version(operator: str, opset: int) -> int | None:
    """Return the opset in which an operator became what it is in another one; `None` if it is none of that one's."""
    try:
        return int(onnx.defs.get_schema(operator, opset).since_version)
    except onnx.defs.SchemaError:
        return None


def _checked(file: OwnFile, model: Any) -> tuple[Any, WeightScales | None, tuple[FilledOutput, ...]]:
    """Return the model with functions inlined, integers and float64 as float32, constants computed and shapes inferred, after ONNX's
    checker has accepted it; the scales of its weights, if it is quantised; and which outputs are filled up.
    """
    scales = None
    with refusing(f"{file} is not a valid ONNX model", "Export it again."):
        onnx.checker.check_model(_without_old_norms(model))
        model = inline_local_functions(model, True) if model.functions else model
        model = with_initializers(model)
        if is_quantised(model.graph):
            model, scales = without_integers(model)
        model, filled = with_greatest_extents(without_functions(fold_constants(model), known_operators()))
        return in_float32(model, DOUBLES), scales, filled


def _without_old_norms(model: Any) -> Any:
    """Return what ONNX's checker accepts: it takes `GroupNormalization` of opsets 18 to 20 for invalid, as deprecated."""
    if opset_of(model) not in range(18, 21) or not _old_norms(model):
        return model
    changed = copy.deepcopy(model)
    for node in _old_norms(changed):
        node.CopyFrom(onnx.helper.make_node("Identity", node.input[:1], node.output))
    return changed


def _old_norms(model: Any) -> list[Any]:
    return [node for graph in all_graphs(model) for node in graph.node if node.op_type == _OLD_NORM and node.domain in STANDARD]


def _fix_dimensions(file: OwnFile, graph: Any, wanted: RequestedShape) -> None:
    """Give inputs' dimensions that have no number one: what --shape says, 1 or --batch in front, and the requested height and width of
    images. Dimensions of one name have one number.

    Exporters also write -1 or 0 for a dimension that has none.
    """
    for value in (*graph.input, *graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.HasField("dim_value") and dimension.dim_value < 1:
                dimension.denotation = f"{dimension.dim_value} in the file"
                dimension.ClearField("dim_value")
    inputs, shapes, named = _inputs(graph), dict(file.shapes), dict[str, int]()
    for value in inputs:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            if value.name not in shapes:
                raise UserError(f"{file}: the input {value.name!r} has no shape.", f"Give it: --shape {value.name}=1x3x224x224")
            value.type.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in shapes[value.name])
        _number(value, shapes.get(value.name, ()), named)
    for value in inputs:
        dimensions = value.type.tensor_type.shape.dim
        _number(value, [named.get(dimension.dim_param) for dimension in dimensions], named)
        size = (None, None) if wanted.side is None or len(dimensions) != 4 else height_and_width(wanted.side)
        if len(dimensions) > 1:
            _number(value, (wanted.batch or 1, None, *size), named)
    for value in inputs:
        _number(value, [named.get(dimension.dim_param) for dimension in value.type.tensor_type.shape.dim], named)


def _number(value: Any, extents: Sequence[int | None], named: dict[str, int]) -> None:
    """Give dimensions of a tensor that have no number these; adds the numbers of named ones."""
    for dimension, extent in zip(value.type.tensor_type.shape.dim, extents, strict=False):
        if extent is not None and not dimension.HasField("dim_value"):
            if dimension.dim_param:
                named.setdefault(dimension.dim_param, extent)
            dimension.dim_value = extent


def _fix_values(file: OwnFile, graph: Any) -> None:
    """Turn inputs that always have one value into constants.

    Raises:
        UserError: there is no such input, its shape is not known, or its type has no such number.
    """
    inputs = {value.name: value for value in _inputs(graph)}
    for name, number in file.values:
        if name not in inputs:
            raise UserError(f"{file} has no input {name!r} for --value.", f"Name one of: {', '.join(inputs)}.")
        tensor = _tensor(inputs[name])
        refuse_dynamic(file, tensor, "input", _FIX)
        if tensor.shape is None or not re.fullmatch(r"(float|u?int)\d+|bool", tensor.dtype):
            raise UserError(f"{file}: the input {name!r} is not a tensor of numbers of a known shape.", "Leave out its --value.")
        constant = np.full([int(extent) for extent in tensor.shape], number).astype(tensor.dtype)
        if not np.allclose(constant.astype(float), number, rtol=1e-3, atol=0):
            raise UserError(f"{file}: the input {name!r} is {tensor.dtype} and cannot be {number:g}.", "Give --value such a number.")
        graph.initializer.append(numpy_helper.from_array(constant, name))


def _inputs(graph: Any) -> list[Any]:
    """Return what a network takes: inputs without a constant of the same name."""
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def _check_dimensions(file: OwnFile, graph: Any) -> None:
    """Raise `UserError` for an input's dimension without a number and for a number without dimensions, with an option that gives it one."""
    for tensor in _tensors(graph, _inputs(graph)):
        if tensor.shape == ():
            what = f"{file}: the input {tensor.called} is a number without dimensions."
            raise UserError(what, f"Give it the value that it always has: --value {tensor.name}=NUMBER.")
        shape = tensor.shape or ()
        images = len(shape) == 4 and all(isinstance(extent, int) for extent in shape[:2])
        example = "x".join(str(extent) if isinstance(extent, int) else "16000" for extent in shape)
        refuse_dynamic(file, tensor, "input", _FIX if images else f"Give its shape, such as --shape {tensor.name}={example}.")


def _with_known_shapes(found: Sequence[FileTensor], module: Any) -> list[FileTensor]:
    """Return outputs with the shapes of the imported network, which knows more of them than ONNX's inference."""
    returned = module["main"].ret_ty
    known = [getattr(part.shape, "values", ()) for part in getattr(returned, "fields", [returned])]
    return [
        replace(tensor, shape=tuple(map(int, extents))) if all(isinstance(extent, IntImm) for extent in extents) and extents else tensor
        for tensor, extents in zip(found, known, strict=True)
    ]


def _tensors(graph: Any, values: Sequence[Any]) -> list[FileTensor]:
    """Return inputs or outputs, with the operators of the graph that read or compute them."""
    operators = {name: node.op_type for node in reversed(graph.node) for name in (*node.input, *node.output)}
    return [replace(_tensor(value), operator=operators.get(value.name, "")) for value in values]


def _tensor(value: Any) -> FileTensor:
    kind = value.type.tensor_type
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)) if kind.elem_type else "no tensor"
    if not kind.HasField("shape"):
        return FileTensor(value.name, None, dtype)
    shape = tuple(int(dim.dim_value) if dim.HasField("dim_value") else str(dim.dim_param or dim.denotation) for dim in kind.shape.dim)
    return FileTensor(value.name, shape, dtype)
