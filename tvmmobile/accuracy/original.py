"""Rebuilds the network that a library was compiled from, from its manifest and the user's options, for comparison."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from tvmmobile.networks.frontend import Compute
from tvmmobile.networks.models.spec import ModelSpec, OwnSpec
from tvmmobile.networks.own.files import FORMS, OwnFile, own_file
from tvmmobile.networks.states import outputs_but, states_of, with_states, without_states
from tvmmobile.running.library import Library
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import sha256_of

#: A manifest's descriptions of weights, see `models.weights.seed_weights`, `own.python_file.load_python` and
#: `models.checkpoints.load_checkpoint`.
_SEEDED = re.compile(r"seeded kaiming, seed (\d+)")
_FACTORY = re.compile(r".+ sha256 [0-9a-f]{64}, seed (\d+)", re.DOTALL)
_CHECKPOINT = re.compile(r"checkpoint sha256 ([0-9a-f]{64})")


@dataclass(frozen=True)
class Original:
    """The network, on the host.

    Attributes:
        spec: identity of the network.
        own: its file; `None` for a built-in network.
        checkpoint: file with its weights, if they are neither generated nor in the network's file.
        seed: seed of generated weights and values.
        reference_program: name and version of the program that computes its output, e.g. `PyTorch 2.13.0`.
        stateful: tensors that the library keeps between calls, as `--stateful` names them; here, each call begins with zeros.
    """

    spec: ModelSpec
    own: OwnFile | None
    checkpoint: Path | None
    seed: int
    reference_program: str
    stateful: tuple[str, ...] = ()

    @property
    def reference_program_name(self) -> str:
        """`reference_program` without the version."""
        return re.split(r" (?=\d)", self.reference_program, maxsplit=1)[0]


def original_of(library: Library, model: str | None, checkpoint: Path | None) -> Original:
    """Return the network of a library, after checking that it is the same one with the same weights.

    Args:
        model: the file, for a network of the user's own; it is read, and a Python file is executed.
        checkpoint: the state dict, if the library was compiled from one; for a built-in network, no tensor is read here.

    Raises:
        UserError: one of them is the wrong one, is missing, or does not apply.
    """
    own = _file(library, model)
    seed = _seed(library, checkpoint)
    if own is None:
        return Original(library.spec, None, checkpoint, seed, f"PyTorch {version('torch')}")
    from tvmmobile.networks.own.loading import load_own

    imported = load_own(own, library.spec.image_size, checkpoint, seed)
    # A .pt2 or an ONNX file may have been renamed since; for a Python file, the name identifies the function.
    given = library.facts.stateful
    seen = without_states(imported.spec, states_of(imported.spec, given))
    spec = seen if own.factory else replace(seen, name=library.spec.name)
    if spec != library.spec:
        assert isinstance(library.spec, OwnSpec)
        wanted = f"{library.spec.name}, SHA-256 {library.spec.contents}"
        raise UserError(f"--model {own} is not the network that {library.path.name} was compiled from.", f"Give the file of {wanted}")
    return Original(imported.spec, own, checkpoint, seed, imported.reference_program, given)


def compute_of(original: Original) -> Compute:
    """Return the network on the host.

    Raises:
        UserError: the file is no longer what it was, or the checkpoint does not fit the network.
    """
    from tvmmobile.networks.frontend import by_torch
    from tvmmobile.networks.models.registry import build_torch_model

    if original.own is None:
        return by_torch(build_torch_model(original.spec, original.checkpoint, original.seed).module)
    from tvmmobile.networks.own.loading import load_again

    compute = load_again(original.own, original.spec, original.checkpoint, original.seed).compute
    states = states_of(original.spec, original.stateful)
    return (lambda given: outputs_but(states, compute(with_states(states, given)))) if states else compute


def _file(library: Library, model: str | None) -> OwnFile | None:
    """Return the given file; `None` for a built-in network, which needs none."""
    own = isinstance(library.spec, OwnSpec)
    if model is None:
        if own:
            raise UserError(f"{library.path.name} is a network from a file ({library.spec.name}).", f"Give it with --model {FORMS}.")
        return None
    if not own:
        raise UserError(f"{library.path.name} is the built-in network {library.spec.name}.", "Leave out --model.")
    file = own_file(model)
    if file is None:
        raise UserError(f"--model {model} is not a file, but {library.path.name} was compiled from one.", f"Give {FORMS}.")
    return file


def _seed(library: Library, checkpoint: Path | None) -> int:
    """Return the manifest's seed, 0 without one; the checkpoint must be the manifest's."""
    weights = library.weights
    wanted = _CHECKPOINT.fullmatch(weights)
    if wanted is None:
        own = isinstance(library.spec, OwnSpec)
        seeded = (_FACTORY if own else _SEEDED).fullmatch(weights)
        if not (seeded or own):
            raise UserError(f"{library.manifest_path} has unknown weights: {weights!r}.", "Compile it again.")
        if checkpoint is not None:
            whose = "generated weights" if seeded else "those of its file"
            raise UserError(f"{library.path.name} was compiled with {whose} ({weights}).", "Leave out --checkpoint.")
        return int(seeded.group(1)) if seeded else 0
    if checkpoint is None:
        remedy = f"Give it with --checkpoint; its SHA-256 is {wanted.group(1)}"
        raise UserError(f"{library.path.name} was compiled from a checkpoint.", remedy)
    if not checkpoint.is_file():
        raise UserError(f"checkpoint {checkpoint} is not a file.", "Give the state dict that the library was compiled from.")
    if sha256_of(checkpoint) != wanted.group(1):
        raise UserError(
            f"checkpoint {checkpoint} is not the one that {library.path.name} was compiled from.",
            f"Give the file whose SHA-256 is {wanted.group(1)}",
        )
    return 0
