"""The study bench_peers --weights trained: how networks are trained, what they run with, what is kept apart, and the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from studies.formats import export_models
from studies.harness import parsed
from studies.peers import bench_peers
from studies.peers import models as peer_models
from studies.peers.models import exported, model_files, top1_of
from studies.peers.results import BenchmarkContext, BoardFacts, Figures, GridCell, PeerComparison, PeerRow, from_json, merged
from studies.peers.systems import OURS_C, chosen_systems, systems
from studies.peers.tables import pages
from studies.trained import digits
from studies.trained import networks as trained_networks
from studies.trained.networks import CALIBRATION, _fitted, calibration_inputs, check_trainable, top1, trained, with_trained_weights
from studies.trained.training import train
from tvmmobile.graph.precision import INT8
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.system.errors import UserError
from tvmmobile.virtual.board import load_board

SPEC = ModelSpec("mobilenet_v1", 0.25, 64)
MODEL = Model(replace(SPEC, resolution=128))


def silent(_: str) -> None:
    """Says nothing."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and generated weights in place of trained ones, with a good accuracy on record."""
    monkeypatch.setenv("TVMMOBILE_CACHE", str(tmp_path))
    monkeypatch.setattr(trained_networks, "trained", lambda spec: build_torch_model(spec).module)
    monkeypatch.setattr(trained_networks, "top1", lambda _module, side: 100 - side / 128)
    return tmp_path


def test_a_picture_is_full_of_one_digit() -> None:
    """Drawn ones of its label, cut off at the end."""
    drawn, labels = digits.digits(40, 0)
    found = digits.pictures([3, 7], 80, drawn, np.random.default_rng(0))
    assert found.shape == (2, 80, 80, 3) and found.dtype == np.uint8
    for picture, label in zip(found, (3, 7), strict=True):
        for y, x in ((0, 0), (32, 32), (64, 0), (64, 64)):
            part = picture[y : y + 32, x : x + 32]
            known = drawn[labels == label][:, : len(part), : part.shape[1]]
            assert (known == part).all((1, 2, 3)).any()


def test_training_moves_weights_and_nothing_else() -> None:
    """PyTorch's generator is where it was; the same recipe gives the same weights."""
    before = torch.random.get_rng_state()
    one, other = (trained(SPEC, steps=2).state_dict() for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[name], other[name]) for name in one)
    generated = build_torch_model(SPEC).module.state_dict()
    weights = [name for name in one if name.endswith(("weight", "running_var"))]
    assert weights and not any(torch.equal(one[name], generated[name]) for name in weights)


def test_top1_is_the_share_of_pictures_it_gets_right(monkeypatch: pytest.MonkeyPatch) -> None:
    class Three(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.full((len(images),), 3), 1000)

    monkeypatch.setattr(trained_networks, "TESTED", 20)
    assert top1(Three(), 32) == 10


def test_a_checkpoint_serves_every_side(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_trained_weights(MODEL, silent)
    assert model.checkpoint is not None and cache in model.checkpoint.parents
    monkeypatch.setattr(trained_networks, "trained", lambda _: pytest.fail("it is trained already"))
    assert with_trained_weights(replace(MODEL, spec=SPEC), silent).checkpoint == model.checkpoint
    assert build_torch_model(model.spec, model.checkpoint).weights.startswith("checkpoint sha256")


def test_a_network_that_learns_nothing_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained_networks, "top1", lambda _module, _side: 12.0)
    with pytest.raises(UserError, match=r"mobilenet_v1_0\.25_64 got 12 % of its digits right after 400 steps\."):
        with_trained_weights(MODEL, silent)
    assert not list((cache / "peers").glob("*/*"))


def test_networks_that_cannot_be_trained() -> None:
    with pytest.raises(UserError, match=r"mine\.onnx has weights of its own\."):
        check_trainable(Model(SPEC, own=OwnFile(Path("mine.onnx"))))
    check_trainable(Model(ModelSpec("vgg16")))


