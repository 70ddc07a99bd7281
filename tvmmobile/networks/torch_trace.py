"""The values inside a PyTorch network, and its import with all of them as outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from tvmmobile.graph.precision import FLOAT32
from tvmmobile.networks.frontend import Array, Traced, decomposed, export_torch, place_of, quiet
from tvmmobile.networks.sorting import without_sorting
from tvmmobile.networks.torch_operators import converters


def trace_module(module: torch.nn.Module, given: Sequence[Array]) -> Traced:
    """Trace a module as `import_torch` imports it."""
    return trace_program(decomposed(export_torch(module, [torch.from_numpy(array) for array in given])), given)


def trace_program(program: torch.export.ExportedProgram, given: Sequence[Array]) -> Traced:
    """Trace a decomposed program as `import_program` imports it. Raises exceptions of any kind."""
    with quiet():
        importer = _Importer()
        module = without_sorting(importer.from_exported_program(program, False, False, False, converters()))
        values = _values(program, given)
    return Traced(tuple(map(_in_words, importer.traced)), tuple(values[node.name] for node in importer.traced), module)


def _in_words(node: torch.fx.Node) -> str:
    """Return the operator behind a node's value, which may be one of several."""
    name = getattr(node.target, "__name__", str(node.target))
    if name == "getitem":
        return _in_words(node.args[0])
    return f'{name} "{node.name}"{place_of(node)}'


def _is_real(node: Any, value: Any) -> bool:
    is_tensor = isinstance(node.meta.get("val"), torch.Tensor) and isinstance(value, relax.Expr)
    return is_tensor and isinstance(value.ty, relax.TensorType) and str(value.ty.dtype) == FLOAT32.name


class _Importer(ExportedProgramImporter):  # type: ignore[misc]
    """Returns every operator's value that is a tensor of real numbers, and remembers its node."""

    def _translate_fx_graph(self, graph_module: Any, nodes: Any, inputs_vars: Any, custom_ops: Any = None) -> Any:
        super()._translate_fx_graph(graph_module, nodes, inputs_vars, custom_ops)
        self.traced = [node for node in nodes if node.op == "call_function" and _is_real(node, self.env.get(node))]
        return tuple(self.env[node] for node in self.traced)


def _values(program: torch.export.ExportedProgram, given: Sequence[Array]) -> Mapping[str, Array]:
    """Return every node's value by its name, as PyTorch computes the program operator by operator."""
    found: dict[str, Array] = {}

    class ValueRecorder(torch.fx.Interpreter):  # type: ignore[misc]
        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor):
                found[n.name] = value.detach().clone().numpy()
            return value

    stored = {**program.constants, **program.state_dict}
    inputs = iter(map(torch.from_numpy, given))
    specs = program.graph_signature.input_specs
    arguments = [next(inputs) if spec.kind == torch.export.graph_signature.InputKind.USER_INPUT else stored[spec.target] for spec in specs]
    with torch.no_grad():
        ValueRecorder(program.graph_module).run(*arguments)
    return found
