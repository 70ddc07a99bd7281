"""Finds where a wrong library's values first differ: at an operator's import, in a kernel, or in a layer made by graph passes."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.network import by_number, results_from, sources_of
from tvmmobile.graph.placed import value_of_placed
from tvmmobile.graph.precision import FLOAT32, Precision
from tvmmobile.kernels.codegen import export
from tvmmobile.kernels.ranked import LEAST, ranking_of
from tvmmobile.kernels.reference import expected_output, network_error, relative_error
from tvmmobile.kernels.simulation import run_unscheduled
from tvmmobile.networks.frontend import Imported
from tvmmobile.networks.signature import Port
from tvmmobile.pipeline.host import run_on_host, values_on_host
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.planning import PlannedVariant, parameters_of, plan_variant
from tvmmobile.pipeline.sentences import moved
from tvmmobile.pipeline.variant import import_variant
from tvmmobile.running.emulation import outputs_here
from tvmmobile.running.library import Reference
from tvmmobile.running.manifest import MOST_ROUNDING
from tvmmobile.system.errors import please_report
from tvmmobile.system.toolchain import toolchain
from tvmmobile.tuning.plan import PlannedKernel

#: Longest run of a library that returns everything, in seconds.
_MOST_S = 1800.0


@dataclass(frozen=True)
class Difference:
    """The first wrong value of a library, and the advice for it.

    Attributes:
        where: place of the difference, as the end of a sentence.
        is_of_precision: true if the precision alone causes it.
    """

    where: str
    is_of_precision: bool = False

    @property
    def remedy(self) -> str:
        """Advice to the user."""
        if self.is_of_precision:
            return "Compile it with another --dtype, such as float32, or scale what the network computes."
        return please_report("network")


def explain(job: VariantJob, moves: float) -> Difference | None:
    """Return the first wrong value of a library that an earlier stage built; see `first_difference`."""
    return first_difference(job, plan_variant(replace(job, dump_dir=None)), moves)


def first_difference(job: VariantJob, planned: PlannedVariant, moves: float) -> Difference | None:
    """Find the first operator, kernel or layer with a wrong value; return `None` where none can be found.

    If too many expected rows tie, any of them may be returned, and nothing can be concluded. Else the network is computed on this
    machine from the layers that kernels are made for. If that gives the right outputs, a kernel is wrong. If not, the module is at
    fault that the passes began with, or one of these.

    Args:
        moves: the error that roundings explain, see `rounding_of`.
    """
    try:
        return _first_difference(job, planned, planned.prepared.reference, moves)
    except Exception:  # compilers and frameworks raise anything; the disagreement matters more than its cause
        return None


def _first_difference(job: VariantJob, planned: PlannedVariant, reference: Reference, moves: float) -> Difference:
    ranking = ranking_of(reference.outputs)
    if ranking is not None and ranking.tied > ranking.scores.shape[1] - LEAST:
        rows = f"{ranking.tied} of the {ranking.scores.shape[1]} rows expected have the score of the last one"
        return Difference(f"{rows}, so that any of them may come out: weights or input give them no order")
    computed = [kernel.computed for kernel in _kernels(planned, reference.inputs, None)]
    outputs = _outputs(planned, job.spec.returns, reference.inputs, computed)
    imported, precision = import_variant(job), job.options.precision
    quantised = planned.prepared.origin.quantised
    own = precision.tolerance_of(quantised)
    plain, most = (max(tolerance, min(moves, MOST_ROUNDING)) for tolerance in (FLOAT32.network_tolerance, own))
    if network_error(outputs, reference.outputs, quantised) <= most:
        right, conclusion = "each of its kernels is right by itself", "the library puts them together wrongly"
        found = _wrong_kernel(job, planned, reference)
    elif network_error(run_on_host(imported.module, reference.inputs), reference.outputs, quantised) <= plain:
        right = "each of its layers has a value of the imported network"
        conclusion = "a graph pass returns the wrong ones" if own <= FLOAT32.network_tolerance else "what the precision loses adds up"
        if not precision.is_integer and precision != FLOAT32 and _is_right_in_float32(job, reference, quantised, plain):
            lost = _lost_by(precision, imported, reference)
            return Difference(f"{lost}; compiled for float32, the network is right", is_of_precision=True)
        found = _wrong_layer(imported, planned, reference, computed, most)
    else:
        right, conclusion = "each of its operators is right by itself", "the imported network returns something else"
        found = _wrong_import(imported, reference, plain)
    if moves > FLOAT32.network_tolerance:
        return Difference(f"{found or right}, but {moved(moves)}")
    return Difference(found or f"{right}, but {conclusion}")


def _is_right_in_float32(job: VariantJob, reference: Reference, quantised: bool, most: float) -> bool:
    """Return whether the same layers and kernels give the right outputs where they compute in float32."""
    options = replace(job.options, precision=FLOAT32, io_precision=FLOAT32, max_error=None)
    planned = plan_variant(replace(job, options=options, dump_dir=None))
    computed = [kernel.computed for kernel in _kernels(planned, reference.inputs, None)]
    return network_error(_outputs(planned, job.spec.returns, reference.inputs, computed), reference.outputs, quantised) <= most


def _lost_by(precision: Precision, network: Imported, reference: Reference) -> str:
    """Say what a floating-point precision loses of a network's values."""
    values = [numbers for arrays in values_on_host(network.module, reference.inputs).values() for numbers in arrays]
    values += [array for array in reference.outputs if array.dtype.kind == "f"]
    largest = max((float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) for array in values), default=0.0)
    limit = float(precision.limits.max)
    if largest > limit:
        return f"the network has values up to {largest:.2g}, beyond the range of {precision.name} (up to {limit:.5g})"
    return f"{precision.name} has too small a range or too few digits for the network's values"


