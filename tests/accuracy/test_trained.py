"""A trained network in half precision: what storage alone costs it, and what its libraries answer beside PyTorch in float32."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CommandLine
from trained import trained, write_images

from studies.trained.digits import SIDE, digits, inputs_of
from tvmmobile.accuracy.storage import stored_layers
from tvmmobile.graph.precision import FLOAT16
from tvmmobile.networks.frontend import by_torch

IMAGES = 500


def test_a_trained_network_loses_little_by_storage_in_half_precision() -> None:
    """Its classes are right where chance would be a tenth; no layer leaves the range of half precision."""
    pixels, labels = digits(100, seed=1)
    compute = by_torch(trained())
    assert (compute([inputs_of(pixels)])[0].argmax(1) == labels).mean() > 0.95
    layers = stored_layers(compute, [inputs_of(pixels[:20])], FLOAT16)
    assert len(layers) == 28 and all(layer.beyond == layer.not_finite == 0 for layer in layers)
    assert all(layer.signal_to_noise_db is not None and layer.signal_to_noise_db > 50 for layer in layers)


@pytest.mark.virtual
@pytest.mark.long
@pytest.mark.parametrize("form", ["vm", "c"])
def test_a_trained_library_in_half_precision_names_the_same_class(cli: CommandLine, tmp_path: Path, form: str) -> None:
    """It is compared with float32, on digits that it was not trained on."""
    torch.save(trained().state_dict(), tmp_path / "digits.pth")
    words = ("--alpha", "0.25", "--resolution", str(SIDE), "--classes", "10", "--checkpoint", str(tmp_path / "digits.pth"))
    for dtype in ("float32", "float16"):
        done = cli("compile", *words, "--device", "pi5", "--dtype", dtype, "--format", form, "--out", str(tmp_path / "libraries"))
        assert done.code == 0, done.err
    libraries = [str(tmp_path / "libraries" / f"mobilenet_v1_0.25_{SIDE}_{dtype}_t1.so") for dtype in ("float32", "float16")]
    folder = write_images(tmp_path / "digits", IMAGES, seed=1)
    options = ("--device", "pi5-virtual", "--checkpoint", str(tmp_path / "digits.pth"), "--out", str(tmp_path / "out"))
    done = cli("evaluate", *libraries, str(folder), *options)
    assert done.code == 0, done.err
    rows = [words for line in done.out.splitlines() if len(words := line.split()) == 8 and words[0] in ("float32", "float16")]
    assert [row[0] for row in rows] == ["float32", "float16"] and all(row[5:7] == ["0", "0"] for row in rows), "infinite and NaN"
    single, half = (json.loads((tmp_path / "out" / dtype / "evaluation.json").read_text()) for dtype in ("float32", "float16"))
    assert single["evaluated"] == half["evaluated"] == IMAGES and single["same_top1"] == IMAGES
    assert half["same_top1"] >= 0.99 * IMAGES and half["library"]["top1"] > 0.95 * IMAGES
    assert single["largest_deviation"] < 1e-5 < half["largest_deviation"] < 2e-2  # 1.1e-2 of an image whose outputs are small
    assert single["differences"]["signal_to_noise_db"] > 90 and half["differences"]["signal_to_noise_db"] > 45
    assert not single["stored"] and len(half["stored"]) == 28 and half["stored_images"] == 8
    assert np.isfinite([layer["signal_to_noise_db"] for layer in half["stored"]]).all()

    done = cli("evaluate", libraries[1], "noise:16", *options)
    assert done.code == 0 and "top-5\n" not in done.out and "preprocessing: none" in done.out, done.err
    noise = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert noise["evaluated"] == 16 and noise["same_top1"] >= 15 and noise["differences"]["signal_to_noise_db"] > 35
