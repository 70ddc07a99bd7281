"""Moves sigmoids of a detector's scores after the selection, so that only the kept scores need them.

A sigmoid ascends, so which elements are the greatest, and their order, is the same in front of it and behind it.
"""

from __future__ import annotations

from typing import Any

from tvm import relax

from tvmmobile.graph.bindings import readers_of, values_of
from tvmmobile.graph.expressions import VIEW, operator_of
from tvmmobile.graph.operators import ORDERS
from tvmmobile.graph.passes.rewriting import rebound_main, with_main

_SIGMOID = "relax.sigmoid"
#: The result has elements of the first argument, and nothing else.
_SELECTING = frozenset({"relax.max", "relax.gather_elements", "relax.gather_nd", "relax.take"})
_MOVING = frozenset({VIEW, "relax.permute_dims", "relax.strided_slice"})


def selected_scores(module: Any) -> Any:
    """Move sigmoids in `main` behind the selection from their results, if nothing else reads these; sorting then reads their inputs."""
    found = _Selections(module)
    return with_main(module, rebound_main(module["main"], found.value_of)) if found.selected else module


class _Selections:
    """Finds sigmoids of which only selected elements are read.

    Attributes:
        selected: variables of these sigmoids.
        operands: operand of the sigmoid that each variable is now.
    """

    def __init__(self, module: Any) -> None:
        main = module["main"]
        self.module, self.values, self.readers = module, values_of(main), readers_of(main)
        self.selected = {
            variable for variable, value in self.values.items() if operator_of(value) == _SIGMOID and self._is_selected(variable)
        }
        self.operands: dict[Any, Any] = {}

    def value_of(self, builder: Any, binding: Any) -> Any:
        """Return the value of a variable, in front of the sigmoid if it has one."""
        value = binding.value
        if binding.var in self.selected:
            self.operands[binding.var] = value.args[0]
        elif self._is_order(value):
            keys = [self.operands.get(key, key) for key in value.args[1].fields]
            return builder.normalize(relax.Call(value.op, [value.args[0], relax.Tuple(keys)], value.attrs, value.ty_args))
        elif self._passes_on(value) and value.args[0] in self.operands:
            operand = builder.emit(relax.Call(value.op, [self.operands[value.args[0]], *value.args[1:]], value.attrs))
            self.operands[binding.var] = operand
            return builder.normalize(relax.op.sigmoid(operand))
        return value

    def _is_selected(self, variable: Any) -> bool:
        return all(reader is not None and self._selects(self.values[reader], variable, reader) for reader in self.readers[variable])

    def _selects(self, value: Any, variable: Any, reader: Any) -> bool:
        if self._is_order(value):
            return True
        passed = self._passes_on(value) and value.args[0].same_as(variable) and variable not in value.args[1:]
        return passed and (operator_of(value) in _SELECTING or self._is_selected(reader))

    def _passes_on(self, value: Any) -> bool:
        return operator_of(value) in _SELECTING | _MOVING

    def _is_order(self, value: Any) -> bool:
        return operator_of(value) == "relax.call_tir" and bool((self.module[value.args[0]].attrs or {}).get(ORDERS))