def _wrong_import(network: Imported, reference: Reference, most: float = FLOAT32.network_tolerance) -> str:
    trace = network.trace
    if trace is not None:
        traced = trace(reference.inputs)
        imported = run_on_host(traced.module, reference.inputs)
        for operator, actual, expected in zip(traced.operators, imported, traced.values, strict=True):
            error = difference(actual, expected)
            if not error <= most:
                return f"the first value that differs is that of {operator} as it is imported (error {error:.2g})"
    return ""


def _wrong_kernel(job: VariantJob, planned: PlannedVariant, reference: Reference) -> str:
    """Run a library that also returns what each kernel writes."""
    types = [port.stored(job.options.io_precision.name) for port in job.spec.takes]
    inputs = tuple(array.astype(kind) for array, kind in zip(reference.inputs, types, strict=True))
    with tempfile.TemporaryDirectory(prefix="tvmmobile-observed-") as folder:
        library = Path(folder, "observed.so")
        export(planned.compiled(job.profile.target, observed=True), library, toolchain(job.profile.target))
        written = outputs_here(library, inputs, job.options.threads, str(job.profile.target["mcpu"]), _MOST_S)[len(reference.outputs) :]
    for each in _kernels(planned, reference.inputs, written):
        error = difference(each.written, each.computed)
        if not error <= each.tolerance:
            return f"the first value that differs is that of kernel {each.step.task.name} ({_nodes(each.step)}; error {error:.2g})"
    return ""


def _wrong_layer(network: Imported, planned: PlannedVariant, reference: Reference, computed: Sequence[Array], most: float) -> str:
    """Look for each layer's values among those of the imported network, in any order and layout, with differences up to `most`.

    Some layers compute what the imported network does not have, such as sums of which a factor was moved elsewhere; these do not count
    where something is found that was computed from them.
    """
    known = values_on_host(network.module, reference.inputs)
    found = [_is_among(array, known, most) for array in computed]
    place = {step.last: number for number, step in enumerate(planned.steps)}
    for number in reversed(range(len(found))):
        if found[number]:
            for source in _kernels_behind(planned, place, _sources(planned, planned.steps[number])):
                found[place[source]] = True
    for step, right in zip(planned.steps, found, strict=True):
        if not right:
            what = step.task.name
            return (
                f"the first value that the imported network does not have is that of layer {what} ({_nodes(step)}): a graph pass is wrong"
            )
    return ""


def _nodes(step: PlannedKernel) -> str:
    return f"node {step.first}" if step.first == step.last else f"nodes {step.first} to {step.last}"


def _is_among(array: Array, known: dict[int, list[Array]], most: float) -> bool:
    """Return whether some array has the same numbers, in any order."""
    numbers = np.sort(array, axis=None)
    return any(difference(numbers, other) <= most for other in known.get(array.size, ()))


