"""PyTorch's decompositions are collected once, and again when a user's code has registered operators."""

from __future__ import annotations

import torch
from small_networks import Lambda

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
