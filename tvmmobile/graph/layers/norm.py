"""Normalisation of activations when the network runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tvmmobile.graph.expressions import image_of
from tvmmobile.graph.layers.image import ImageLayer
from tvmmobile.graph.layers.kind import Form, Parts, form_of_operator
from tvmmobile.graph.layouts import to_nchw
from tvmmobile.graph.needs import SHAPE
from tvmmobile.graph.parameters import NO_PARAMETERS, Array, LayerParameters


class _Norm(ImageLayer):
    """Normalises an image, then multiplies each channel by a weight and may add a bias."""

    def random_parameters(self, generator: np.random.Generator, dtype: np.dtype[Any]) -> LayerParameters:
        """Draw weights around 1 and biases around 0."""
        weight, bias = (generator.normal(mean, 0.5, self.channels).astype(dtype) for mean in (1.0, 0.0))
        return LayerParameters(weight, bias if self.constants > self.channels else NO_PARAMETERS.bias)


def _form(name: str, layer: Any, biased: bool = True) -> Form:
    from tvm.relax.dpl import is_const

    return form_of_operator(f"nn.{name}", layer, {part: is_const() for part in ("weight", "bias")[: 1 + biased]}, constants=_constants)


def _constants(found: Parts) -> LayerParameters:
    bias = found["bias"].value.numpy() if "bias" in found else NO_PARAMETERS.bias
    return LayerParameters(found["weight"].value.numpy(), bias)


def _normalised(call: Any, *axes: int) -> tuple[int, int, int] | None:
    """Return the extents of one image that is normalised along these axes by a norm that uses its weights and biases."""
    known = [int(axis) % 4 for axis in call.attrs.axes] == [*axes] and all(getattr(call.attrs, name, True) for name in ("center", "scale"))
    return image_of(call) if known else None


@dataclass(frozen=True)
class ChannelNorm(_Norm):
    """Normalises each pixel's channels to mean 0 and variance 1, then scales and shifts them, NHWC (layer norm, arXiv 1607.06450).

    Attributes:
        epsilon: added to the variance.
        centred: false if channels are divided by their root mean square and have no bias (RMS norm, arXiv 1910.07467).
    """

    epsilon: float = field(metadata=SHAPE)
    centred: bool = True

    @property
    def kind(self) -> str:
        return "layer norm" if self.centred else "RMS norm"

    @property
    def constants(self) -> int:
        return (1 + self.centred) * self.channels

    @property
    def name(self) -> str:
        parts = [f"{self.height}x{self.width}", f"{self.channels}", f"e{self.epsilon:g}"]
        return "_".join(["norm" if self.centred else "rmsnorm", *parts, *self._stored_name()])

    @classmethod
    def forms(cls) -> list[Form]:
        return [_form("layer_norm", cls._of), _form("rms_norm", cls._of, biased=False)]

    @classmethod
    def _of(cls, found: Parts) -> ChannelNorm | None:
        image = _normalised(found["call"], 3)
        return cls(*image, float(found["call"].attrs.epsilon), "bias" in found) if image else None

    def compute(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        import torch

        given, weight = torch.from_numpy(data), torch.from_numpy(constants.weight)
        if not self.centred:
            return np.asarray(torch.nn.functional.rms_norm(given, [self.channels], weight, self.epsilon))
        return np.asarray(torch.nn.functional.layer_norm(given, [self.channels], weight, torch.from_numpy(constants.bias), self.epsilon))


@dataclass(frozen=True)
class GroupNorm(_Norm):
    """Normalises groups of neighbouring channels over all pixels to mean 0 and variance 1, then scales and shifts each channel, NHWC
    (arXiv 1803.08494).

    Attributes:
        groups: 1 normalises the whole image; as many as channels, each channel by itself (instance norm).
        epsilon: added to the variance.
    """

    groups: int = field(metadata=SHAPE)
    epsilon: float = field(metadata=SHAPE)
    kind: ClassVar[str] = "group norm"

    @property
    def constants(self) -> int:
        return 2 * self.channels

    @property
    def name(self) -> str:
        parts = [f"{self.height}x{self.width}", f"{self.channels}", f"g{self.groups}", f"e{self.epsilon:g}"]
        return "_".join(["groupnorm", *parts, *self._stored_name()])

    @classmethod
    def forms(cls) -> list[Form]:
        return [_form("group_norm", cls._of)]

    @classmethod
    def _of(cls, found: Parts) -> GroupNorm | None:
        attrs, image = found["call"].attrs, _normalised(found["call"], 1, 2)
        return cls(*image, int(attrs.num_groups), float(attrs.epsilon)) if image and int(attrs.channel_axis) % 4 == 3 else None

    def compute(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        import torch

        # Not `torch.nn.functional`'s, which refuses groups of one number; in float32 these would be differences of large products.
        image, weight, bias = (torch.from_numpy(array).double() for array in (to_nchw(data), constants.weight, constants.bias))
        normed = torch.group_norm(image, self.groups, weight, bias, self.epsilon).permute(0, 2, 3, 1)
        return np.ascontiguousarray(normed, data.dtype)
