"""Readers of the variables of `main`, and rewriting it: by pattern, by mutator, or binding by binding."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tvmmobile.graph.expressions import operator_of

#: The operator whose result is its first argument with another shape; it costs nothing at run time.
VIEW = "relax.reshape"


def bindings_of(function: Any) -> list[Any]:
    """All bindings, in order of execution."""
    return [binding for block in function.body.blocks for binding in block.bindings]


def readers_of(function: Any) -> dict[Any, list[Any]]:
    """For each variable, the variables computed from it, once per read; `None` stands for the result of the function."""
    readers: dict[Any, list[Any]] = defaultdict(list)
    for binding in bindings_of(function):
        for variable in variables_of(binding.value):
            readers[variable].append(binding.var)
    for variable in variables_of(function.body.body):
        readers[variable].append(None)
    return readers


def results_of(function: Any) -> tuple[Any, ...]:
    """The variables that a function returns, in order."""
    from tvm import relax

    result = function.body.body
    return tuple(result.fields) if isinstance(result, relax.Tuple) else (result,)


def returned(results: Sequence[Any]) -> Any:
    """The value of a function with these results."""
    from tvm import relax

    return results[0] if len(results) == 1 else relax.Tuple(list(results))


def variables_of(value: Any) -> Iterator[Any]:
    """Variables that an expression reads."""
    from tvm import relax

    if isinstance(value, relax.Var):
        yield value
    elif isinstance(value, relax.TupleGetItem):
        yield from variables_of(value.tuple_value)
    else:
        for part in (*getattr(value, "args", ()), *getattr(value, "fields", ())):
            yield from variables_of(part)


def viewed(value: Any) -> Any:
    """The variable or constant that a view or an alias shows; `None` for other values."""
    from tvm import relax

    if isinstance(value, relax.Var):
        return value
    return value.args[0] if operator_of(value) == VIEW else None


def view_of(value: Any, source: Any) -> Any:
    """A view or an alias, of another source."""
    from tvm import relax

    return source if isinstance(value, relax.Var) else relax.Call(value.op, [source, *value.args[1:]], value.attrs)


def rebuilt(value: Any, leaf: Callable[[Any], Any], attributes: Callable[[Any], Any] = lambda attrs: attrs) -> Any:
    """An expression with what `leaf` makes of its variables and constants, and `attributes` of its operators' attributes."""
    import tvm
    from tvm import relax

    def again(part: Any) -> Any:
        return rebuilt(part, leaf, attributes)

    if isinstance(value, relax.Var | tvm.ir.GenericConst):
        return leaf(value)
    if isinstance(value, relax.Tuple):
        return relax.Tuple([again(field) for field in value.fields])
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(again(value.tuple_value), value.index)
    if isinstance(value, relax.Call):
        return relax.Call(value.op, [again(argument) for argument in value.args], attributes(value.attrs), value.ty_args)
    return value


class MainRewriter(ABC):
    """`main` while its variables get other types, one binding after another.

    Attributes:
        values: of the old variables.
        replaced: the new variable for each old one so far.
    """

    def __init__(self, main: Any) -> None:
        from tvm import relax

        self.main, self.builder = main, relax.BlockBuilder()
        self.values = {binding.var: binding.value for binding in bindings_of(main)}
        self.replaced: dict[Any, Any] = {}

    def rewritten(self) -> Any:
        """The new `main`."""
        parameters = list(map(self.parameter, self.main.params))
        with self.builder.function("main", parameters):
            with self.builder.dataflow():
                self.replaced.update(zip(self.main.params, parameters, strict=True))
                for variable, value in self.values.items():
                    self.replaced[variable] = self.builder.emit(self.value(variable, value))
                outputs = [self.builder.emit_output(self.output(variable)) for variable in results_of(self.main)]
            self.builder.emit_func_output(returned(outputs))
        return self.builder.get()["main"]

    def parameter(self, given: Any) -> Any:
        """The new parameter for an old one."""
        return given

    @abstractmethod
    def value(self, variable: Any, value: Any) -> Any:
        """The new value of an old variable."""

    def output(self, variable: Any) -> Any:
        """Return the variable to return in place of an old one."""
        return self.replaced.get(variable, variable)

    def again(self, value: Any) -> Any:
        """Rebuild an expression of the new variables."""
        return rebuilt(value, lambda part: self.replaced.get(part, part))


def rewrite_main(module: Any, pattern: Any, replacement: Callable[[Any, Any], Any]) -> Any:
    """The module with `main` rewritten; `replacement` gets a match and the matches of the pattern's parts.

    TVM's matcher sees through a second name of a variable, such as that of an output, and would give it as a match.
    """
    from tvm import relax
    from tvm.relax.dpl import rewrite_call

    def unless_named_again(match: Any, matched: Any) -> Any:
        return match if isinstance(match, relax.Var) else replacement(match, matched)

    module = module.clone()
    module["main"] = rewrite_call(pattern, unless_named_again, module["main"])
    return module


def mutate_main(module: Any, mutator: Any) -> Any:
    """The module with `main` rewritten by a `PyExprMutator` made for this module, and with the functions it added."""
    name = next(variable for variable in module.get_global_vars() if variable.name_hint == "main")
    mutator.builder_.update_func(name, mutator.visit_expr(module[name]))
    return mutator.builder_.get()


def mutate_functions(module: Any, mutator: Any) -> Any:
    """The module with every Relax function rewritten by a `PyExprMutator` made for this module."""
    from tvm import relax

    for variable, function in module.functions_items():
        if isinstance(function, relax.Function):
            mutator.builder_.update_func(variable, mutator.visit_expr(function))
    return mutator.builder_.get()


def rebind_main(module: Any, value_of: Callable[[Any, Any], Any]) -> Any:
    """The module with each variable of `main` bound to the result of `value_of(block builder, binding)`."""
    import tvm
    from tvm import relax

    main, builder = module["main"], relax.BlockBuilder()
    outputs = dict.fromkeys(results_of(main))
    with builder.function("main", list(main.params)):
        with builder.dataflow():
            for binding in bindings_of(main):
                value = value_of(builder, binding)
                if binding.var in outputs:
                    outputs[binding.var] = builder.emit_output(value)
                else:
                    builder.emit_normalized(relax.VarBinding(binding.var, value))
        builder.emit_func_output(returned(list(outputs.values())))
    module = tvm.IRModule(dict(module.functions_items()), attrs=module.attrs)
    module["main"] = builder.get()["main"]
    return module


def replace_values(module: Any, replacement: Callable[[Any, Mapping[Any, Any]], Any]) -> Any:
    """The module with some values of `main` replaced, and without what nobody reads then.

    A variable as a new value is read itself from then on: layout inference knows no second name of a variable.

    Args:
        replacement: from a value, and all values by their variables, to the new value; `None` for one that stays.
    """
    from tvm import relax

    values = {binding.var: binding.value for binding in bindings_of(module["main"])}
    found = {variable: made for variable, value in values.items() if (made := replacement(value, values)) is not None}
    if not found:
        return module

    def value_of(builder: Any, binding: Any) -> Any:
        return builder.normalize(found[binding.var]) if binding.var in found else binding.value

    module = rebind_main(module, value_of)
    if any(isinstance(made, relax.Var) for made in found.values()):
        module = relax.transform.CanonicalizeBindings()(module)
    return relax.transform.DeadCodeElimination()(module)


def holds(constant: Any, number: float) -> bool:
    """Return whether a constant is that number and nothing else."""
    value = constant.value.numpy()
    return value.size == 1 and math.isclose(float(value.item()), number, rel_tol=1e-6, abs_tol=0.0 if number else 1e-12)
