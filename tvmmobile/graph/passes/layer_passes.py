"""Helps passes over composed layers to change the layers and their readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tvmmobile.graph.access import Access
from tvmmobile.graph.bindings import readers_of, values_of
from tvmmobile.graph.composed import ComposedLayer, external_name, layer_call
from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.layers import Layer
from tvmmobile.graph.passes.rewriting import replace_variables, with_named_outputs


class LayerGraph:
    """The calls of layers in `main`, and its other values.

    Attributes:
        values: values by variable; the new calls for layers that a pass has changed.
        readers: see `readers_of`.
        accepts: returns whether some template takes a layer.
        layers: layers by the name of their external function.
    """

    def __init__(self, main: Any, accepts: Callable[[Layer], bool], layers: dict[str, ComposedLayer]) -> None:
        self.values, self.readers = values_of(main), readers_of(main)
        self.accepts, self.layers = accepts, layers

    def name(self, variable: Any) -> str:
        """Return the name of the layer that computes a variable; "" for other variables."""
        return external_name(self.values.get(variable)) or ""

    def layer(self, variable: Any) -> ComposedLayer | None:
        """Return the layer that computes a variable."""
        return self.layers.get(self.name(variable))

    def inputs(self, variable: Any) -> tuple[Any, ...]:
        """Return the tensors that this layer reads."""
        return tuple(self.values[variable].args[1].fields)

    def read_once(self, variable: Any) -> bool:
        """Return whether a variable has a single reader."""
        return len(self.readers[variable]) == 1

    def moves(self, variable: Any) -> Iterator[tuple[Any, Access]]:
        """Yield a variable's successive views, each the only reader of the one before, with the elements of the variable that it shows."""
        access = Access.of(shape_of(variable))
        while self.read_once(variable) and (variable := self.readers[variable][0]) is not None:
            after = access.after(self.values[variable])
            if after is None:
                return
            access = after
            yield variable, access

    def call(self, composed: ComposedLayer, inputs: Sequence[Any], name: str = "") -> Any:
        """Return a call of a new layer, or of one that replaces the layer of this name."""
        return layer_call(self.layers, composed, inputs, name=name)


#: Maps a variable to new values for it and other variables, which may be expressions of several operators; empty if nothing changes.
_Rewrite = Callable[[LayerGraph, Any], Mapping[Any, Any]]


def layer_pass(rewrite: _Rewrite) -> Callable[[Callable[[Layer], bool], dict[str, ComposedLayer]], Callable[[Any], Any]]:
    """Make a pass from a function that handles one variable of `main` at a time. The pass also changes the `layers` that it is given."""

    def of_layers(accepts: Callable[[Layer], bool], layers: dict[str, ComposedLayer]) -> Callable[[Any], Any]:
        def run(module: Any) -> Any:
            graph, found = LayerGraph(module["main"], accepts, layers), dict[Any, Any]()
            for variable in list(graph.values):
                changes = rewrite(graph, variable)
                found.update(changes)
                graph.values.update({one: value for one, value in changes.items() if external_name(value)})  # others have no types yet
            return with_named_outputs(replace_variables(module, found)) if found else module

        return run

    return of_layers
