"""Inputs for an evaluation: labelled images, or noise where only the agreement with the original is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tvmmobile.accuracy.labelled import LabelledFolder, LabelledImage, read_folder
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.system.scratch import scratch

_NOISE = re.compile(r"noise:([1-9]\d{0,4})")


def is_noise(folder: str) -> bool:
    """Whether `noise:N` is given in place of a folder."""
    return _NOISE.fullmatch(folder) is not None


@contextmanager
def inputs_in(folder: str, spec: ModelSpec, names: Sequence[str] | None) -> Iterator[LabelledFolder]:
    """A folder's labelled images (see `read_folder`), or N inputs of noise for `noise:N`, on disk while the context lasts.

    Noise is uniform with unit variance, as normalised photographs have, and the same each time. Its label, 0, means nothing.

    Raises:
        UserError: see `read_folder`.
    """
    noise = _NOISE.fullmatch(folder)
    if noise is None:
        yield read_folder(Path(folder), spec.classes, names)
        return
    with scratch("noise") as place:
        images = tuple(_written(place, number, spec) for number in range(int(noise[1])))
        yield LabelledFolder(Path(folder), images, 1, "none: noise, so that only the agreement means anything", 0)


def _written(place: Path, number: int, spec: ModelSpec) -> LabelledImage:
    path = place / f"{number:05}.npy"
    np.save(path, np.random.default_rng(number).uniform(-(3**0.5), 3**0.5, spec.input_shape).astype(np.float32))
    return LabelledImage(path, f"noise/{path.name}", 0)
