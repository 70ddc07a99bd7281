"""One network in every format."""

from __future__ import annotations

import pytest
from network_files import (
    module_of,
    write_onnx,
    write_pt2,
    write_python,
)
from own_networks import Files


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("networks")
    python = write_python(folder)
    module = module_of(python)
    return Files(f"{python}:small", write_pt2(module, folder / "small.pt2"), write_onnx(module, folder / "small.onnx"))