def test_a_network_without_batch_norms_learns_with_some() -> None:
    """Its weights contain them afterwards: nothing is left behind its layers."""
    generator = torch.Generator().manual_seed(0)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Images of noise, of which one channel is the brightest."""
        while True:
            labels = torch.randint(3, (32,), generator=generator)
            yield torch.rand(32, 3, 8, 8, generator=generator) + 0.3 * torch.eye(3)[labels][:, :, None, None], labels

    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = train(nn.Sequential(*layers), batches(), 60, 0.05)
    inputs, labels = next(batches())
    with torch.no_grad():
        found = torch.cat([network(input_[None]) for input_ in inputs])  # one at a time: none depends on its batch
    assert [*network] == [*layers] and not any(layer._forward_hooks for layer in layers)
    assert (found.argmax(1) == labels).all()


def test_features_of_a_smaller_picture_fit() -> None:
    """VGG-16 takes 224 pixels, of which 7×7 are left; some of the pictures it learns with are smaller."""
    image = torch.rand(2, 3, 2, 2)
    fitted = _fitted(nn.Sequential(nn.Flatten(), nn.Linear(3 * 49, 5)), nn.Flatten(), (image,))
    assert fitted.shape == (2, 3, 7, 7) and torch.equal(fitted[:, :, ::6, ::6], image)


def test_a_network_runs_with_a_digit_and_is_kept_by_its_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(export_models, "export", lambda _spec, _folder, **options: asked.append(options))
    model = with_trained_weights(MODEL, silent)
    assert model.checkpoint is not None
    folder, generated = exported(model, silent), exported(MODEL, silent)
    assert exported(model, silent) == folder != generated and top1_of(folder) == 99
    inputs = np.load(folder / "inputs.npy")
    assert inputs.shape == (CALIBRATION, 3, 128, 128) and len(np.unique(inputs.reshape(CALIBRATION, -1), axis=0)) == CALIBRATION
    (one, other) = asked
    assert one["checkpoint"] == model.checkpoint and (one["image"] == inputs[:1]).all()
    assert other["checkpoint"] is None and other["image"] is None and not (generated / "inputs.npy").exists()
    state = torch.load(model.checkpoint)
    torch.save({name: value + 1 for name, value in state.items()}, model.checkpoint)
    assert exported(model, silent) not in (folder, generated)


def test_all_libraries_are_calibrated_with_the_same_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' quantisers, and ours."""
    inputs = calibration_inputs(64)
    np.save(tmp_path / "inputs.npy", inputs)
    given: list[str] = []
    monkeypatch.setattr(peer_models, "_converted", lambda models, name, _kind, _recipe, more: given.append(more[1]) or models / name)
    for system in chosen_systems(["litert", "onnxruntime"], INT8.name):
        model_files(system, load_board("pi4"), tmp_path, None)
    assert given == [str(tmp_path / "inputs.npy")] * 2
    ours = peer_models._calibration(Model(SPEC, tmp_path / "weights.pt"), tmp_path)
    assert (ours.samples().all() == inputs).all()
    noise = peer_models._calibration(Model(SPEC), tmp_path)
    assert noise.place is None


PI4 = BoardFacts("pi4", "Raspberry Pi 4 Model B", "Cortex-A72", 1.8e9, "c0ffee", "deadbeef", True)
TITLES = {one.key: one.title for one in systems("int8")}
SHORTCUTS = {"1×1": {"four_products": 0.875, "narrow": 0.0, "unconverted": 1.0}, "depthwise": {"three_taps": 0.5}}


def comparison(weights: str, variant: str = "0.25-128", top1: float = 99.0) -> PeerComparison:
    context = BenchmarkContext({"pi4": PI4}, TITLES, {}, "logs", "monday", dtype="int8", weights=weights, top1={variant: top1})
    figures = Figures(1.7, {"core": 1.7}, 1000, 1000, 1000, 100, 10, 640, 0, 1e-2)
    return PeerComparison(context, (PeerRow(GridCell("pi4", 1, 0.25, 128), OURS_C, (figures,), shortcuts=SHORTCUTS),))


def test_pages_say_which_weights_they_have() -> None:
    trained_page, generated_page = (pages(comparison(weights), "ints")["ints.md"] for weights in ("trained", "generated"))
    assert "trained from scratch for 400 steps" in trained_page and "gets 99 % of 100 other pictures right" in trained_page
    assert "trained from scratch" not in generated_page and "(ints.md)" not in trained_page
    assert "[ints.md](ints.md) has generated weights." in pages(comparison("trained"), "ints-trained")["ints-trained.md"]


def test_the_share_of_channels_that_take_each_shortcut_is_on_a_boards_page() -> None:
    page = pages(comparison("trained"), "ints")["ints/pi4.md"]
    assert "| variant | shortcut | 1×1 | depthwise |" in page
    assert (
        "| 0.25-128 | four products added in 16 bits | 88 % | – |" in page
        and "| 0.25-128 | three taps added in 16 bits | – | 50 % |" in page
    )
    assert "scaled by one instruction" not in page


def test_what_was_trained_is_in_the_file(tmp_path: Path) -> None:
    now = comparison("trained")
    bench_peers.write(now, tmp_path, "ints")
    read = from_json(tmp_path / "ints.json")
    assert (read.context.weights, read.context.top1, read.rows[0].shortcuts) == ("trained", {"0.25-128": 99.0}, SHORTCUTS)
    assert merged(now, comparison("trained", "0.5-160", 98.0)).context.top1 == {"0.25-128": 99.0, "0.5-160": 98.0}


def test_figures_of_other_weights_are_not_taken(tmp_path: Path) -> None:
    bench_peers.write(comparison("generated"), tmp_path, "ints")
    options = ["--known", str(tmp_path / "ints.json"), "--boards", "pi4", "--only", "litert", "--dtype", "int8", "--weights", "trained"]
    with pytest.raises(UserError, match="has generated weights, not trained ones"):
        bench_peers.compare(parsed(bench_peers.OPTIONS, None, [*options, "--out", str(tmp_path)]))
