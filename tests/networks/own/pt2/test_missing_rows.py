"""Networks of torch.export that select boxes or places agree with PyTorch: as many rows as it finds, then fillers, and their number beside.

torchvision is not needed: its `nms` is defined here as torchvision does, unless it is installed, and computed box by box.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from network_files import write_pt2
from onnx_campaign import built, difference_of, run
from own_networks import load
from torch import nn

from tvmmobile.system.errors import UserError

Tensors = dict[str, torch.Tensor]
BOXES, KINDS = 9, 2


def greedy(boxes: torch.Tensor, scores: torch.Tensor, overlap: float) -> torch.Tensor:
    kept: list[int] = []
    for place in sorted(range(len(scores)), key=lambda place: -float(scores[place])):
        one = boxes[place]
        for other in boxes[kept]:
            width, height = (min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis]) for axis in (0, 1))
            common = max(width, width * 0) * max(height, height * 0)
            areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
            if float(common / (areas[0] + areas[1] - common)) > overlap:
                break
        else:
            kept.append(place)
    return torch.tensor(kept, dtype=torch.int64)


@pytest.fixture(scope="module", autouse=True)
def nms() -> Iterator[None]:
    if hasattr(torch.ops.torchvision, "nms"):
        yield
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", greedy, "CPU")
    size = torch.library.get_ctx
    torch.library.register_fake(
        "torchvision::nms", lambda dets, *_: dets.new_empty(size().new_dynamic_size(), dtype=torch.long), lib=library
    )
    yield
    library._destroy()


def select(boxes: torch.Tensor, scores: torch.Tensor, overlap: float) -> torch.Tensor:
    found: torch.Tensor = torch.ops.torchvision.nms(boxes, scores, overlap)
    return found


def by_kind(boxes: torch.Tensor, scores: torch.Tensor, kinds: torch.Tensor, overlap: float) -> torch.Tensor:
    """Move boxes of different kinds apart, as torchvision's `batched_nms` does."""
    return select(boxes + (kinds.to(boxes) * (boxes.max() + 1))[:, None], scores, overlap)


def first_ones(boxes: torch.Tensor, scores: torch.Tensor) -> Tensors:
    keep = select(boxes, scores[0], 0.3)[:4]
    return {"boxes": boxes[keep], "scores": scores[0][keep]}


def all_kept(boxes: torch.Tensor, scores: torch.Tensor) -> Tensors:
    keep = select(boxes, scores[1], 0.1)
    return {
        "keep": keep,
        "pair": torch.stack([scores[0, keep], scores[1, keep]], 1),
        "best": scores[:, keep].amax(1),
        "sum": boxes[keep].sum(0),
    }


def high_scores(boxes: torch.Tensor, scores: torch.Tensor) -> Tensors:
    best, kinds = scores.max(0)
    high = best > best.mean()
    boxes, best, kinds = boxes[high], best[high], kinds[high]
    boxes -= 0.25
    boxes[:, 2:] *= 1.5
    keep = by_kind(boxes, best, kinds, 0.3)
    return {"boxes": boxes[keep], "best": best[keep], "kinds": kinds[keep].int()}


def places(boxes: torch.Tensor, scores: torch.Tensor) -> Tensors:
    kinds, found = torch.where(scores > 2.0)
    high = (scores[1] > 0.0).nonzero()[:, 0]
    return {
        "scores": scores[kinds, found],
        "rows": torch.cat([boxes[found], kinds[:, None].float()], 1),
        "high": high[select(boxes[high], scores[0][high], 0.5)],
    }


def kinds_one_by_one(boxes: torch.Tensor, scores: torch.Tensor) -> Tensors:
    kept = [select(boxes, score, 0.2)[:3] for score in scores]
    rows = [
        torch.cat([boxes[keep], each[keep, None], torch.full((keep.shape[0], 1), float(kind))], 1)
        for kind, (keep, each) in enumerate(zip(kept, scores, strict=True))
    ]
    joined = torch.cat([*rows, rows[0].new_ones(2, 6)])
    return {"rows": joined, "products": joined @ torch.arange(12.0).reshape(6, 2)}


def filled_up(boxes: torch.Tensor, scores: torch.Tensor) -> Tensors:
    """Fill up the rows as ultralytics does for networks with `nms=True`."""
    made = torch.zeros(1, 5, 6)
    best, kinds = scores.max(0)
    mask = best > 0.25
    box, score, kind = boxes[mask], best[mask], kinds[mask]
    moved = box.clone() * 0.5 + kind.view(kind.shape[0], 1).expand(kind.shape[0], 4) * 0.5
    keep = select(moved, score, 0.3)[:5]
    found = torch.cat([box[keep], score[keep].view(-1, 1), kind[keep].view(-1, 1).to(made.dtype)], -1)
    made[0] = nn.functional.pad(found, (0, 0, 0, 5 - found.shape[0]))
    return {"made": made}


class Net(nn.Module):
    """Boxes `[9, 4]` and scores `[2, 9]` that a product makes of its input, and what follows."""

    def __init__(self, *followers: Callable[[torch.Tensor, torch.Tensor], Tensors]) -> None:
        super().__init__()
        self.followers, self.product = followers, nn.Linear(3, BOXES * (4 + KINDS))
        self.product.weight.data = torch.randn(self.product.weight.shape, generator=torch.Generator().manual_seed(5))

    def forward(self, x: torch.Tensor) -> Tensors:
        numbers, scores = self.product(x).split([4 * BOXES, KINDS * BOXES], 1)
        middle, size = numbers.reshape(BOXES, 4).split(2, 1)
        boxes, scores = torch.cat([middle - size.abs(), middle + size.abs()], 1), scores.reshape(KINDS, BOXES)
        return {f"{follower.__name__}_{name}": made for follower in self.followers for name, made in follower(boxes, scores).items()}


