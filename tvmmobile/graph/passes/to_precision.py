"""A network in another precision than float32: constants and what is computed; its input and output stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvmmobile.graph.precision import FLOAT32, Precision


def to_precision(precision: Precision) -> Callable[[Any], Any]:
    """The pass: float32 becomes `precision` throughout `main`, between a conversion of the input and one of the output."""

    def convert(module: Any) -> Any:
        from tvm import relax

        main = module["main"]
        builder = relax.BlockBuilder()
        replaced: dict[Any, Any] = {}
        with builder.function("main", list(main.params)):
            with builder.dataflow():
                for parameter in main.params:
                    replaced[parameter] = builder.emit(relax.op.astype(parameter, precision.name))
                for block in main.body.blocks:
                    for binding in block.bindings:
                        replaced[binding.var] = builder.emit(_converted(binding.value, replaced, precision))
                output = builder.emit_output(relax.op.astype(replaced[main.body.body], FLOAT32.name))
            builder.emit_func_output(output)
        module = module.clone()
        module["main"] = builder.get()["main"]
        return module

    return convert


def _converted(value: Any, replaced: dict[Any, Any], precision: Precision) -> Any:
    """An expression of variables and constants in `precision`."""
    import tvm
    from tvm import relax

    if isinstance(value, relax.Var):
        return replaced[value]
    if isinstance(value, tvm.ir.GenericConst):
        array = value.value.numpy()
        return relax.const(array.astype(precision.numpy)) if str(array.dtype) == FLOAT32.name else value
    if isinstance(value, relax.Tuple):
        return relax.Tuple([_converted(field, replaced, precision) for field in value.fields])
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(_converted(value.tuple_value, replaced, precision), value.index)
    if isinstance(value, relax.Call):
        return relax.Call(value.op, [_converted(argument, replaced, precision) for argument in value.args], value.attrs, value.ty_args)
    return value
