"""Networks in ncnn's files, a text of layers and their weights in a row, and the scales that make ncnn compute them in 8-bit integers.

ncnn's own tools for this (ncnn2table, ncnn2int8) are in no wheel. This module writes what they would: a scale per output channel for
weights and one per tensor for activations, without float32 between two convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

MAGIC = "7767517"
#: Before weights: they are float32.
_FLOAT32_TAG = 0
#: A layer's parameters by their numbers in the text: those before the bar are of convolutions, those behind it of fully connected layers.
_OUTPUTS, _GROUPS, _INTEGER = 0, 7, 8
_CONVOLUTIONS, _DEPTHWISE, _DENSE = "Convolution", "ConvolutionDepthWise", "InnerProduct"
#: Number of the parameters that say whether there is a bias, and how many weights there are.
_PLACES = {_CONVOLUTIONS: (5, 6), _DEPTHWISE: (5, 6), _DENSE: (1, 2)}
#: The value of `_INTEGER` where weights have a scale for each output channel; a hundred more where the output is in integers too.
_SCALES = {_CONVOLUTIONS: 2, _DEPTHWISE: 1, _DENSE: 2}
_INTEGER_OUTPUT = 100
_LARGEST = 127


@dataclass
class NcnnLayer:
    """A layer: its line of the `.param` file and its part of the weights.

    Attributes:
        inputs, outputs: names of tensors.
        values: its parameters by number, as they are written.
        weights, bias: `None` for a layer without.
        constants: constants of a tensor that is part of the network.
        scales: those of weights, the input and, where it is in integers, the output; none for a layer in float32.
    """

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    values: dict[str, str]
    weights: Array | None = None
    bias: Array | None = None
    constants: Array | None = None
    scales: list[Array] = field(default_factory=list)

    def number(self, key: int, default: int = 0) -> int:
        """Return a parameter that is a whole number."""
        return int(self.values.get(str(key), default))

    def line(self) -> str:
        """Return the layer's line of the `.param` file."""
        counts = f"{len(self.inputs)} {len(self.outputs)}"
        return " ".join(
            [self.kind, self.name, counts, *self.inputs, *self.outputs, *(f"{key}={value}" for key, value in self.values.items())]
        )

    def content(self) -> bytes:
        """Return the layer's bytes in the `.bin` file."""
        parts = [] if self.weights is None else [np.int32(_FLOAT32_TAG).tobytes(), self.weights.tobytes()]
        plain = (self.bias, self.constants, *self.scales)
        return b"".join([*parts, *(array.tobytes() for array in plain if array is not None)])


def read_layers(text: str, weights: bytes) -> list[NcnnLayer]:
    """Return the layers of a network in float32; raise `ValueError` for a file that has something else, or more."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if lines[0] != [MAGIC]:
        raise ValueError("this is no network of ncnn's")
    layers = [_layer(words) for words in lines[2:]]
    rest = memoryview(weights)

    def take(count: int) -> Array:
        nonlocal rest
        if len(rest) < 4 * count:
            raise ValueError("the weights end too early")
        found, rest = np.frombuffer(rest[: 4 * count], "<f4"), rest[4 * count :]
        return found

    for layer in layers:
        if layer.kind in _PLACES:
            has_bias, count = (layer.number(place) for place in _PLACES[layer.kind])
            if take(1).view("<i4")[0] != _FLOAT32_TAG:
                raise ValueError(f"the weights of {layer.name} are not in float32")
            layer.weights = take(count)
            layer.bias = take(layer.number(_OUTPUTS)) if has_bias else None
        elif layer.kind == "MemoryData":
            layer.constants = take(int(np.prod([max(1, layer.number(extent)) for extent in (0, 1, 11, 2)])))
    if rest:
        raise ValueError("a layer has weights that are not known here")
    return layers


def _layer(words: list[str]) -> NcnnLayer:
    kind, name, inputs, outputs = *words[:2], int(words[2]), int(words[3])
    tensors, values = words[4 : 4 + inputs + outputs], words[4 + inputs + outputs :]
    return NcnnLayer(kind, name, tensors[:inputs], tensors[inputs:], dict(value.split("=", 1) for value in values))


def write_layers(layers: list[NcnnLayer]) -> tuple[str, bytes]:
    """Return the text and the weights of a network."""
    tensors = {name for layer in layers for name in (*layer.inputs, *layer.outputs)}
    text = "\n".join([MAGIC, f"{len(layers)} {len(tensors)}", *(layer.line() for layer in layers)]) + "\n"
    return text, b"".join(layer.content() for layer in layers)


def quantised_inputs(layers: list[NcnnLayer]) -> list[str]:
    """Return the tensors whose largest magnitude `quantise` needs."""
    return sorted({layer.inputs[0] for layer in layers if layer.kind in _PLACES})


def quantise(layers: list[NcnnLayer], magnitudes: Mapping[str, float]) -> None:
    """Have every convolution and fully connected layer computed in integers.

    Args:
        layers: changed in place; weights stay as they are, since ncnn itself converts them as it loads them.
        magnitudes: the largest of each of `quantised_inputs`.
    """
    scale = {name: np.array([_LARGEST / magnitude], np.float32) for name, magnitude in magnitudes.items()}
    for layer in layers:
        if layer.weights is None:
            continue
        groups = layer.number(_GROUPS, 1) if layer.kind == _DEPTHWISE else layer.number(_OUTPUTS)
        largest = np.abs(layer.weights.reshape(groups, -1)).max(axis=1)
        layer.scales = [(_LARGEST / np.where(largest > 0, largest, _LARGEST)).astype(np.float32), scale[layer.inputs[0]]]
        integer = _SCALES[layer.kind]
        target = _integer_target(layer, layers)
        if target is not None:
            integer += _INTEGER_OUTPUT
            layer.scales.append(scale[target])
        layer.values[str(_INTEGER)] = str(integer)


def _integer_target(layer: NcnnLayer, layers: list[NcnnLayer]) -> str | None:
    """A tensor with the scale that all readers of a layer's output take it in, if they are all convolutions; after a copy for each, any."""
    if layer.kind == _DENSE:
        return None
    readers = list(_readers(layer.outputs[0], layers))
    convolutions = all(reader.kind in (_CONVOLUTIONS, _DEPTHWISE) for reader in readers)
    return readers[0].inputs[0] if readers and convolutions else None


def _readers(tensor: str, layers: list[NcnnLayer]) -> Iterator[NcnnLayer]:
    for layer in layers:
        if tensor in layer.inputs:
            if layer.kind == "Split":
                for copy in layer.outputs:
                    yield from _readers(copy, layers)
            else:
                yield layer
