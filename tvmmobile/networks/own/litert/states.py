"""Turns variables of LiteRT files, in which streaming networks keep their state between calls, into inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tvmmobile.networks.own.litert.reader import LiteRtNetwork, LiteRtTensor
from tvmmobile.networks.own.litert.translation import SIMPLER
from tvmmobile.networks.states import NEXT
from tvmmobile.system.errors import UserError

#: Operators that are left out.
STATEFUL = ("CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE")


def without_variables(network: LiteRtNetwork) -> LiteRtNetwork:
    """Return the network with an input for each variable that it reads, and an output for each of those that it assigns.

    What runs before it may only set variables to zeros: the caller begins with these, and passes an output on to the next call.

    Raises:
        UserError: a variable begins with other numbers.
    """
    if not any(operator.kind in STATEFUL for operator in network.operators):
        return network
    initial: dict[bytes, LiteRtTensor] = {}
    for other in network.first:
        initial |= _initial_values(other)
    operators, handles = [], _handles(network)
    current: dict[bytes, int] = {}
    first, same, assigned = dict[bytes, int](), dict[int, int](), set[bytes]()
    for operator in network.operators:
        inputs = tuple(same.get(number, number) for number in operator.inputs)
        if operator.kind not in STATEFUL:
            operators.append(replace(operator, inputs=inputs))
        elif operator.kind == "READ_VARIABLE":
            variable, (out,) = handles[inputs[0]], operator.outputs
            if variable in current:
                same[out] = current[variable]
            else:
                first[variable] = current[variable] = out
        elif operator.kind == "ASSIGN_VARIABLE":
            current[handles[inputs[0]]] = inputs[1]
            assigned.add(handles[inputs[0]])
    names, output_names = dict(network.names), dict(network.output_names)
    for variable, number in first.items():
        names[number] = variable.decode(errors="replace")
        if variable in initial:
            value, grid = initial[variable].value, network.tensors[number].grid
            if value is None or not np.array_equal(value, np.broadcast_to(0 if grid is None else grid.zeros, value.shape)):
                raise UserError(f"the variable {names[number]} does not begin with zeros.", SIMPLER)
        if variable in assigned:
            output_names.setdefault(current[variable], f"{names[number]}{NEXT}")
    outputs = (*(same.get(number, number) for number in network.outputs), *(current[one] for one in first if one in assigned))
    inputs = (*network.inputs, *first.values())
    return replace(
        network,
        operators=operators,
        inputs=inputs,
        outputs=outputs,
        names=names,
        output_names=output_names,
        same=same,
        stateful=True,
    )


def _handles(network: LiteRtNetwork) -> Mapping[int, bytes]:
    """Return the names of the variables that tensors stand for."""
    return {
        operator.outputs[0]: bytes(operator.options.sharedName or b"") for operator in network.operators if operator.kind == "VAR_HANDLE"
    }


def _initial_values(network: LiteRtNetwork) -> dict[bytes, LiteRtTensor]:
    """Read the values that a network assigns to variables when it runs once."""
    handles, found = _handles(network), {}
    for operator in network.operators:
        if operator.kind == "ASSIGN_VARIABLE":
            found[handles[operator.inputs[0]]] = network.tensors[operator.inputs[1]]
        elif operator.kind != "VAR_HANDLE":
            raise UserError(f"the network computes how its variables begin, by {operator.kind}.", SIMPLER)
    return found


def stateless_content(content: bytes, network: LiteRtNetwork) -> bytes:
    """Return the file of a network without its variables, for LiteRT's own runtime; the same content if it has none.

    Raises:
        Exception: of any kind, where the file's constants lie behind it.
    """
    if not network.stateful:
        return content
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    stateful = {getattr(schema.BuiltinOperator, kind) for kind in STATEFUL}
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    if any(buffer.offset > 1 for buffer in model.buffers):
        raise ValueError("constants behind the file")
    graph = model.subgraphs[0]
    graph.operators = [operator for operator in graph.operators if codes[operator.opcodeIndex] not in stateful]
    for operator in graph.operators:
        operator.inputs = [network.same.get(int(number), int(number)) for number in operator.inputs]
    graph.inputs, graph.outputs = (list(dict.fromkeys(numbers)) for numbers in (network.inputs, network.outputs))
    model.subgraphs, model.signatureDefs = [graph], None
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), content[4:8])
    return bytes(builder.Output())
