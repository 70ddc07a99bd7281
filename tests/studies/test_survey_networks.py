"""The study survey_networks: the networks it builds itself, what its table says, and one that goes all the way."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from studies.networks import survey_models, survey_networks
from studies.networks.survey_networks import SurveyOutcome

BUILT_HERE = [name for name, surveyed in survey_models.NETWORKS.items() if surveyed.source == "here"]


def test_every_kind_of_network_is_there() -> None:
    kinds = {surveyed.kind for surveyed in survey_models.NETWORKS.values()}
    assert len(survey_models.NETWORKS) >= 70 and len(kinds) == 9


@pytest.mark.parametrize("name", BUILT_HERE)
def test_networks_of_its_own_answer_differently_to_different_images(name: str) -> None:
    """Generated weights must give every layer an effect, or a comparison would be meaningless."""
    import torch

    surveyed = survey_models.NETWORKS[name]
    module = survey_models.build(name, surveyed)
    survey_models.give_weights(module, surveyed.shape)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        first, second = (module(torch.randn(surveyed.shape, generator=generator)) for _ in range(2))
    assert torch.isfinite(first).all() and (first - second).abs().max() > 0.05 * first.abs().max()


def test_branches_that_start_at_zero_matter() -> None:
    """LeViT's last norm in a branch has factors of zero: converters leave out what is multiplied by them."""
    import torch
    from torch import nn

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8))
            self.linear, self.norm, self.gamma = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Parameter(torch.zeros(8))
            self.attention_biases = nn.Parameter(torch.zeros(64))
            nn.init.zeros_(self.norm.weight)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            tokens = self.stem(image).flatten(2).transpose(1, 2)
            branch = self.norm(self.linear(tokens).flatten(0, 1)).reshape_as(tokens)
            return tokens + self.gamma * branch + self.attention_biases[:, None]  # type: ignore[no-any-return]

    module = Tokens().eval()
    survey_models.give_weights(module, (1, 3, 32, 32))
    assert (module.gamma == 0.5).all() and module.attention_biases.unique().numel() > 60
    assert 0.3 < module.norm.weight.min() < module.norm.weight.max() < 0.9 and module.norm.running_mean.any()


def test_the_table_has_figures_of_the_format_that_worked_and_what_went_wrong_in_the_other() -> None:
    good = SurveyOutcome(12.345, 2e-6, 0.0312, 98_700_000, 40)
    lost = SurveyOutcome(message="tvmmobile: error: one | two")
    networks = {"unet": {"pt2": vars(lost), "onnx": vars(good)}, "espcn": {"pt2": vars(lost), "onnx": vars(lost)}}
    lines = survey_networks.table(networks).splitlines()
    refused = "tvmmobile: error: one \\| two"
    assert lines[2] == f"| unet | here | segmentation | 3×128×128 | {refused} | 2e-06 | 99 | 12.35 | 3.1% |"
    assert lines[3] == f"| espcn | here | super-resolution | 1×128×128 | {refused} | {refused} |  |  |  |"


def test_the_table_has_ratios_and_what_they_come_to() -> None:
    good = vars(SurveyOutcome(12.345, 2e-6, 0.0312, 98_700_000, 40))
    benchmarks = [("unet", "ours-c", 0.5), ("unet", "ncnn", 1.25), ("own_vgg16", "ours-c", 0.9), ("espcn", "ours-c", None)]
    ratios = survey_networks.ratios({"model": model, "system": system, "ratio_to_best_peer": ratio} for model, system, ratio in benchmarks)
    assert ratios == {"unet": 0.5, "vgg16": 0.9}
    lines = survey_networks.table({name: {"pt2": good, "onnx": good} for name in ("vgg16", "unet", "espcn")}, ratios).splitlines()
    assert [line.rpartition("% | ")[2] for line in lines[2:5]] == ["0.90 |", "0.50 |", " |"]
    assert lines[5:] == ["", "2 networks are compared: the median is 0.70, the largest ratio 0.90 (vgg16)."]


def test_a_failure_is_told_by_what_was_wrong_and_not_by_its_remedy() -> None:
    output = "[1/3] a kernel\ntvmmobile: error: The network takes too long.\n  Run it again.\n"
    assert survey_networks._complaint(output) == "The network takes too long."
    internal = "tvmmobile: internal error: ValueError: no\n  Set TVMMOBILE_DEBUG=1 and run it again to see where.\n"
    assert survey_networks._complaint(internal) == "ValueError: no"
    assert survey_networks._complaint("Traceback\nKeyError: 'x'\n") == "KeyError: 'x'"
    assert survey_networks._complaint("") == "ended without a word"


def test_bad_calls_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["survey_networks", "resnet19"])
    assert survey_networks.main() == 1 and "there is no network resnet19 in the survey." in capsys.readouterr().err
    earlier = tmp_path / "survey.json"
    earlier.write_text(json.dumps({"device": "pi4-virtual", "trials": 8, "threads": 1, "networks": {}}))
    monkeypatch.setattr(sys, "argv", ["survey_networks", "unet", "--out", str(earlier)])
    assert survey_networks.main() == 1 and "was made with other options" in capsys.readouterr().err


@pytest.mark.long
def test_a_network_goes_all_the_way_in_both_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, work = tmp_path / "survey.json", tmp_path / "work"
    monkeypatch.setattr(sys, "argv", ["survey_networks", "landmarks", "--work", str(work), "--out", str(out)])
    assert survey_networks.main() == 0
    outcomes = json.loads(out.read_text())["networks"]["landmarks"]
    assert [outcomes[form]["message"] for form in ("pt2", "onnx")] == ["", ""], outcomes
    assert outcomes["pt2"]["latency_ms"] == pytest.approx(outcomes["onnx"]["latency_ms"], rel=0.02) and outcomes["pt2"]["error"] < 1e-5
    first = out.read_bytes()
    assert survey_networks.main() == 0 and out.read_bytes() == first, "what is there is not tried again"
