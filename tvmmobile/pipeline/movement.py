"""Measures how far outputs move when the last bits of weights change, because no library can be judged more strictly than that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.kernels.reference import network_error
from tvmmobile.networks.frontend import Imported
from tvmmobile.pipeline.host import runner_on_host
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.variant import import_variant, prepare_variant
from tvmmobile.running.library import Library
from tvmmobile.running.manifest import MOST_ROUNDING, note_check

_SEEDS = range(6)


def rounding_of(job: VariantJob) -> float:
    """Return the rounding of a job's network for its reference inputs, see `rounding`."""
    return rounding(job, import_variant(job), prepare_variant(replace(job, dump_dir=None)).reference.inputs)


def rounding(job: VariantJob, network: Imported, inputs: Sequence[Array]) -> float:
    """Return the error that roundings explain in a float32 network: twice that of random last bits, as the reference rounds too.

    It is 0 if it cannot be measured, and for other precisions and quantised networks, whose tolerance is wider.
    """
    if job.options.precision != FLOAT32 or network.scales is not None:
        return 0.0
    try:
        return float(f"{2 * movement(network.module, inputs):.2g}")
    except Exception:  # compilers raise anything; the disagreement matters more than its cause
        return 0.0


def note_rounding(library: Library, most: float) -> bool:
    """Note in a library's manifest the error that roundings explain; return whether the library's tolerance is wider with it."""
    if not library.tolerance < most <= MOST_ROUNDING:
        return False
    note_check(library.manifest_path, {"rounding": most})
    return True


def movement(module: Any, inputs: Sequence[Array]) -> float:
    """Return the largest `network_error` that random last bits of a network's weights and real inputs cause."""
    lifted, weights = _lifted(module)
    run, given = runner_on_host(lifted), [*inputs, *weights]
    outputs = run(given)
    generators = map(np.random.default_rng, _SEEDS)
    return max(network_error(run([_changed(array, generator) for array in given]), outputs) for generator in generators)


def _changed(array: Array, generator: np.random.Generator) -> Array:
    """Return float32 numbers with random last bits; zeros, infinities and other types are unchanged."""
    if array.dtype != FLOAT32.numpy:
        return array
    bits = array.view(np.int32) ^ generator.integers(0, 2, array.shape, np.int32)
    return np.where(np.isfinite(array) & (array != 0), bits.view(array.dtype), array)


def _lifted(module: Any) -> tuple[Any, list[Array]]:
    """Return a module that takes its weights as further inputs, and the weights."""
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    from tvmmobile.graph.passes.rewriting import mutate_main

    weights: list[Array] = []
    parameters: list[Any] = []

    @mutator
    class Lifter(PyExprMutator):  # type: ignore[misc]
        def visit_generic_const_(self, constant: Any) -> Any:
            array = constant.value.numpy()
            if array.dtype != FLOAT32.numpy or array.size < 2:
                return constant
            weights.append(array)
            parameters.append(relax.Var(f"weight{len(weights)}", constant.ty))
            return parameters[-1]

        def visit_function_(self, function: Any) -> Any:
            body = self.visit_expr(function.body)
            return relax.Function([*function.params, *parameters], body, function.ret_ty, function.is_pure)

    return mutate_main(module, Lifter(module)), weights
