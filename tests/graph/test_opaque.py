"""Multiply-adds of layers that no template takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from network_files import write_python
from own_networks import load, module_text, network_of

from tvmmobile.graph.layers import Opaque
from tvmmobile.graph.precision import INT8
from tvmmobile.graph.tasks import Task


@pytest.mark.parametrize(
    "forward",
    [
        "return torch.sin(self.conv(x).flatten(2) @ self.conv(x + 1).sin().flatten(2).transpose(1, 2)[0]).flatten(1)",
        "return torch.sin(nn.functional.conv2d(self.conv(x), self.conv(x + 1)[0, :, :3, :3].repeat(6, 2, 1, 1)[:, :4]))",
    ],
    ids=["matrix that is computed", "weights that are computed"],
)
def test_what_the_network_has_is_what_its_layers_have(tmp_path: Path, forward: str) -> None:
    imported = load(f"{write_python(tmp_path, module_text(forward))}:small", 12)
    nodes = network_of(imported).nodes
    assert any(isinstance(node.layer, Opaque) and node.macs for node in nodes)
    assert sum(node.macs for node in nodes) == imported.macs


def test_norms_and_means_have_none(tmp_path: Path) -> None:
    forward = "return nn.functional.layer_norm(self.conv(x), (8,)).log().mean(1).var(1)"
    nodes = network_of(load(f"{write_python(tmp_path, module_text(forward))}:small", 8)).nodes
    assert [node.macs for node in nodes if isinstance(node.layer, Opaque)] == [0] * (len(nodes) - 1)


def test_in_a_network_of_integers_they_may_be_off_as_floats_are_but_not_by_a_step_of_a_byte() -> None:
    """A sigmoid of selected scores stays in floats there: its trials failed for being 6e-8 off."""
    sigmoid = Task((Opaque("sigmoid", "e86e0486fbeb", ((1, 300),), (1, 300)),), INT8.name)
    assert 1e-5 < sigmoid.tolerance < 1 / 255
