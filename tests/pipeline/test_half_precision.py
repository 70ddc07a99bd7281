"""A network whose kernels compute in half precision, on the virtual Pi 5: the library agrees with PyTorch as far as that can."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from other_cpus import OLD, expected_outcomes, outcomes

import tvmmobile
from tvmmobile.graph.precision import FLOAT16
from tvmmobile.kernels.reference import relative_error
from tvmmobile.pipeline.deploy import Deployment
from tvmmobile.pipeline.listener import Listener
from tvmmobile.running import emulation
from tvmmobile.running.networks import checker
from tvmmobile.system.doctor import require
from tvmmobile.system.errors import Disagreement

NETWORK = """
from torch import nn

def make():
    def block(inputs, outputs, stride):
        depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU6()
        return *depthwise, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.Hardswish()

    first = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()
    large, small = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
    large.weight.data *= 1e6
    small.weight.data *= 1e-6
    last = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 10)
    return nn.Sequential(*first, large, small, *block(16, 80, 1), *block(80, 40, 2), *last)
"""


@pytest.mark.virtual
def test_a_network_in_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Input and output are converted by the first and the last kernel; two layers beyond the range of half precision stay in float32."""
    file = tmp_path / "network.py"
    file.write_text(NETWORK)
    model = tvmmobile.load(f"{file}:make", resolution=32)  # the least there is
    heard = Heard()
    results = tvmmobile.tune(model, "pi5", trials=0, dtype="float16", out=tmp_path / "out", logs=tmp_path / "logs", listener=heard)
    (result,) = results.variants
    assert result.dtype == "float16" and 1e-4 < result.max_error < FLOAT16.network_tolerance
    manifest = json.loads((tmp_path / "out" / f"{result.name}.json").read_text())
    kernels = [kernel["name"] for kernel in manifest["kernels"]]
    assert "nchw_from_float32" in kernels[0] and kernels[-1].startswith("dense_40x10_to_float32")
    assert not any("cast" in name for name in kernels) and len(kernels) >= 7
    assert [number for number, name in enumerate(kernels) if name.endswith("_float32_t1")] == [1, 2]
    assert "to_float32" in kernels[0] and "to_float16" in kernels[2] and "float16" not in kernels[1]
    assert [(one["node"], one["why"][:12]) for one in manifest["float32_layers"]] == [(1, "values up to"), (2, "values up to")]
    (sentence,) = [remark for remark in heard.remarks if "float32" in remark]
    assert "2 layers stay in float32: pw_16x16_16x16_linear to pw_16x16_16x16_linear (nodes 1 to 2, values up to" in sentence
    check_other_cpus(*tvmmobile.open_libraries(tmp_path / "out"), monkeypatch)


def check_other_cpus(library: tvmmobile.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPUs without half precision refuse a library, directly, through a board's agent, and in `compile`'s check."""
    assert outcomes(library) == expected_outcomes(*OLD)
    with pytest.raises(Disagreement, match=r"does not run on pi4-virtual: .* the CPU lacks instructions that it uses") as found:
        library.run(library.reference().inputs, "pi4")
    assert found.value.remedy == "It was compiled for cortex-a76; compile it for this device: tvmmobile compile --device pi4-virtual"
    # An AArch64 machine tries the library itself before it asks QEMU.
    here, check = (str(require("qemu-aarch64")), "-cpu", "cortex-a72"), emulation._check
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(emulation, "_check", lambda library, emulator, *rest: check(library, emulator or here, *rest))
    assert emulation.run_here(library, 60).place == "QEMU's cortex-a76"


@pytest.mark.virtual
@pytest.mark.long
@pytest.mark.parametrize("form", ["vm", "c"])
def test_a_library_that_takes_and_returns_half_precision(tmp_path: Path, form: str) -> None:
    """Callers of `run` pass and get float32 all the same; the manifest and the header say what the library takes."""
    file = tmp_path / "network.py"
    file.write_text(NETWORK)
    model = tvmmobile.load(f"{file}:make", resolution=32)
    library = tvmmobile.compile(model, "pi5", dtype="float16", io_dtype="float16", format=form, out=tmp_path, logs=tmp_path)
    manifest = library.manifest()
    assert manifest["input"]["dtype"] == manifest["output"]["dtype"] == "float16"
    assert not any("nchw_from" in kernel["name"] for kernel in manifest["kernels"])
    (data,), (expected,) = library.reference()
    output = library.run(data, "pi5")
    assert output.dtype == data.dtype == expected.dtype == np.float32
    assert 1e-4 < relative_error(output, expected) < FLOAT16.network_tolerance
    if form == "c":
        words = Deployment("a board", str(library.path.parent), (library,), (), 0, ()).words(library)
        program = Path(shutil.copy(checker(), tmp_path / "check"))
        program.chmod(0o755)
        check = [str(require("qemu-aarch64")), "-cpu", "max", "-L", "/usr/aarch64-linux-gnu", str(program)]
        done = [subprocess.run([*check, *given, "1", "0"], capture_output=True, text=True, check=False) for given in (words[1:], words[2:])]
        assert [one.returncode for one in done] == [0, 5] and "error 0.0" in done[0].stdout, done


class Heard(Listener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.remarks: list[str] = []

    def message(self, text: str) -> None:
        """See `Listener`."""
        self.remarks.append(text)
