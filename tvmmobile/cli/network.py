"""The networks that the command line names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tvmmobile.pipeline.options.option import Options, option

if TYPE_CHECKING:
    from tvmmobile.networks.model import Model
    from tvmmobile.pipeline.options.network import NetworkOptions


@dataclass(frozen=True)
class Variants(Options):
    """A network by name, and its sizes; `NetworkOptions` has the rest."""

    model: str = option(
        "mobilenet_v1", "--model NAME", "Network family, or your own file: path.py:factory (executed), file.pt2, file.onnx or file.tflite."
    )
    alpha: list[float] | None = option(None, "--alpha ALPHA", "Width multiplier, such as 0.5; may be given more than once.")
    resolution: list[str] | None = option(
        None,
        "--resolution SIDE",
        "Input side in pixels, such as 160; for your own network also HxW, such as 96x128. May be given more than once.",
    )

    def models(self, options: NetworkOptions) -> Callable[[], Sequence[Model]]:
        """Return a function that loads the networks, for when everything else has been checked; a file may be executed."""
        from tvmmobile.networks.own.files import own_file, side_from
        from tvmmobile.pipeline.load import variants_of

        own_file(self.model)
        return partial(variants_of, self.model, self.alpha or (), [side_from(text) for text in self.resolution or ()], options)
