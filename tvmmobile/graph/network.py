"""A prepared network as a list of layers."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvmmobile.graph.bindings import bindings_of, results_of
from tvmmobile.graph.composed import ComposedLayer, external_name
from tvmmobile.graph.expressions import shape_of, viewed
from tvmmobile.graph.function_json import block_names
from tvmmobile.graph.layers import Array, Conv2d, Layer, LayerParameters, Opaque, Pool
from tvmmobile.graph.opaque import multiply_adds
from tvmmobile.graph.stages import stages_of
from tvmmobile.system.errors import UserError

#: The network's first input has this number, where kernels have theirs; further inputs count down from it.
INPUT = -1


def by_number(inputs: Sequence[Array]) -> dict[int, Array]:
    """Return a network's inputs, given in order, by number."""
    return {INPUT - place: array for place, array in enumerate(inputs)}


@dataclass(frozen=True)
class Node:
    """A kernel-sized step of the network.

    Attributes:
        layer: layer that it computes.
        parameters: constants of the layer; `None` for an opaque function, whose constants are arguments.
        function: the TIR function of an opaque layer as Relax fused it, not yet scheduled.
        alone: true if it cannot be fused with the next node: its output has another consumer, such as the network's caller, or the next
            node has other inputs than side inputs.
        gated: the node that multiplies its output by a gate, if the nodes in between compute that gate from the output, the first one by
            pooling it (squeeze and excite); `None` if there is none.
        dtype: the name of the precision of a layer's kernel; "" for an opaque one.
        adding: the nodes that add its output to theirs, if only these and the next node read it.
    """

    layer: Layer
    parameters: LayerParameters | None
    function: Any
    alone: bool
    gated: int | None = None
    dtype: str = ""
    adding: tuple[int, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-adds, an opaque function's included."""
        return multiply_adds(self.layer.operator, self.function) if isinstance(self.layer, Opaque) else self.layer.macs


@dataclass(frozen=True)
class Float32Layer:
    """A layer that stays in float32: the number of its node, the name that it has there, and why."""

    node: int
    layer: str
    why: str


@dataclass(frozen=True)
class Network:
    """The nodes in execution order, the module they were read from, and the layers that stay in float32 while others do not."""

    nodes: tuple[Node, ...]
    module: Any
    float32_layers: tuple[Float32Layer, ...] = ()


@dataclass(frozen=True)
class Wiring:
    """The nodes and inputs that a network's values come from, constants aside.

    Attributes:
        sources: numbers of the nodes and inputs that each node reads.
        results: numbers of the nodes and inputs that the network returns.
    """

    sources: tuple[tuple[int, ...], ...] = ()
    results: tuple[int, ...] = ()


def read_network(module: Any, composed: Mapping[str, ComposedLayer]) -> Network:
    """Read `main` of what `passes.pipeline.lower_to_kernels` returned; `UserError` for operators that are not a kernel with one result."""
    _refuse_others(module)
    graph = _KernelGraph(module)
    nodes = [_node(module, binding.value, composed, not graph.is_chained(index)) for index, binding in enumerate(graph.bindings)]
    return Network(tuple(graph.with_readers(nodes, index) for index in range(len(nodes))), module)


def _node(module: Any, call: Any, composed: Mapping[str, ComposedLayer], alone: bool) -> Node:
    """Return the node of a kernel's call, without the fields that depend on its readers."""
    name = external_name(call)
    if name is not None:
        found = composed[name]
        return Node(found.layer, found.parameters, None, alone, dtype=found.dtype)
    function = module[call.args[0]]
    return Node(_opaque(call.args[0].name_hint, function), None, function, alone)


class _KernelGraph:
    """The kernels of `main`, what each reads, and which kernels read each.

    Attributes:
        wired: everything that each kernel reads, see `sources_of`.
        sources: the kernels and inputs among that.
        results: kernels whose output the network returns.
    """

    def __init__(self, module: Any) -> None:
        self.bindings = kernel_bindings(module)
        self.wired, returned = _wiring(module)
        self.sources = [[source for source in inputs if isinstance(source, int)] for inputs in self.wired]
        self.results = {result for result in returned if isinstance(result, int)}
        self.consumers = defaultdict[int, list[int]](list)
        for index, inputs in enumerate(self.sources):
            for source in inputs:
                self.consumers[source].append(index)

    def is_chained(self, index: int) -> bool:
        """Return whether a kernel can be fused with the next one, its only reader."""
        if index in self.results or self.consumers[index] != [index + 1]:
            return False
        read = self.sources[index + 1]
        if read[0] != index or self._changes_image(index):
            return False
        return len(read) == 1 or external_name(self.bindings[index + 1].value) is not None  # side inputs may come from anywhere

    def with_readers(self, nodes: Sequence[Node], index: int) -> Node:
        """Return a node, completed with the nodes that gate or add its output."""
        if index in self.results:
            return nodes[index]
        changes = self.consumers[index][:1] == [index + 1] and self._changes_image(index)
        return replace(nodes[index], gated=self._gated(nodes, index), adding=() if changes else self._adding(nodes, index))

    def _changes_image(self, index: int) -> bool:
        """Return whether the next kernel reads an image of another shape than a kernel writes."""
        return _is_another_image(self.bindings[index + 1].value.args[1].fields[0], self.bindings[index].var)

    def _gated(self, nodes: Sequence[Node], index: int) -> int | None:
        """Return the node that multiplies this one by a gate, see `Node.gated`."""
        consumers = self.consumers[index]
        if len(consumers) != 2 or consumers[0] != index + 1 or not isinstance(nodes[index + 1].layer, Pool):
            return None
        last = consumers[1]
        layer = nodes[last].layer
        return last if isinstance(layer, Conv2d) and layer.scaled and self.sources[last].index(index) == 0 else None

    def _adding(self, nodes: Sequence[Node], index: int) -> tuple[int, ...]:
        """Return the nodes that add this one's output, see `Node.adding`."""

        def reads(node: int) -> list[int]:
            return [place for place, source in enumerate(self.wired[node]) if isinstance(source, int) and source == index]

        def residual(node: int) -> int:
            layer = nodes[node].layer
            return [*layer.side_shapes].index("residual") + 1 if isinstance(layer, Conv2d) and layer.residual else 0

        following, others = self.consumers[index][:1], tuple(self.consumers[index][1:])
        added = all(residual(node) and reads(node) == [residual(node)] for node in others)
        return others if others and added and following == [index + 1] and reads(index + 1) == [0] else ()


def _is_another_image(one: Any, other: Any) -> bool:
    """Return whether both are images of different shapes, as between layers that arrange pixels differently."""
    shapes = [shape_of(image) for image in (one, other)]
    return all(len(shape) == 4 for shape in shapes) and shapes[0] != shapes[1]


def names_of(network: Network) -> list[str]:
    """Return each node's external function by name; "" for an opaque node."""
    return [external_name(binding.value) or "" for binding in kernel_bindings(network.module)]


def sources_of(module: Any) -> list[tuple[int | Array, ...]]:
    """Return each kernel's inputs, traced through views: the number of the kernel or input that each comes from, or a constant."""
    return _wiring(module)[0]


def results_from(module: Any) -> list[int | Array]:
    """Return the origin of each output of the network: the number of a kernel or an input, or a constant."""
    return _wiring(module)[1]


def wiring_of(module: Any) -> Wiring:
    """Return the numbers among `sources_of` and `results_from`."""
    sources, results = _wiring(module)
    return Wiring(tuple(map(_numbers, sources)), _numbers(results))


def _numbers(origins: Iterable[int | Array]) -> tuple[int, ...]:
    return tuple(origin for origin in origins if isinstance(origin, int))


def _wiring(module: Any) -> tuple[list[tuple[int | Array, ...]], list[int | Array]]:
    """Trace views back to kernels, inputs and constants: for what each kernel reads, and for the network's outputs."""
    main = module["main"]
    position = {binding.var: number for number, binding in enumerate(kernel_bindings(module))}
    origin: dict[Any, int | Array] = {parameter: INPUT - place for place, parameter in enumerate(main.params)}

    def origin_of(expression: Any) -> int | Array:
        return origin[expression] if expression in origin else expression.value.numpy()

    found: list[tuple[int | Array, ...]] = []
    for binding in bindings_of(main):
        if binding.var in position:
            origin[binding.var] = position[binding.var]
            found.append(tuple(map(origin_of, binding.value.args[1].fields)))
        else:
            origin[binding.var] = origin_of(viewed(binding.value))
    return found, list(map(origin_of, results_of(main)))


def kernel_bindings(module: Any) -> list[Any]:
    """Return the bindings of `main` that run a kernel: external layers and TIR functions. Views such as reshape are not among them."""
    from tvm import relax

    def is_kernel(value: Any) -> bool:
        return isinstance(value, relax.Call) and getattr(value.op, "name", "") in ("relax.call_tir", "relax.call_dps_packed")

    return [binding for binding in bindings_of(module["main"]) if is_kernel(binding.value)]


def _refuse_others(module: Any) -> None:
    """Raise `UserError` if `main` runs anything but kernels with one result."""
    from tvm import relax

    kernels, found = set(kernel_bindings(module)), set()
    for binding in bindings_of(module["main"]):
        value = binding.value
        if binding in kernels:
            if not isinstance(value.ty, relax.TensorType):
                found.add(value.args[0].name_hint)
        elif isinstance(value, relax.Call) and viewed(value) is None:
            found.add(str(getattr(value.op, "name", value.op)).removeprefix("relax."))
    if found:
        raise UserError(
            f"no kernel can be compiled for {', '.join(sorted(found))}.", "Express it with other operators, or leave that part out."
        )


def _opaque(name: str, function: Any) -> Opaque:
    import tvm_ffi

    shapes = tuple(tuple(shape_of(parameter)) for parameter in function.params)
    hashed = tvm_ffi.structural_hash(function.without_attr("global_symbol"))
    digest = hashlib.sha256(" ".join([str(hashed), *block_names(function)]).encode()).hexdigest()[:12]
    operator = re.sub(r"\d+(?=_|$)", "", name.removeprefix("fused_"))  # Relax numbers repeated names
    return Opaque(operator, digest, shapes[:-1], shapes[-1], stages_of(function) is not None)
