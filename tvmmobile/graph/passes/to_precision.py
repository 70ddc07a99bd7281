"""A network in another precision than float32: constants and what is computed; its input and output stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvmmobile.graph.passes.rewriting import bindings_of
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
                for binding in bindings_of(main):
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
        return relax.const(array, precision.name) if str(array.dtype) == FLOAT32.name else value
    if isinstance(value, relax.Tuple):
        return relax.Tuple([_converted(field, replaced, precision) for field in value.fields])
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(_converted(value.tuple_value, replaced, precision), value.index)
    if isinstance(value, relax.Call):
        arguments = [_converted(argument, replaced, precision) for argument in value.args]
        return relax.Call(value.op, arguments, _attributes(value.attrs, precision), value.ty_args)
    return value


def _attributes(attrs: Any, precision: Precision) -> Any:
    """An operator's attributes, with `precision` for float32 in those that name a type."""
    import tvm

    types = {name: str(getattr(attrs, name, "")) for name in ("dtype", "out_dtype")}
    if FLOAT32.name not in types.values():
        return attrs
    kind = type(attrs).__tvm_ffi_type_info__
    fields = {entry.name: getattr(attrs, entry.name) for entry in kind.fields}
    return tvm.ir.make_node(kind.type_key, **fields | {name: precision.name for name, named in types.items() if named == FLOAT32.name})