@dataclass(frozen=True, eq=False)
class _Kernel:
    """A kernel of a plan during a run.

    Attributes:
        computed: output on this machine for the tensors that the kernel reads.
        written: output in the library, or again the one computed here.
        tolerance: largest difference between the two.
    """

    step: PlannedKernel
    computed: Array
    written: Array
    tolerance: float


def _kernels(planned: PlannedVariant, inputs: Sequence[Array], written: Sequence[Array] | None) -> Iterator[_Kernel]:
    """Compute each kernel of a plan from the outputs of earlier kernels in a library, or as computed here."""
    values = by_number(inputs)
    for number, step in enumerate(planned.steps):
        read = [_value(planned, values, source) for source in _sources(planned, step)]
        computed, tolerance = _computed(planned, step, read)
        actual = computed if written is None else written[number]
        values[step.last] = _stored(step, actual)
        yield _Kernel(step, computed, actual.reshape(computed.shape), tolerance)


def _sources(planned: PlannedVariant, step: PlannedKernel) -> list[int | Array]:
    """Return a kernel's inputs: all of its first layer's, and those of the others except from the layer before."""
    wired = sources_of(planned.network.module)
    return [*wired[step.first], *(source for node in range(step.first + 1, step.last + 1) for source in wired[node][1:])]


def _value(planned: PlannedVariant, values: Mapping[int, Array], source: int | Array) -> Array:
    """Return a constant or a numbered value; a placed node, which no kernel computes, has elements of those that it reads."""
    if not isinstance(source, int):
        return source
    if source in values:
        return values[source]
    parts = [_value(planned, values, part) for part in sources_of(planned.network.module)[source]]
    return value_of_placed(planned.network.module, source, parts)


def _kernels_behind(planned: PlannedVariant, steps: Collection[int], sources: Iterable[int | Array]) -> Iterator[int]:
    """Yield the last nodes of the steps that compute values or parts of them."""
    for source in sources:
        if isinstance(source, int) and source in steps:
            yield source
        elif isinstance(source, int) and source >= 0:
            yield from _kernels_behind(planned, steps, sources_of(planned.network.module)[source])


def _computed(planned: PlannedVariant, step: PlannedKernel, read: Sequence[Array]) -> tuple[Array, float]:
    """Return a kernel's output on this machine, and the tolerance for the library's."""
    task, function = step.task, planned.network.nodes[step.first].function
    if function is not None:
        kinds = [(shape_of(parameter), str(parameter.ty.dtype)) for parameter in list(function.params)[:-1]]
        arrays = [np.ascontiguousarray(array, kind).reshape(shape) for array, (shape, kind) in zip(read, kinds, strict=True)]
        return run_unscheduled(function, arrays), max(task.tolerance, FLOAT32.tolerance)
    shapes = [task.region[0].input_shape, *task.side_shapes.values()]
    arrays = [array.reshape(shape) for array, shape in zip(read, shapes, strict=True)]
    return expected_output(task, arrays, parameters_of(planned.network, step)), task.tolerance


def _stored(step: PlannedKernel, array: Array) -> Array:
    """Return a kernel's output as later kernels read it."""
    rounds = step.task.rounds and array.dtype.kind == "f"
    return np.rint(array).astype(step.task.storage[1].numpy) if rounds else array


def _outputs(planned: PlannedVariant, returns: Sequence[Port], inputs: Sequence[Array], computed: Sequence[Array]) -> list[Array]:
    """Return a network's outputs, given those of its kernels."""
    values = by_number(inputs)
    values |= {step.last: array for step, array in zip(planned.steps, computed, strict=True)}
    found = (_value(planned, values, result) for result in results_from(planned.network.module))
    return [array.reshape(port.shape).astype(port.dtype) for array, port in zip(found, returns, strict=True)]


def difference(actual: Array, expected: Array) -> float:
    """Return the largest difference relative to the largest expected magnitude; infinite if the non-finite elements, such as those of
    masks, differ.
    """
    if actual.size != expected.size:
        return float("inf")
    actual = actual.reshape(expected.shape)
    if expected.dtype.kind != "f":
        return network_error([actual], [expected])
    finite = np.isfinite(expected)
    if not np.array_equal(actual[~finite], expected[~finite], equal_nan=True):
        return float("inf")
    return relative_error(actual[finite], expected[finite]) if finite.any() else 0.0
