"""Steps behind the sums of integers that no integer kernel has, in a layer of their own in float32.

Tools leave out the rounding behind a convolution whose result an activation, a sum or the network's output reads as a real number. The sums
stay in integers where a kernel returns them as real numbers; activation and summand go to a depthwise 1×1 convolution with factors of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tvmmobile.graph.integers import INTEGER_CURVES
from tvmmobile.graph.layers import NO_CLAMP, Conv2d, Layer, LayerParameters, Rounding
from tvmmobile.graph.passes.compose_layers import ComposedLayer, external_name, layer_call
from tvmmobile.graph.passes.rewriting import MainRewriter, readers_of, viewed


def steps_apart(
    module: Any, layers: Mapping[str, ComposedLayer], takes: Callable[[ComposedLayer], bool], accepts: Callable[[Layer], bool]
) -> tuple[Any, dict[str, ComposedLayer]]:
    """The module of composed layers and roundings with such steps apart, and all layers by the name of their external function.

    Args:
        takes: whether an integer kernel takes a layer that returns float32, whose weights are integers.
        accepts: whether some template takes a layer in float32.
    """
    module = module.clone()
    rewriting = _Rewriting(module["main"], layers, takes, accepts)
    module["main"] = rewriting.rewritten()
    return module, rewriting.layers


class _Rewriting(MainRewriter):
    def __init__(
        self, main: Any, layers: Mapping[str, ComposedLayer], takes: Callable[[ComposedLayer], bool], accepts: Callable[[Layer], bool]
    ) -> None:
        super().__init__(main)
        self.layers, self.takes, self.accepts, self.readers = dict(layers), takes, accepts, readers_of(main)

    def value(self, variable: Any, value: Any) -> Any:
        """The steps of a layer whose sums are integers, or the same."""
        from tvm import relax

        name = external_name(value) or ""
        found, again = self.layers.get(name), self.again(value)
        if found is None or not isinstance(found.layer, Conv2d) or not self._should_be_apart(variable, value.args[1].fields, found.layer):
            return again
        sums = ComposedLayer(
            replace(found.layer, clamp=NO_CLAMP, residual=False, then=()), LayerParameters(found.parameters.weight, found.parameters.bias)
        )
        steps = _steps(found)
        if not self.takes(sums) or not self.accepts(steps.layer):
            return again
        self.layers[name] = sums
        data, *others = again.args[1].fields
        computed = self.builder.emit(relax.call_dps_packed(name, relax.Tuple([data]), out_ty=variable.ty))
        return layer_call(self.layers, steps, [computed, *others], variable.ty)

    def _should_be_apart(self, variable: Any, read: Any, layer: Conv2d) -> bool:
        """Return whether a layer reads integers and has steps that it cannot do in integers."""
        if (
            not (layer.steps or layer.residual)
            or layer.scaled
            or layer.sources
            or layer.out_layout != "NHWC"
            or not self._is_rounded(read[0])
        ):
            return False
        known = isinstance(layer.clamp, tuple) or layer.clamp in INTEGER_CURVES
        return bool(layer.then) or not known or not all(map(self._is_rounded, read)) or not self._is_read_by_one_rounding(variable)

    def _is_rounded(self, variable: Any) -> bool:
        value: Any = self.values.get(variable)
        while (source := viewed(value)) is not None:
            value = self.values.get(source)
        return self._is_rounding(value)

    def _is_rounding(self, value: Any) -> bool:
        found = self.layers.get(external_name(value) or "")
        return found is not None and isinstance(found.layer, Rounding)

    def _is_read_by_one_rounding(self, variable: Any) -> bool:
        while len(readers := self.readers[variable]) == 1 and readers[0] is not None:
            variable = readers[0]
            if self._is_rounding(self.values[variable]):
                return True
            if viewed(self.values[variable]) is None:
                return False
        return False


def _steps(found: ComposedLayer) -> ComposedLayer:
    """The steps of a convolution as a layer of factors of one."""
    layer, channels = found.layer, found.layer.output_shape[-1]
    assert isinstance(layer, Conv2d)
    alone = Conv2d(
        layer.out_height,
        layer.out_width,
        channels,
        channels,
        groups=channels,
        clamp=layer.clamp,
        residual=layer.residual,
        then=layer.then,
    )
    ones, zeros = np.ones(alone.weight_shape, np.float32), np.zeros(channels, np.float32)
    return ComposedLayer(alone, replace(found.parameters, weight=ones, bias=zeros))
