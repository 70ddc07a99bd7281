"""Taps that parts of a convolution's channels lack are found, and left out of its multiply-adds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_networks import error_against_torch, prepared, seeded, unit
from torch import nn

from tvmmobile.graph.layers import Array, Conv2d, TapWindow
from tvmmobile.graph.passes.tap_windows import windows_of

IMAGE = (1, 3, 6, 7)
FOUR = ((0, 2, 0, 2), (0, 2, 1, 3), (1, 3, 0, 2), (1, 3, 1, 3))


def _weight(windows: tuple[TapWindow, ...], channels: int) -> Array:
    """3×3 weights of two input channels, in parts of so many output channels."""
    weight = np.zeros((3, 3, 2, len(windows) * channels), np.float32)
    for part, (top, bottom, left, right) in enumerate(windows):
        weight[top:bottom, left:right, :, part * channels : (part + 1) * channels] = 1.0
    return weight


def test_windows_are_found() -> None:
    assert windows_of(_weight(FOUR, 8)) == FOUR


def test_parts_have_many_channels() -> None:
    assert windows_of(_weight(FOUR, 4)) == ((0, 2, 0, 3), (1, 3, 0, 3))
    assert windows_of(_weight(FOUR, 1)) == ()


def test_no_windows_without_zeros() -> None:
    assert windows_of(_weight(((0, 3, 0, 3),) * 4, 8)) == ()


def test_zeros_of_one_input_or_output_channel_hide_no_window() -> None:
    weight = _weight(FOUR, 8)
    weight[:, :, 0, 3] = weight[0, 0, :, 5] = weight[:, :, :, 9] = 0.0
    assert windows_of(weight) == FOUR


def test_a_part_of_zeros_keeps_a_tap() -> None:
    assert windows_of(_weight(((0, 3, 0, 3), (0, 0, 0, 0)), 8)) == ((0, 3, 0, 3), (0, 1, 0, 1))


@pytest.mark.parametrize(("kernel", "padding"), [((4, 4), (1, 1)), ((3, 3), (1, 1)), ((4, 2), (1, 0)), ((5, 3), (2, 0))], ids=str)
def test_a_transposed_convolution_multiplies_what_it_needs(tmp_path: Path, kernel: tuple[int, int], padding: tuple[int, int]) -> None:
    network = seeded(*unit(3, 8, 3), nn.ConvTranspose2d(8, 12, kernel, 2, padding), nn.BatchNorm2d(12), nn.ReLU(), *unit(12, 5))
    layer = prepared(network, IMAGE).nodes[1].layer
    assert isinstance(layer, Conv2d)
    places = layer.out_height * layer.out_width
    assert layer.macs == places * 8 * 12 * kernel[0] * kernel[1]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= 1e-5


def test_few_channels_keep_their_zeros(tmp_path: Path) -> None:
    """A vector holds channels of several parts."""
    network = seeded(*unit(3, 8, 3), nn.ConvTranspose2d(8, 1, 9, 2, 4, 1))
    layer = prepared(network, IMAGE).nodes[1].layer
    assert isinstance(layer, Conv2d) and not layer.windows
