"""Weights of a PyTorch module: from a state dict, or generated from a seed so that every kernel matters to the output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvmmobile.errors import UserError
from tvmmobile.files import sha256_of

if TYPE_CHECKING:
    import torch

#: The images that the generated batch-norm statistics are taken from: batch and side. The same for every resolution, because
#: parameters do not depend on it.
_PROBE_IMAGES, _PROBE_SIDE = 4, 96
#: Ranges of the generated batch norms' γ and β: with them a few percent of the activations reach ReLU6's upper bound.
_GAMMA, _BETA = (1.4, 3.0), (-0.25, 2.0)


def load_checkpoint(module: torch.nn.Module, path: Path) -> str:
    """Put the state dict saved in `path` into `module`; returns `checkpoint sha256 <hex>`.

    Only tensors are unpickled (`weights_only=True`), so a hostile file runs no code.

    Raises:
        UserError: the file is missing or not a state dict, or a tensor is missing, unknown, of the wrong shape or not finite.
    """
    state = _read_state_dict(path)
    expected = module.state_dict()
    # num_batches_tracked has no meaning in eval mode, and older files lack it.
    names = {name for name in expected if not name.endswith("num_batches_tracked")}
    given = {name for name in state if not name.endswith("num_batches_tracked")}
    _refuse(path, "lacks", sorted(names - given))
    _refuse(path, "has unknown", sorted(given - names))
    for name in names:
        _check_tensor(path, name, state[name], tuple(expected[name].shape))
    module.load_state_dict({name: state[name] for name in names}, strict=False)
    return f"checkpoint sha256 {sha256_of(path)}"


def seed_weights(module: torch.nn.Module, seed: int) -> str:
    """Fill `module` with Kaiming weights (uniform, fan out, ReLU) and non-trivial batch-norm statistics.

    Returns `seeded kaiming, seed <n>`.

    PyTorch's own initialisation lets activations vanish: the output is then the classifier's bias, whatever the kernels compute. Here
    each batch norm gets about the statistics of its own input for white-noise images, then a random γ and β, so that
    activations keep their spread, part of them are clipped on both sides, and different images give different logits.
    The same seed gives the same bits on every machine: only uniform numbers are drawn (exact, unlike normal ones),
    and the statistics are computed in float64 and kept to 8 bits. Leaves the global random state alone, and `module` in eval mode.

    Args:
        module: any module of convolutions, batch norms and linear layers that takes NCHW images of 3 channels.
        seed: any integer that PyTorch's generator takes.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)

    def uniform(shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float32).double() * (high - low) + low

    def settle(norm: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        width = (norm.num_features,)
        spread, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        spread = spread + 1e-3
        norm.running_var.copy_(_coarse(spread * uniform(width, 0.75, 1.25)))
        norm.running_mean.copy_(_coarse(mean + spread.sqrt() * uniform(width, -0.25, 0.25)))
        norm.weight.copy_(_coarse(uniform(width, *_GAMMA)))
        norm.bias.copy_(_coarse(uniform(width, *_BETA)))

    module.eval().double()
    hooks = [part.register_forward_pre_hook(settle) for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
                bound = math.sqrt(6 / _fan_out(part))
                part.weight.copy_(_coarse(uniform(tuple(part.weight.shape), -bound, bound), bits=20))
                if part.bias is not None:
                    part.bias.copy_(_coarse(uniform(tuple(part.bias.shape), -0.5, 0.5)))
        root = math.sqrt(3)  # unit variance, as normalised images have
        with single_thread():
            module(uniform((_PROBE_IMAGES, 3, _PROBE_SIDE, _PROBE_SIDE), -root, root))
    for hook in hooks:
        hook.remove()
    module.float()
    return f"seeded kaiming, seed {seed}"


@contextmanager
def single_thread() -> Iterator[None]:
    """PyTorch on one thread: results do not depend on their number.

    It is also the quicker way on a busy machine, where OpenMP's threads spin for each other (16 s instead of 0.05 was seen).
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fan_out(part: torch.nn.Module) -> int:
    """Outputs that one input value takes part in; a group's own ones only."""
    shape = part.weight.shape
    return int(math.prod(shape[2:]) * shape[0] // getattr(part, "groups", 1))


def _coarse(values: torch.Tensor, bits: int = 8) -> torch.Tensor:
    """`values` with `bits` significant bits, so that differences in the last place between machines vanish."""
    import torch

    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.round(mantissa * 2**bits) / 2**bits, exponent)


def _read_state_dict(path: Path) -> Mapping[str, Any]:
    import torch

    remedy = "Give --checkpoint a state dict saved with torch.save(model.state_dict(), FILE)."
    if not path.is_file():
        raise UserError(f"checkpoint {path} is not a file.", remedy)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load raises whatever its zip and pickle readers meet in a damaged file.
    except Exception as error:
        raise UserError(f"checkpoint {path} cannot be read: it is damaged, or holds more than tensors.", remedy) from error
    if not isinstance(state, Mapping) or not state or not all(isinstance(name, str) for name in state):
        raise UserError(f"checkpoint {path} holds {type(state).__name__}, not a state dict of named tensors.", remedy)
    return state


def _refuse(path: Path, verb: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise UserError(
            f"checkpoint {path} {verb} {', '.join(names[:3])}{more}.",
            "Its names must be those of timm's mobilenetv1_100; rename its tensors, or check --model.",
        )


def _check_tensor(path: Path, name: str, value: Any, shape: tuple[int, ...]) -> None:
    import torch

    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        raise UserError(f"checkpoint {path}: {name} is not a tensor of floating-point numbers.", "Save the float32 model's state dict.")
    if tuple(value.shape) != shape:
        given, wanted = ("×".join(map(str, sizes)) for sizes in (value.shape, shape))
        raise UserError(
            f"checkpoint {path}: {name} is {given}, but this variant needs {wanted}.", "Give the --alpha and --classes it was trained with."
        )
    if not torch.isfinite(value).all():
        raise UserError(f"checkpoint {path}: {name} holds NaN or infinity.", "Save the checkpoint again from a sound model.")