def test_followers_agree(tmp_path: Path) -> None:
    from tvm import relax

    module = Net(first_ones, all_kept, high_scores, places, kinds_one_by_one, filled_up).eval()
    imported, counts = load(write_pt2(module, tmp_path / "net.pt2", (1, 3))), set[int]()
    machine = built([relax.transform.LegalizeOps()(imported.module)])
    shapes = {port.name: port.shape for port in imported.spec.returns}
    assert shapes["first_ones_boxes"] == (4, 4) and shapes["kinds_one_by_one_rows"] == (8, 6) and "filled_up_made/count" not in shapes
    for seed in range(25):
        given = np.random.default_rng(seed).normal(0.0, 0.8, (1, 3)).astype(np.float32)
        with torch.no_grad():
            wanted = module(torch.from_numpy(given))
        for outputs in (run(machine, "main_0", [given]), imported.compute([given])):
            found = {port.name: output for port, output in zip(imported.spec.returns, outputs, strict=True)}
            for name, expected in wanted.items():
                rows = len(expected)
                if f"{name}/count" in found:
                    counts.add(rows)
                    assert found[f"{name}/count"] == [rows], (seed, name)
                    assert (found[name][rows:] == (0 if expected.is_floating_point() else -1)).all(), (seed, name)
                assert difference_of(found[name][:rows], expected.numpy()) <= 1e-5, (seed, name, found[name], expected)
    assert counts >= {0, 1, 2, 3, 4, 5, 8}, counts


def test_a_python_file(tmp_path: Path) -> None:
    text = f"""
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.product = nn.Linear(3, {5 * BOXES})

    def forward(self, x):
        numbers = self.product(x).reshape({BOXES}, 5)
        boxes = torch.cat([-numbers[:, :2].abs(), numbers[:, 2:4].abs()], 1)
        return boxes[torch.ops.torchvision.nms(boxes, numbers[:, 4], 0.5)[:4]]

def net():
    return Net(), torch.zeros(1, 3)
"""
    path = tmp_path / "net.py"
    path.write_text(text)
    imported = load(f"{path}:net")
    assert [(port.name, port.shape) for port in imported.spec.returns] == [("output", (4, 4)), ("output/count", (1,))]
    boxes, (count,) = imported.compute([np.ones((1, 3), np.float32)])
    assert 0 < count <= 4 and boxes[:count].any(1).all() and not boxes[count:].any()


REFUSED: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mean.dim": lambda boxes, keep: boxes[keep].mean(0),
    "flip.default": lambda boxes, keep: boxes[keep].flip(0),
    "select.int": lambda boxes, keep: boxes[keep][0],
    "div.Tensor": lambda boxes, keep: boxes[keep] / keep.shape[0],
    "slice.Tensor": lambda boxes, keep: boxes[keep[1:]],
    "softmax.int": lambda boxes, keep: boxes[keep].softmax(0),
    "reshape.default": lambda boxes, keep: boxes[keep].transpose(0, 1).reshape(-1),
}


@pytest.mark.parametrize("operator", list(REFUSED))
def test_others_are_refused_by_name(tmp_path: Path, operator: str) -> None:
    module = Net(lambda boxes, scores: {"": REFUSED[operator](boxes, select(boxes, scores[0], 0.5))})
    with pytest.raises(UserError, match=rf"aten\.{operator} \(node '\w+'\) reads boxes or places whose number is known only at run time"):
        load(write_pt2(module, tmp_path / "net.pt2", (1, 3)))


def test_equal_scores_and_shares_on_the_threshold() -> None:
    """Coordinates and scores are multiples of a power of two; 0.1 is no number of float32."""
    from tvm import relax

    from tvmmobile.networks.frontend import import_program
    from tvmmobile.networks.own.pt2.arguments import signature
    from tvmmobile.networks.torch_selection import SUPPRESSION

    assert signature(SUPPRESSION)

    class Select(nn.Module):
        def __init__(self, overlap: float) -> None:
            super().__init__()
            self.overlap = overlap

        def forward(self, boxes: torch.Tensor, scores: torch.Tensor) -> Any:
            return torch.ops.tvmmobile.suppression(boxes, scores, self.overlap, None, 20)

    random, overlaps = np.random.default_rng(3), (0.1, 0.25, 0.5, 0.6)
    example = torch.zeros(20, 4), torch.zeros(20)
    programs = [torch.export.export(Select(overlap), example).run_decompositions() for overlap in overlaps]
    machine, counts = built([relax.transform.LegalizeOps()(import_program(program)) for program in programs]), set()
    for turn in range(40):
        boxes = np.sort(random.integers(-5, 6, (20, 2, 2)), 1).reshape(20, 4).astype(np.float32)
        scores = (random.integers(-4, 5, 20) / 4).astype(np.float32)
        if turn % 4 == 0:
            scores[random.integers(0, 20, 5)] = -np.inf
        for place, overlap in enumerate(overlaps):
            wanted = greedy(torch.from_numpy(boxes), torch.from_numpy(scores), overlap).numpy()
            for found, count in (
                run(machine, f"main_{place}", [boxes, scores]),
                Select(overlap)(torch.from_numpy(boxes), torch.from_numpy(scores)),
            ):
                assert int(count[0]) == len(wanted) and np.array_equal(found[: len(wanted)], wanted), (boxes, scores, overlap)
            counts.add(len(wanted))
    assert len(counts) > 8
