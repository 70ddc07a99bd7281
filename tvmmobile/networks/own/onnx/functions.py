"""Replaces operators that ONNX defines as functions of others by what they consist of."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from tvmmobile.networks.own.onnx.constants import RANDOM, fold_constants
from tvmmobile.networks.own.onnx.tensors import graphs_of


def without_functions(model: Any, known: Set[str]) -> Any:
    """A model as `fold_constants` returns it, with bodies in place of operators that are not `known` but have one.

    Raises:
        Exception: of any kind, from ONNX's inliner and shape inference.
    """
    import onnx
    from onnx import TensorProto, defs, helper, inliner

    functions = {
        (one.domain, one.name)
        for one in defs.get_all_schemas()
        if (one.has_function or one.has_context_dependent_function) and one.name not in known | RANDOM
    }

    if not any((node.domain, node.op_type) in functions for graph in graphs_of(model.graph) for node in graph.node):
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    # The inliner also wants the types of constants and of omitted inputs.
    constants = {"": (TensorProto.FLOAT, ()), **{tensor.name: (tensor.data_type, tensor.dims) for tensor in model.graph.initializer}}
    changed.graph.value_info.extend(helper.make_tensor_value_info(name, *kind) for name, kind in constants.items())
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for node in (node for graph in graphs_of(changed.graph) for node in graph.node):
        if (node.domain, node.op_type) in functions:  # it overlooks the defaults of attributes
            attributes = defs.get_schema(node.op_type, versions[node.domain], node.domain).attributes
            missing = attributes.keys() - {attribute.name for attribute in node.attribute}
            node.attribute.extend(attributes[name].default_value for name in sorted(missing) if attributes[name].default_value.name)
    return fold_constants(inliner.inline_selected_functions(changed, sorted(functions), inline_schema_functions=True))
