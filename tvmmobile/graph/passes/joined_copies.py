"""Copies that `standalone_steps` put in front of concatenations and sums, as parts of the layers beside them.

A convolution reads the pieces of a concatenation itself, where no algorithm that needs one tensor would have been faster; and a sum behind
an activation becomes the last step of the layer that computes one of its terms. Slices of channels that convolutions read or add are not
copied either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tvmmobile.graph.curves import CHANNEL, PLUS, TENSOR
from tvmmobile.graph.layers import NO_CLAMP, Conv2d, Layer
from tvmmobile.graph.passes.channel_trace import NHWC
from tvmmobile.graph.passes.compose_layers import ComposedLayer, external_name
from tvmmobile.graph.passes.input_pieces import channel_slice
from tvmmobile.graph.passes.rewriting import MainRewriter, bindings_of, readers_of


def joined_copies(accepts: Callable[[Layer], bool], layers: dict[str, ComposedLayer]) -> Callable[[Any], Any]:
    """The pass, where a template takes the layers; it changes `layers`."""

    def join(module: Any) -> Any:
        from tvm import relax

        main = module["main"]
        readers, values = readers_of(main), {binding.var: binding.value for binding in bindings_of(main)}
        calls = {binding.var: _Call.of(binding.value, layers) for binding in bindings_of(main) if external_name(binding.value) in layers}
        joined: dict[Any, _Call] = {}
        for variable, call in calls.items():
            made = _reading(call, calls, readers) or _summing(call, calls, readers)
            if made and accepts(made.layer):
                joined[variable] = calls[variable] = made
                layers[made.name] = replace(layers[made.name], layer=made.layer)
        for variable in (variable for variable, value in values.items() if channel_slice(value)):
            own = {reader: _reading_slice(calls[reader], variable, values) for reader in readers[variable] if reader in calls}
            reading = {reader: call for reader, call in own.items() if call and accepts(call.layer)}
            if reading.keys() == {*readers[variable]}:
                joined |= reading
                calls |= reading
                layers.update({call.name: replace(layers[call.name], layer=call.layer) for call in reading.values()})
        if not joined:
            return module
        module = module.clone()
        module["main"] = _Rewriting(main, joined).rewritten()
        return relax.transform.DeadCodeElimination()(module)

    return join


@dataclass(frozen=True)
class _Call:
    """A layer's call: the name of its external function, the layer, and what it reads."""

    name: str
    layer: Layer
    arguments: tuple[Any, ...]
    is_copy: bool

    @classmethod
    def of(cls, value: Any, layers: dict[str, ComposedLayer]) -> _Call:
        """The call that a value is."""
        name = str(external_name(value))
        found = layers[name]
        copy = found.copy
        return cls(name, found.layer, tuple(value.args[1].fields), copy is not None and copy.in_layout == "NHWC")


class _Rewriting(MainRewriter):
    """`main` while layers get what they read and add themselves; calls that nobody reads any more are left behind."""

    def __init__(self, main: Any, joined: dict[Any, _Call]) -> None:
        super().__init__(main)
        self.joined = joined

    def value(self, variable: Any, value: Any) -> Any:
        """A call with other arguments, or the old value."""
        from tvm import relax

        call = self.joined.get(variable)
        if call is None:
            return self.again(value)
        arguments = [self.replaced[argument] for argument in call.arguments]
        return relax.call_dps_packed(call.name, relax.Tuple(arguments), out_ty=value.ty_args[0])


def _reading(call: _Call, calls: dict[Any, _Call], readers: dict[Any, list[Any]]) -> _Call | None:
    """A convolution that reads the pieces which a copy for it alone puts together."""
    source = calls.get(call.arguments[0])
    if not isinstance(call.layer, Conv2d) or call.layer.scaled or call.layer.pieces or call.layer.in_layout != "NHWC":
        return None
    if source is None or not (source.is_copy and isinstance(source.layer, Conv2d) and source.layer.pieces and not source.layer.residual):
        return None
    if len(readers[call.arguments[0]]) > 1:
        return None
    layer = replace(call.layer, sources=source.layer.sources, pieces=source.layer.pieces)
    return replace(call, layer=layer, arguments=(*source.arguments, *call.arguments[1:]), is_copy=False)


def _summing(call: _Call, calls: dict[Any, _Call], readers: dict[Any, list[Any]]) -> _Call | None:
    """The layer of one term of a sum that adds the other term behind its activation; without one, the other was its residual already."""
    if not (call.is_copy and isinstance(call.layer, Conv2d) and call.layer.residual and not call.layer.pieces):
        return None
    for term, other in (call.arguments, call.arguments[::-1]):
        made = calls.get(term)
        if made is None or len(readers[term]) > 1 or not isinstance(made.layer, Conv2d):
            continue
        if made.layer.clamp != NO_CLAMP and made.layer.out_layout == "NHWC":
            layer = replace(made.layer, then=(*made.layer.then, PLUS))
            return replace(made, layer=layer, arguments=(*made.arguments, other), is_copy=False)
    return None


def _reading_slice(call: _Call, sliced: Any, values: Mapping[Any, Any]) -> _Call | None:
    """A convolution that reads a slice as its input, or adds it, from the tensor that the slice is of."""
    layer, arguments, found = call.layer, [*call.arguments], channel_slice(values[sliced])
    if not isinstance(layer, Conv2d) or found is None:
        return None
    tensor, first, count = found
    channels = int(tensor.ty.shape[NHWC])
    if arguments[0].same_as(sliced) and not (layer.scaled or layer.pieces) and layer.in_layout == "NHWC":
        layer, arguments[0] = replace(layer, sources=(channels,), pieces=((0, first, count),)), tensor
    added = [layer.residual, *(kind for kind in layer.operands if kind != CHANNEL)]
    if arguments[-1].same_as(sliced) and added in ([True], [False, TENSOR]):
        layer, arguments[-1] = replace(layer, added=(channels, first)), tensor
    return None if any(one.same_as(sliced) for one in arguments) else replace(call, layer=layer, arguments=tuple(arguments))
