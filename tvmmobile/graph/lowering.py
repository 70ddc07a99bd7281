"""The lowering of a network's kernels back into Relax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvmmobile.graph.bindings import bindings_of, results_of, returned
from tvmmobile.graph.expressions import constant, outermost_axis, shape_of, view_of, viewed
from tvmmobile.graph.network import Network, kernel_bindings
from tvmmobile.graph.placed import first_of_slice
from tvmmobile.graph.tasks import Task


@dataclass(frozen=True)
class Lowered:
    """A kernel that replaces the nodes `first` to `last` (inclusive): its task, its TIR function and its packed constants."""

    first: int
    last: int
    task: Task
    function: Any
    constants: tuple[Any, ...]


def lower(network: Network, kernels: tuple[Lowered, ...], observed: bool = False) -> Any:
    """Return the network's Relax module with these kernels, in execution order. They must cover every node once, except placed
    ones.

    If `observed`, it returns each kernel's output after its own results.
    """
    from tvm import relax

    module = network.module
    bindings = kernel_bindings(module)
    index_of = {binding.var: index for index, binding in enumerate(bindings)}
    starts = {kernel.first: kernel for kernel in kernels}
    ends = {kernel.last: kernel for kernel in kernels}
    covered = {node for kernel in kernels for node in range(kernel.first, kernel.last + 1)}
    main = module["main"]
    builder = relax.BlockBuilder()
    replaced: dict[Any, Any] = {}
    data: list[Any] = []
    written: list[Any] = []

    def current(expression: Any) -> Any:
        return replaced.get(expression, expression)

    with builder.function("main", list(main.params)):
        with builder.dataflow():
            for binding in bindings_of(main):
                index = index_of.get(binding.var)
                if index is None:
                    replaced[binding.var] = builder.emit(view_of(binding.value, current(viewed(binding.value))))
                    continue
                inputs = [current(argument) for argument in binding.value.args[1].fields]
                if index not in covered:
                    replaced[binding.var] = builder.emit(_placed(inputs, shape_of(binding.value), first_of_slice(module, binding.value)))
                    continue
                if index in starts:
                    data.clear()
                    data.extend(inputs)
                else:
                    data.extend(inputs[1:])  # the layer's factors and summands
                kernel = ends.get(index)
                if kernel is None:
                    continue
                variable = builder.add_func(kernel.function, kernel.task.symbol)
                arguments = [*data, *map(constant, kernel.constants)]
                # Layers between a region's ends may lie in channel blocks, so that the type is the kernel's.
                output = relax.TensorType(kernel.task.region[-1].output_shape, binding.value.ty.dtype)
                replaced[binding.var] = builder.emit(relax.call_tir(variable, arguments, out_ty=output))
                written.append(replaced[binding.var])
            results = [current(result) for result in results_of(main)]
            outputs = [builder.emit_output(result) for result in (*results, *(written if observed else ()))]
        builder.emit_func_output(returned(outputs))
    return builder.get()


def _placed(inputs: list[Any], shape: list[int], first: int | None) -> Any:
    """Return the value of a placed node: a slice of its input from place `first`, or the concatenation of its inputs."""
    from tvm import relax

    if first is None:
        return relax.op.concat(inputs, outermost_axis(shape))
    axis = outermost_axis(shape_of(inputs[0]))
    return relax.op.strided_slice(inputs[0], [axis], [first], [first + shape[axis]])
