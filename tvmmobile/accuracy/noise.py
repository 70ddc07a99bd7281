"""Inputs for an evaluation: labelled images, or noise if only the agreement with the original matters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tvmmobile.networks.images import noise_count, noise_input
from tvmmobile.networks.labelled import LabelledFolder, LabelledImage, read_folder
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.system.scratch import scratch


def is_noise(folder: str) -> bool:
    """Return whether `noise:N` is given in place of a folder."""
    return noise_count(folder) > 0


@contextmanager
def inputs_in(folder: str, spec: ModelSpec, names: Sequence[str] | None) -> Iterator[LabelledFolder]:
    """Yield a folder's labelled images (see `read_folder`), or N inputs of noise for `noise:N`, on disk while the context lasts.

    Noise has the label 0, which means nothing; see `noise_input`.

    Raises:
        UserError: see `read_folder`.
    """
    count = noise_count(folder)
    if not count:
        yield read_folder(Path(folder), spec.classes, names)
        return
    with scratch("noise") as place:
        images = tuple(_written(place, number, spec) for number in range(count))
        yield LabelledFolder(Path(folder), images, 1, "none: noise, so that only the agreement means anything", 0)


def _written(place: Path, number: int, spec: ModelSpec) -> LabelledImage:
    path = place / f"{number:05}.npy"
    np.save(path, noise_input(number, spec.input_shape))
    return LabelledImage(path, f"noise/{path.name}", 0)
