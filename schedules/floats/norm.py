"""The base class of templates for layer norms, RMS norms and group norms, which have a weight and (except RMS norms) a bias per channel."""

from __future__ import annotations

from tvmmobile.graph.layers import Array, ChannelNorm, GroupNorm, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.space import Knobs
from tvmmobile.schedules.template import STORAGE, THREADS, Template


class Norm(Template):
    """The base class of templates that accept one norm, NHWC, on any number of threads."""

    handles = THREADS | STORAGE

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return the weights, then the biases if there are any; each of one element per channel."""
        assert isinstance(task.layer, ChannelNorm | GroupNorm)
        return [getattr(parameters[0], name) for name in norm_constants(task.layer)]


def norm_constants(layer: ChannelNorm | GroupNorm) -> tuple[str, ...]:
    """Return the argument names of a norm kernel's constants; an RMS norm has no bias."""
    return ("weight",) if isinstance(layer, ChannelNorm) and not layer.centred else ("weight", "bias")


def norm_shapes(layer: ChannelNorm | GroupNorm) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a norm kernel's arguments by name."""
    return {"data": layer.input_shape, **dict.fromkeys(norm_constants(layer), (layer.channels,)), "output": layer.output_shape}
