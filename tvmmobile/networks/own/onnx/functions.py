"""Replaces operators that ONNX defines as functions of others, and a model's own functions, by what they consist of."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from tvmmobile.networks.own.onnx.constants import RANDOM, with_shapes
from tvmmobile.networks.own.onnx.tensors import graphs_of


def without_functions(model: Any, known: Set[str]) -> Any:
    """The model without functions of its own, and with bodies in place of ONNX's operators that are not `known` but have one.

    Raises:
        Exception: of any kind, from ONNX's inliner and shape inference.
    """
    from onnx import TensorProto, defs, helper, inliner

    model = inliner.inline_local_functions(model) if model.functions else model
    functions = {
        (one.domain, one.name)
        for one in defs.get_all_schemas()
        if (one.has_function or one.has_context_dependent_function) and one.name not in known | RANDOM
    }

    def calls() -> list[Any]:
        return [node for graph in graphs_of(model.graph) for node in graph.node if (node.domain, node.op_type) in functions]

    if not calls():
        return model
    model = with_shapes(model)
    model.graph.value_info.append(helper.make_tensor_value_info("", TensorProto.FLOAT, ()))  # the inliner wants the type of omitted inputs
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for node in calls():  # it overlooks the defaults of attributes
        attributes = defs.get_schema(node.op_type, versions[node.domain], node.domain).attributes
        missing = attributes.keys() - {attribute.name for attribute in node.attribute}
        node.attribute.extend(attributes[name].default_value for name in sorted(missing) if attributes[name].default_value.name)
    inlined = inliner.inline_selected_functions(model, sorted(functions), inline_schema_functions=True)
    del inlined.graph.value_info[:]
    return inlined
