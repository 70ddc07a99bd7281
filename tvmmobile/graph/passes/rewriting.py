"""Rewriting `main`: by pattern, by mutator, or binding by binding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import tvm
from tvm import relax
from tvm.relax.dpl import is_op, rewrite_call

from tvmmobile.graph.bindings import bindings_of, results_of, returned, values_of
from tvmmobile.graph.expressions import holds, variables_of


def rebuilt(value: Any, leaf: Callable[[Any], Any], attributes: Callable[[Any], Any] = lambda attrs: attrs) -> Any:
    """Return an expression with `leaf` applied to its variables and constants, and `attributes` to its operators' attributes."""

    def rebuild(part: Any) -> Any:
        return rebuilt(part, leaf, attributes)

    if isinstance(value, relax.Var | tvm.ir.GenericConst):
        return leaf(value)
    if isinstance(value, relax.Tuple):
        return relax.Tuple([rebuild(field) for field in value.fields])
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(rebuild(value.tuple_value), value.index)
    if isinstance(value, relax.Call):
        return relax.Call(value.op, [rebuild(argument) for argument in value.args], attributes(value.attrs), value.ty_args)
    return value


class MainRewriter(ABC):
    """Rewrites `main` binding by binding; subclasses define what each one becomes.

    Attributes:
        values: value of each old variable.
        replaced: new variable for each old one so far.
    """

    def __init__(self, main: Any) -> None:
        self.main, self.builder = main, relax.BlockBuilder()
        self.values = values_of(main)
        self.replaced: dict[Any, Any] = {}

    def rewritten(self) -> Any:
        """Return the new `main`."""
        parameters = list(map(self.parameter, self.main.params))
        with self.builder.function("main", parameters):
            with self.builder.dataflow():
                self.replaced.update(zip(self.main.params, parameters, strict=True))
                for variable, value in self.values.items():
                    self.bind(variable, value)
                outputs = [self.builder.emit_output(self.output(variable)) for variable in results_of(self.main)]
            self.builder.emit_func_output(returned(outputs))
        return self.builder.get()["main"]

    def in_module(self, module: Any, *, canonical: bool = False) -> Any:
        """Return the module with the new `main`; see `with_main`."""
        return with_main(module, self.rewritten(), canonical=canonical)

    def parameter(self, given: Any) -> Any:
        """Return the new parameter for an old one."""
        return given

    def bind(self, variable: Any, value: Any) -> None:
        """Emit the new value of an old variable."""
        self.replaced[variable] = self.builder.emit(self.value(variable, value))

    @abstractmethod
    def value(self, variable: Any, value: Any) -> Any:
        """Return the new value of an old variable."""

    def output(self, variable: Any) -> Any:
        """Return the variable to return in place of an old one."""
        return self.replaced.get(variable, variable)

    def rebuild(self, value: Any) -> Any:
        """Rebuild an expression of the new variables."""
        return rebuilt(value, lambda part: self.replaced.get(part, part))


class _Naming(MainRewriter):
    def value(self, variable: Any, value: Any) -> Any:
        return self.rebuild(value)


def with_named_outputs(module: Any) -> Any:
    """Return the module whose outputs are second names of variables: a view would not be one at run time if it were an output itself."""
    return _Naming(module["main"]).in_module(module)


def rewrite_main(
    module: Any, pattern: Any, replacement: Callable[[Any, Any], Any], numbers: Mapping[Any, float] = MappingProxyType({})
) -> Any:
    """Return the module with `main` rewritten.

    TVM's matcher sees through a second name of a variable, such as that of an output, and would give it as a match.

    Args:
        replacement: returns the new value from a match and the matches of the pattern's parts; `None` for a match that stays.
        numbers: values of constants of the pattern, where they are part of a match.
    """

    def replaced(match: Any, matched: Any) -> Any:
        known = all(part not in matched or holds(matched[part], number) for part, number in numbers.items())
        new = replacement(match, matched) if known and not isinstance(match, relax.Var) else None
        return match if new is None else new

    module = module.clone()
    module["main"] = rewrite_call(pattern, replaced, module["main"])
    return module


def either(operator: str, left: Any, right: Any) -> Any:
    """Return the pattern of a Relax operator with its operands in either order."""
    call = is_op(f"relax.{operator}")
    return call(left, right) | call(right, left)


def mutate_main(module: Any, mutator: Any) -> Any:
    """Return the module with `main` rewritten by a `PyExprMutator` made for this module, and with the functions it added."""
    name = next(variable for variable in module.get_global_vars() if variable.name_hint == "main")
    mutator.builder_.update_func(name, mutator.visit_expr(module[name]))
    return mutator.builder_.get()


def rebound_main(main: Any, value_of: Callable[[Any, Any], Any]) -> Any:
    """Return `main` with each variable bound to the result of `value_of(block builder, binding)`. Where that is a variable or a constant,
    readers use it directly; an output keeps its own name, so that it is not the name of a view.
    """
    builder = relax.BlockBuilder()
    results, renamed = results_of(main), dict[Any, Any]()
    with builder.function("main", list(main.params)):
        with builder.dataflow():
            for binding in bindings_of(main):
                value = value_of(builder, binding)
                is_name = isinstance(value, relax.Var | tvm.ir.GenericConst) and not value.same_as(binding.value)
                if renamed and not renamed.keys().isdisjoint(variables_of(value)):
                    value = builder.normalize(rebuilt(value, lambda part: renamed.get(part, part)))
                if binding.var in results:
                    renamed[binding.var] = builder.emit_output(value)
                else:
                    builder.emit_normalized(relax.VarBinding(binding.var, value))
                    if is_name:
                        renamed[binding.var] = value  # what `value_of` emits itself may read the old one
        builder.emit_func_output(returned([renamed.get(variable, variable) for variable in results]))
    return builder.get()["main"]


def with_main(module: Any, main: Any, *, canonical: bool = False) -> Any:
    """Return the module with another `main`, and without values that nobody reads. If `canonical`, each variable has only one name:
    layout inference and patterns do not see through a second.
    """
    module = module.clone()
    module["main"] = main
    return relax.transform.DeadCodeElimination()(relax.transform.CanonicalizeBindings()(module) if canonical else module)


#: From a value and all values by their variables to the new value; `None` for a value that stays.
_Replacement = Callable[[Any, Mapping[Any, Any]], Any]


def value_pass(replacement: _Replacement) -> Callable[[Any], Any]:
    """Make a pass of a function that looks at one value of `main` after another."""
    return lambda module: replace_values(module, replacement)


def replace_values(module: Any, replacement: _Replacement, *, in_turn: bool = False) -> Any:
    """Return the module with some values of `main` replaced, and without unread values.

    Args:
        replacement: see `_Replacement`.
        in_turn: replacements get the new values of the variables in front.
    """
    values, found = values_of(module["main"]), dict[Any, Any]()
    for variable, value in values.items():
        new = replacement(value, values)
        if new is not None:
            found[variable] = new
            if in_turn:
                values[variable] = new
    return replace_variables(module, found)


def replace_variables(module: Any, found: Mapping[Any, Any]) -> Any:
    """Return the module with new values of the same types for some variables of `main`, and without unread values.

    A new value may be an expression of several operators, a variable, or a constant.
    """
    if not found:
        return module

    def value_of(builder: Any, binding: Any) -> Any:
        return builder.normalize(found[binding.var]) if binding.var in found else binding.value

    return with_main(module, rebound_main(module["main"], value_of))
