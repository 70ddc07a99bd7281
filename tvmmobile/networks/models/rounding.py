"""How later MobileNets round scaled channels."""

from __future__ import annotations


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, at least one of it, and at least 90 % of `channels`.

    As in tensorflow/models `research/slim/nets/mobilenet/mobilenet.py` (`_make_divisible`), torchvision and timm.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
