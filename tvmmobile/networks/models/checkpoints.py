"""Weights from a state dict, with the names that torchvision or timm give a network."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tvmmobile.networks.budget import check_zip
from tvmmobile.networks.models.blocks import BatchNorm, Linear, Part, placed
from tvmmobile.system.errors import UserError, some_of
from tvmmobile.system.files import sha256_of

_PARAMETERS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class _Naming:
    """One way to name a network's tensors.

    Attributes:
        names: a name of it to the module's own.
        as_conv: names whose tensors are 1×1 convolutions, where the module has a fully connected layer.
        eps: the ε of batch norms by the module's path, where it differs.
    """

    names: Mapping[str, str]
    as_conv: frozenset[str]
    eps: Mapping[str, float]


def load_checkpoint(module: torch.nn.Module, body: Part, path: Path, spare: Sequence[str] = ()) -> str:
    """Put the state dict saved in `path` into `module`; return `checkpoint sha256 <hex>`.

    Only tensors are unpickled (`weights_only=True`), so a hostile file runs no code.

    Args:
        module: made from `body`.
        body: the description, which knows both ways to name a tensor.
        path: a file that `torch.save` wrote.
        spare: prefixes of names that may occur and are ignored.

    Raises:
        UserError: the file is missing or not a state dict, or a tensor is missing, unknown, of the wrong shape or not finite; messages use
            the file's own naming of tensors.
    """
    state = _read_state_dict(path)
    expected = _expected(module)
    given = {name for name in state if not _is_count(name) and not name.startswith(tuple(spare))}
    naming = max(_namings(body, expected), key=lambda one: len(given & one.names.keys()))
    remedy = "Its names must be those that torchvision or timm give this network; rename its tensors, or check --model."
    _check_names(path, naming.names.keys(), given, remedy)
    found = {}
    for name, own in naming.names.items():
        shape = tuple(expected[own].shape)
        wanted = expected[own].reshape(*shape, 1, 1) if name in naming.as_conv else expected[own]
        _check_tensor(path, name, state[name], wanted, "Give the --alpha and --classes it was trained with.")
        found[own] = state[name].reshape(shape)
    module.load_state_dict(found, strict=False)
    for name, eps in naming.eps.items():
        module.get_submodule(name).eps = eps
    return f"checkpoint sha256 {sha256_of(path)}"


def load_own_checkpoint(module: torch.nn.Module, path: Path) -> str:
    """Load the state dict in `path`, with the module's own names, into a user's module; see `load_checkpoint`."""
    state, expected = _read_state_dict(path), _expected(module)
    remedy = "It must be the state dict of the very module that the factory returns."
    _check_names(path, expected.keys(), {name for name in state if not _is_count(name)}, remedy)
    for name, value in expected.items():
        _check_tensor(path, name, state[name], value, remedy)
    module.load_state_dict({name: state[name] for name in expected}, strict=False)
    return f"checkpoint sha256 {sha256_of(path)}"


def _expected(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in module.state_dict().items() if not _is_count(name)}


def _is_count(name: str) -> bool:
    """Return whether a name is a batch norm's batch count, which eval mode ignores and older files lack."""
    return name.endswith("num_batches_tracked")


def _namings(body: Part, expected: Mapping[str, Any]) -> list[_Naming]:
    """Return names: the module's own, which are torchvision's; then timm's, if they differ."""
    own = _Naming({name: name for name in expected}, frozenset(), {})
    names: dict[str, str] = {}
    as_conv: set[str] = set()
    eps: dict[str, float] = {}
    for leaf in (place.leaf for place in placed(body, 224)):  # names are the same for every side
        timm = getattr(leaf, "timm", "")
        for kind in _PARAMETERS if timm else ():
            if f"{leaf.name}.{kind}" in expected:
                names[f"{timm}.{kind}"] = f"{leaf.name}.{kind}"
        if isinstance(leaf, Linear) and leaf.timm_conv:
            as_conv.add(f"{timm}.weight")
        if isinstance(leaf, BatchNorm) and leaf.timm_eps is not None:
            eps[leaf.name] = leaf.timm_eps
    return [own, _Naming(names, frozenset(as_conv), eps)] if names else [own]


def _read_state_dict(path: Path) -> Mapping[str, Any]:
    remedy = "Give --checkpoint a state dict saved with torch.save(model.state_dict(), FILE)."
    if not path.is_file():
        raise UserError(f"checkpoint {path} is not a file.", remedy)
    try:
        check_zip(f"checkpoint {path}", path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    # torch.load raises whatever its zip and pickle readers meet in a damaged file.
    except Exception as error:
        raise UserError(f"checkpoint {path} cannot be read: it is damaged, or holds more than tensors.", remedy) from error
    if not isinstance(state, Mapping) or not state or not all(isinstance(name, str) for name in state):
        raise UserError(f"checkpoint {path} holds {type(state).__name__}, not a state dict of named tensors.", remedy)
    return state


def _check_names(path: Path, wanted: Collection[str], given: Collection[str], remedy: str) -> None:
    for verb, names in (("lacks", sorted(set(wanted) - set(given))), ("has unknown", sorted(set(given) - set(wanted)))):
        if names:
            raise UserError(f"checkpoint {path} {verb} {some_of(names)}.", remedy)


def _check_tensor(path: Path, name: str, value: Any, wanted: torch.Tensor, remedy: str) -> None:
    """Raise `UserError` unless `value` can replace `wanted`."""
    if not isinstance(value, torch.Tensor) or (wanted.is_floating_point() and not value.is_floating_point()):
        raise UserError(f"checkpoint {path}: {name} is not a tensor of floating-point numbers.", "Save the float32 model's state dict.")
    if value.shape != wanted.shape:
        given, needed = ("×".join(map(str, tensor.shape)) for tensor in (value, wanted))
        raise UserError(f"checkpoint {path}: {name} is {given}, but this variant needs {needed}.", remedy)
    if not torch.isfinite(value).all():
        raise UserError(f"checkpoint {path}: {name} holds NaN or infinity.", "Save the checkpoint again from a valid model.")
