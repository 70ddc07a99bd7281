"""Weights generated from a seed so that every kernel matters to the output."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

#: Channels, height and width of the images that generated statistics are taken from. The same for every resolution, because
#: parameters do not depend on it.
PROBE = (3, 96, 96)
_PROBE_IMAGES = 4
#: Ranges of the generated batch norms' γ and β: with them a few percent of the activations reach ReLU6's upper bound.
_GAMMA, _BETA = (1.4, 3.0), (-0.25, 2.0)
#: Ranges of γ and β of attention's tokens, whose softmax would see little but the largest product; the fewest vectors that are tokens.
_TOKEN_GAMMA, _TOKEN_BETA, _LEAST_TOKENS = (0.4, 0.8), (-0.25, 0.25), 64
#: Weights rounded at a time: a fully connected layer of 10⁸ would need gigabytes otherwise.
_AT_ONCE = 2**24

_Uniform = Callable[[tuple[int, ...], float, float], "torch.Tensor"]


def seed_weights(module: torch.nn.Module, seed: int, scaled: Collection[str] = (), probe: tuple[int, ...] = PROBE) -> str:
    """Fill `module` with Kaiming weights (uniform, fan out, ReLU) and non-trivial batch-norm statistics.

    Returns `seeded kaiming, seed <n>`.

    PyTorch's own initialisation lets activations vanish: the output is then the classifier's bias, whatever the kernels compute. Here
    each batch norm gets about the statistics of its own input for white-noise images, then a random γ and β, so that
    activations keep their spread, part of them are clipped on both sides, and different images give different logits.
    Layers without batch norm are scaled after the same images (as in arXiv 1511.06422), so that what follows them sees the same spread.
    The same seed gives the same bits on every machine: only uniform numbers are drawn (exact, unlike normal ones),
    and the statistics are computed in float64 and kept to 8 bits. Leaves the global random state alone, and `module` in eval mode.

    Args:
        module: any module of convolutions, batch norms and linear layers that takes NCHW images.
        seed: any integer that PyTorch's generator takes.
        scaled: paths of the convolutions and linear layers to scale: those without batch norm.
        probe: channels, height and width of the white-noise images.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float32).double() * (high - low) + low

    module.eval().double()
    norms = (part for part in module.modules() if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d))
    hooks = [norm.register_forward_pre_hook(partial(_settle, uniform)) for norm in norms]
    hooks += [module.get_submodule(name).register_forward_hook(partial(_scale, uniform)) for name in scaled]
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
                _fill(part, uniform)
        root = math.sqrt(3)  # unit variance, as normalised images have
        with single_thread():
            module(uniform((_PROBE_IMAGES, *probe), -root, root))
    for hook in hooks:
        hook.remove()
    module.float()
    return f"seeded kaiming, seed {seed}"


def _fill(part: torch.nn.Module, uniform: _Uniform) -> None:
    """Draw Kaiming's uniform weights, and a bias of about their outputs' size."""
    outputs, _, *window = part.weight.shape  # each group's inputs contribute only to that group's outputs
    bound = math.sqrt(6 / int(math.prod(window) * outputs // getattr(part, "groups", 1)))
    flat = part.weight.view(-1)
    for start in range(0, len(flat), _AT_ONCE):
        chunk = flat[start : start + _AT_ONCE]
        chunk.copy_(_coarse(uniform((len(chunk),), -bound, bound), bits=20))
    if part.bias is not None:
        part.bias.copy_(_coarse(uniform(tuple(part.bias.shape), -0.5, 0.5)))


def _settle(uniform: _Uniform, norm: Any, inputs: tuple[torch.Tensor]) -> None:
    """Give a batch norm about the statistics of its input, and a random γ and β; one of a vector for each image stays as it is, because
    differences between a few images are too small to be scaled up.
    """
    width = (norm.num_features,)
    tokens = inputs[0].dim() == 2
    if tokens and len(inputs[0]) < _LEAST_TOKENS:
        return
    spread, mean = torch.var_mean(inputs[0], dim=[axis for axis in range(inputs[0].dim()) if axis != 1])
    # A channel of tokens may differ little between those of a few images, and more in others.
    spread = (inputs[0].var().expand(width) if tokens else spread) + 1e-3
    norm.running_var.copy_(_coarse(spread * uniform(width, 0.75, 1.25)))
    norm.running_mean.copy_(_coarse(mean + spread.sqrt() * uniform(width, -0.25, 0.25)))
    norm.weight.copy_(_coarse(uniform(width, *(_TOKEN_GAMMA if tokens else _GAMMA))))
    norm.bias.copy_(_coarse(uniform(width, *(_TOKEN_BETA if tokens else _BETA))))


def _scale(uniform: _Uniform, part: Any, _inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
    """Scale a layer's weights by its output's size, and set the output to the scaled layer's.

    If images have many pixels and the layer a bias, each channel is scaled as a batch norm would do. Otherwise the layer is scaled as a
    whole to unit variance: differences between a few images are too small to be scaled up.
    """
    bias = part.bias
    raw = output if bias is None else output - _per_channel(bias, output)
    if bias is not None and output.dim() == 4 and output.shape[-1] > 1:
        spread, mean = torch.var_mean(raw, dim=(0, 2, 3))
        factor = _coarse(uniform((len(bias),), *_GAMMA) / (spread + 1e-6).sqrt())
        bias.copy_(_coarse(uniform((len(bias),), *_BETA) - mean * factor))
    else:
        factor = _coarse(1 / (raw.var() + 1e-6).sqrt()).expand(output.shape[1])
    part.weight.mul_(factor.reshape(-1, *[1] * (part.weight.dim() - 1)))
    scaled = raw * _per_channel(factor, output)
    return scaled if bias is None else scaled + _per_channel(bias, output)


def _per_channel(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return `values`, one for each channel, so that they can be added to `like`, NCHW or NC."""
    return values.reshape(1, -1, *[1] * (like.dim() - 2))


@contextmanager
def single_thread() -> Iterator[None]:
    """Run PyTorch on one thread: results do not depend on their number.

    It is also faster on a busy machine, where OpenMP's threads spin for each other (16 s instead of 0.05 s has been observed).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _coarse(values: torch.Tensor, bits: int = 8) -> torch.Tensor:
    """Return `values` with `bits` significant bits, so that differences in the last place between machines vanish."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.round(mantissa * 2**bits) / 2**bits, exponent)
