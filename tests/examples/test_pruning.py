"""examples/pruning: which weights become zero and stay so, and the program from training to files that `tune` takes."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CommandLine
from torch import nn

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples" / "pruning"
sys.path[:0] = [str(EXAMPLES)]  # as the program finds it

from gradual import PATTERNS, Pattern, Pruner, mask_of, prunable, share_after  # noqa: E402

SHARES = (0.0, 0.1, 0.33, 0.5, 0.8, 1.0)


def weight_of(outputs: int = 12, inputs: int = 20) -> torch.Tensor:
    return torch.randn(outputs, inputs, 1, 1, generator=torch.Generator().manual_seed(0))


def check_pattern(weight: torch.Tensor, name: str) -> None:
    """The share of zeros, and where they are."""
    zero = (weight == 0).flatten(1)
    pattern = PATTERNS[name]
    assert int(zero.sum()) == pattern.together * round(pattern.zeros * zero.numel() / pattern.together)
    if name == "pairs":
        assert torch.equal(zero[0::2], zero[1::2])
    if name == "2:4":
        assert (zero.unflatten(1, (-1, 4)).sum(2) == 2).all()


def test_the_share_rises_fast_then_slower_and_stays() -> None:
    shares = [share_after(step, 20, 0.8) for step in range(30)]
    rises = [after - before for before, after in itertools.pairwise(shares)]
    assert shares[0] == 0 and shares[10] == pytest.approx(0.8 * (1 - 0.5**3)) and shares[20:] == [0.8] * 10
    assert rises == sorted(rises, reverse=True)


@pytest.mark.parametrize("share", SHARES)
def test_the_smallest_weights_go_first(share: float) -> None:
    weight = weight_of()
    kept = mask_of(weight, Pattern(0.8), share)
    assert int((~kept).sum()) == round(share * weight.numel())
    assert share in (0.0, 1.0) or weight[~kept].abs().max() < weight[kept].abs().min()


@pytest.mark.parametrize("share", SHARES)
def test_pairs_go_by_the_norm_of_both(share: float) -> None:
    weight = weight_of()
    kept = mask_of(weight, PATTERNS["pairs"], share)
    norms = weight.view(6, 2, 20).norm(dim=1)
    both = kept.view(6, 2, 20)
    assert torch.equal(both[:, 0], both[:, 1]) and int((~both[:, 0]).sum()) == round(share * norms.numel())
    assert share in (0.0, 1.0) or norms[~both[:, 0]].max() < norms[both[:, 0]].min()


@pytest.mark.parametrize("share", SHARES[:4])
def test_at_most_two_of_four_go(share: float) -> None:
    """Even if weights of other fours are larger."""
    weight = weight_of()
    weight[:3] *= 0.01
    kept = mask_of(weight, PATTERNS["2:4"], share)
    fours, magnitudes = (~kept).view(12, 5, 4), weight.abs().view(12, 5, 4)
    assert int(fours.sum()) == round(share * weight.numel()) and int(fours.sum(2).max()) <= 2
    assert (magnitudes.masked_fill(~fours, 0).amax(2) <= magnitudes.masked_fill(fours, torch.inf).amin(2)).all()


@pytest.mark.parametrize("name", PATTERNS)
def test_zeros_stay_where_the_mask_has_them(name: str) -> None:
    """Weights have momentum and decay; the first 1×1 convolution, a 3×3 and a grouped one are left alone."""
    torch.manual_seed(0)
    pointwise = nn.Conv2d(8, 20, 1), nn.Conv2d(20, 12, 1), nn.Conv2d(12, 16, 1)
    network = nn.Sequential(pointwise[0], nn.Conv2d(20, 20, 1, groups=5), nn.Conv2d(20, 20, 3), *pointwise[1:])
    assert prunable(network) == list(pointwise[1:])
    pruner = Pruner(prunable(network), PATTERNS[name], last=25)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=0.01)
    zeros = []
    for step in range(1, 31):
        optimizer.zero_grad()
        network(torch.randn(4, 8, 5, 5)).square().mean().backward()
        optimizer.step()
        pruner.after(step)
        for layer, mask in zip(pruner.layers, pruner.masks, strict=True):
            assert torch.equal(layer.weight == 0, ~mask)
        zeros.append([int((layer.weight == 0).sum()) for layer in pruner.layers])
    assert zeros[8] == [0, 0] and zeros == sorted(zeros) and zeros[9] < zeros[19] < zeros[24] == zeros[29]
    for layer in prunable(network):
        check_pattern(layer.weight, name)
    assert all((part.weight != 0).all() for part in network if part not in prunable(network))


def test_the_program_writes_networks_that_tune_takes(cli: CommandLine, tmp_path: Path) -> None:
    words = (EXAMPLES / "prune.py", "--steps", "3", "--images", "50", "--out", tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, *map(str, words)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert re.fullmatch(r"before: \d+\.\d\d% of 50 unseen digits are right", first)
    for line, (name, share) in zip(lines, (("unstructured", "80.0"), ("pairs", "80.0"), ("2:4", "50.0")), strict=True):
        interval = r"-?\d+\.\d\d to -?\d+\.\d\d"
        pattern = rf"{name}: {share}% zeros, \d+\.\d\d% right, -?\d+\.\d\d points lost \(95 % interval: {interval}\): (.*\.pt2)"
        found = re.fullmatch(pattern, line)
        assert found, line
        program = torch.export.load(found.group(1))
        weights = [weight for key, weight in program.state_dict.items() if key.endswith("conv_pw.weight")]
        assert len(weights) == 13 and (weights[0] != 0).all()
        for weight in weights[1:]:
            check_pattern(weight, name)

    tuned = cli(
        "tune", "--model", str(tmp_path / "digits_unstructured.pt2"), "--device", "pi4", "--dry-run", "--out", str(tmp_path / "out")
    )
    assert tuned.code == 0, tuned.err
    assert re.search(r"pw_8x8_\d+x\d+_sparse\d+x1_nchw_to_nchw", tuned.out)
