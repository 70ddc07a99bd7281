"""PyTorch's decompositions are collected once, and again when a user's code has registered operators; ours lead to few kernels."""

from __future__ import annotations

import torch
from small_networks import Lambda, prepared, seeded, unit
from torch import nn

from tvmmobile.graph.layers import Opaque
from tvmmobile.networks.frontend import decomposed, export_torch
from tvmmobile.networks.torch_operators import decompositions


def test_decompositions_are_collected_once() -> None:
    decompositions()  # which makes all of PyTorch's own operators known
    assert decompositions() is decompositions()


def test_operators_that_are_registered_later_are_decomposed_too() -> None:
    library = torch.library.Library("tvmmobile_tests", "DEF")
    for name in ("twice", "thrice"):  # the second one in a namespace that was there already
        decompositions()
        library.define(f"{name}(Tensor x) -> Tensor")
        library.impl(name, lambda x: x * 3, "CompositeImplicitAutograd")
        network = Lambda(getattr(torch.ops.tvmmobile_tests, name))
        program = decomposed(export_torch(network, [torch.zeros(1, 3)]))
        assert [node.target for node in program.graph.nodes if node.op == "call_function"] == [torch.ops.aten.mul.Tensor]


def test_a_roll_along_two_axes_is_one_move() -> None:
    """Shifted windows are such; PyTorch's own decomposition takes rows, then columns, by places."""
    network = seeded(*unit(3, 8, 3), Lambda(lambda x: x.permute(0, 2, 3, 1).roll((-3, 2), (1, 2))), nn.Linear(8, 5))
    found = [node.layer.operator for node in prepared(network, (1, 3, 6, 7)).nodes if isinstance(node.layer, Opaque)]
    assert len(found) == 1 and "take" not in found[0], found
