"""Small networks that users' bug reports describe: each runs as ONNX Runtime does, whatever its exporter wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from own_networks import TOLERANCE, image_for, load, run_compiled
from quantised_files import run_onnxruntime

from tvmmobile.graph.precision import FLOAT16
from tvmmobile.kernels.reference import relative_error
from tvmmobile.networks.own.files import own_file
from tvmmobile.networks.own.loading import load_own

CASES = Path(__file__).with_name("cases")


def with_batch_of_one(path: Path, folder: Path) -> Path:
    """The model without dimensions of -1, which ONNX Runtime takes for a size."""
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            dimension.dim_value = abs(dimension.dim_value)
    changed = folder / path.name
    onnx.save(model, str(changed))
    return changed


@pytest.mark.parametrize(
    ("name", "parameters", "tolerance"),
    [
        ("const_weights", 108, TOLERANCE),
        ("batch_minus1", 108, TOLERANCE),
        # The files compute in float16, and have parameters that are exactly the library's.
        ("fp16_keep_io", 112, 2e-3),
        ("fp16_io", 112, 2e-3),
        ("fp16_w_cast", 108, TOLERANCE),
        ("split_one", 128, TOLERANCE),
        ("slice9", 108, TOLERANCE),
    ],
)
def test_a_file_runs(tmp_path: Path, name: str, parameters: int, tolerance: float) -> None:
    path = CASES / f"{name}.onnx"
    imported = load(path)
    image, found = image_for(imported), run_compiled(imported, tmp_path / "net.so")
    given = image.astype(np.float16) if name == "fp16_io" else image
    wanted = run_onnxruntime(with_batch_of_one(path, tmp_path), given)
    assert imported.spec.input_shape[0] == 1 and imported.parameters == parameters and imported.spec.takes[0].dtype == "float32"
    assert relative_error(found, wanted.astype(np.float32)) <= tolerance
    assert relative_error(found, imported.compute([image])[0]) <= TOLERANCE
