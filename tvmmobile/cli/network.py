"""The networks that the command line names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tvmmobile.pipeline.options.option import HelpOrder, Options, option

if TYPE_CHECKING:
    from tvmmobile.networks.model import Model

#: What PyTorch's generator takes.
_MOST_SEED = 2**63 - 1


@dataclass(frozen=True)
class NetworkOptions(Options):
    """A network, the variants of it, and its weights."""

    model: str = option(
        "mobilenet_v1",
        "--model NAME",
        "Network family, or your own file: path.py:factory (executed), file.pt2, file.onnx or file.tflite.",
    )
    alpha: list[float] | None = option(None, "--alpha ALPHA", "Width multiplier, such as 0.5; may be given more than once.")
    resolution: list[str] | None = option(
        None,
        "--resolution SIDE",
        "Input side in pixels, such as 160; for your own network also HxW, such as 96x128. May be given more than once.",
    )
    activation: str | None = option(None, "--activation NAME", "Activation of MobileNet v1: relu6 (default) or relu.")
    batch: int | None = option(
        None, "--batch N", "Images at a time, for your own file with a dynamic batch dimension; default: 1.", settings={"min": 1}
    )
    shape: list[str] | None = option(
        None,
        "--shape INPUT=DIMS",
        "Shape of one input of your own file, for dynamic dimensions, such as audio=1x16000; may be given more than once.",
    )
    value: list[str] | None = option(
        None, "--value INPUT=NUMBER", "Value that an input of your own ONNX file always has, such as sr=16000; may be given more than once."
    )
    classes: int = option(1000, "--classes N", "Number of classes.")
    checkpoint: Path | None = option(
        None, "--checkpoint FILE", "State dict to load weights from; default: weights generated from --seed.", order=HelpOrder.WEIGHTS
    )
    seed: int = option(0, "--seed N", "Seed for generated weights and for the search.", settings={"min": 0, "max": _MOST_SEED})

    def models(self) -> Callable[[], Sequence[Model]]:
        """Return a function that loads the networks, for when everything else has been checked; a file may be executed."""
        from tvmmobile.networks.model import variants
        from tvmmobile.networks.own.files import own_file, shape_from, side_from, value_from

        own_file(self.model)
        return partial(
            variants,
            self.model,
            self.alpha or (),
            [side_from(text) for text in self.resolution or ()],
            activation=self.activation,
            classes=self.classes,
            checkpoint=self.checkpoint,
            seed=self.seed,
            batch=self.batch,
            shapes=dict(map(shape_from, self.shape or ())),
            values=dict(map(value_from, self.value or ())),
        )
