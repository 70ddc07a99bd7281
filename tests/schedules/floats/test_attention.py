"""Attention: values for any extents and places, and what the pass finds in networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from host_kernels import check_schedule, examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import error_against_torch, prepared
from torch import nn
from torch.nn import functional

from tvmmobile.graph.layers import Attention, Opaque
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_for


def joint(groups: int, heads: int, tokens: int, depth: int, width: int, merged: bool = True) -> Attention:
    """Queries, keys and values of one linear layer, in this order, each with its heads one behind the other."""
    pitch = heads * (2 * depth + width)
    shape, group = (groups, tokens, pitch), tokens * pitch
    places = (0, group, depth, pitch), (heads * depth, group, depth, pitch), (2 * heads * depth, group, width, pitch)
    return Attention(groups, heads, tokens, tokens, depth, width, depth**-0.5, (shape, shape, shape), *places, merged)


@examples(16)
@given(
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from((1, 2, 3, 5, 9, 16, 23)),
    st.sampled_from((1, 3, 4, 6, 16)),
    st.sampled_from((1, 4, 7, 12, 20)),
    st.booleans(),
    st.sampled_from(("", "one", "heads", "groups", "both")),
    st.integers(1, 3),
    st.integers(0, 8),
)
def test_values(
    tmp_path: Path, groups: int, heads: int, tokens: int, depth: int, width: int, merged: bool, biases: str, threads: int, choice: int
) -> None:
    bias = {"": (0, 0), "one": (1, 1), "heads": (1, heads), "groups": (groups, 1), "both": (groups, heads)}[biases]
    task = Task((replace(joint(groups, heads, tokens, depth, width, merged), bias=bias),), threads=threads)
    template = template_for(task)
    assert template is not None and template.name == "attention"
    space = template.space(task)
    assert space is not None and 1 <= len(space) <= 9
    check_schedule(task, space, choice, 1e-5, tmp_path)


def test_fewer_keys_and_one_head_of_them(tmp_path: Path) -> None:
    """All heads read the same keys and values (arXiv 1911.02150), which are tensors of their own."""
    shapes = (1, 12, 24), (1, 5, 8), (1, 5, 8)
    task = Task((Attention(1, 3, 12, 5, 8, 8, 0.3, shapes, (0, 0, 8, 24), (0, 0, 0, 8), (0, 0, 0, 8), True),))
    template = template_for(task)
    space = template.space(task) if template else None
    assert space is not None
    check_schedule(task, space, 0, 1e-5, tmp_path)


class Heads(nn.Module):
    """Self-attention of 12 channels in two heads, as networks write it."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.joint, self.last = form, nn.Linear(12, 36), nn.Linear(12, 8)
        self.distances = nn.Parameter(torch.empty(2, 9))
        self.register_buffer("places", (torch.arange(9)[:, None] - torch.arange(9)[None, :]).abs())
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0.0, 0.5, generator)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        batch, count = tokens.shape[:2]
        if self.form == "parts":  # as (batch, heads, tokens, elements) by slices of the linear layer's output
            query, key, value = (part.reshape(batch, count, 2, 6).transpose(1, 2) for part in self.joint(tokens).chunk(3, -1))
        else:
            query, key, value = self.joint(tokens).reshape(batch, count, 3, 2, 6).permute(2, 0, 3, 1, 4).unbind(0)
        if self.form == "one key head":
            key, value = key[:, :1], value[:, :1]
        if self.form == "fused":
            found = functional.scaled_dot_product_attention(query, key, value)
        elif self.form == "masked":
            found = functional.scaled_dot_product_attention(query, key, value, torch.ones(count, count, dtype=torch.bool).tril())
        elif self.form == "biased":  # by the distance of tokens, as LeViT has it
            found = ((query @ key.transpose(-2, -1)) * 0.4 + self.distances[:, self.places]).softmax(-1) @ value
        elif self.form == "temperatures":  # cosines with a factor for each head, as Swin 2 has it
            cosines = functional.normalize(query, dim=-1) @ functional.normalize(key, dim=-1).transpose(-2, -1)
            found = (cosines * self.distances[:, :1, None].clamp(max=1).exp() + self.distances[:, self.places]).softmax(-1) @ value
        elif self.form == "windows":  # each with a mask of its own, as Swin has it
            scores = (query @ key.transpose(-2, -1)) * 0.4 + self.distances[:, self.places].unsqueeze(0)
            windows = torch.where(torch.arange(count) < torch.tensor([[[2]], [[9]], [[5]]]), 0.0, -100.0)
            scores = scores.view(1, 3, 2, count, count) + windows.unsqueeze(1).unsqueeze(0)
            found = scores.view(-1, 2, count, count).softmax(-1) @ value
        else:
            scores = query @ key.transpose(-2, -1) / 6**0.5 if self.form == "divided" else (query * 0.5) @ key.transpose(-2, -1)
            found = scores.softmax(-1) @ value
        if self.form == "unmerged":
            return self.last(found.reshape(batch, count, 12))
        merged: torch.Tensor = self.last(found.transpose(1, 2).reshape(batch, count, 12))
        return merged


@pytest.mark.parametrize(
    "form", ["fused", "scaled", "divided", "parts", "one key head", "unmerged", "masked", "biased", "windows", "temperatures"]
)
def test_networks(tmp_path: Path, form: str) -> None:
    network, shape = Heads(form).eval(), (3 if form in ("fused", "scaled", "windows", "temperatures") else 1, 9, 12)
    found = [node.layer for node in prepared(network, shape).nodes]
    attentions = [layer for layer in found if isinstance(layer, Attention)]
    assert [layer.bias for layer in attentions] == [
        {"masked": (1, 1), "biased": (1, 2), "windows": (3, 2), "temperatures": (1, 2)}.get(form, (0, 0))
    ]
    others = 6 if form == "temperatures" else 0  # queries and keys, each cut out, its norm, and its quotient
    assert attentions[0].merged == (form != "unmerged") and sum(isinstance(layer, Opaque) for layer in found) == others
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5
