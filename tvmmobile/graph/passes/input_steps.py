"""Finds operators between a network's inputs and its layers: they scale, shift, split and join channels."""

from __future__ import annotations

from typing import Any

from tvmmobile.graph.bindings import bindings_of
from tvmmobile.graph.expressions import operator_of, variables_of
from tvmmobile.graph.operators import Trait, operators_with

_STEPS = operators_with(Trait.ELEMENT_WISE) | operators_with(Trait.RESHAPE) | {"relax.strided_slice", "relax.concat"}


def input_steps(main: Any) -> set[Any]:
    """Return the variables that steps and views alone compute from an input of `main`.

    They are best left unchanged: images still have their channels first, and an integer layer would round values that are not scaled yet.
    """
    origins = {parameter: {parameter} for parameter in main.params}
    for binding in bindings_of(main):
        read = set(variables_of(binding.value))
        is_step = operator_of(binding.value) in _STEPS or binding.value in origins
        if is_step and read and read <= origins.keys() and len(made_of := set().union(*(origins[part] for part in read))) == 1:
            origins[binding.var] = made_of
    return {*origins} - {*main.params}
