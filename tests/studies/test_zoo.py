"""The study zoo: its list, files out of wheels, and its table. Nothing is downloaded here."""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path

import pytest

from studies.networks.zoo import PackagedNetwork, extracted, published, table
from tvmmobile.system.errors import UserError


def test_files_of_many_packages_are_listed_once_each() -> None:
    files = published()
    assert len(files) >= 50 and len({file.package for file in files}) >= 15
    assert len({file.sha256 for file in files}) == len({(file.package, file.path) for file in files}) == len(files)
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) and re.fullmatch(r"[\w.-]+==[\w.]+", file.package) for file in files)


def test_a_file_is_known_by_its_hash(tmp_path: Path) -> None:
    wheel, content = tmp_path / "net-1-py3-none-any.whl", b"a network"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("net/model.onnx", content)
    right = PackagedNetwork("net==1", "net/model.onnx", hashlib.sha256(content).hexdigest(), "tests")
    assert right.name == "net/model.onnx" and extracted(right, wheel, tmp_path / "work").read_bytes() == content
    for wrong in (PackagedNetwork("net==1", "net/other.onnx", right.sha256, ""), PackagedNetwork("net==1", "net/model.onnx", "0" * 64, "")):
        with pytest.raises(UserError, match=r"net-1-py3-none-any\.whl has no net/\w+\.onnx with the hash in zoo\.toml"):
            extracted(wrong, wheel, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_table_says_what_went_wrong_and_how_many_run() -> None:
    good = {"package": "one==1", "name": "one/a.onnx", "kind": "faces", "message": "", "error": 2.1e-6}
    good |= {"macs": 61_700_000, "latency_ms": 12.345, "fallback": 0.021, "own_ms": 24.69}
    alone = {**good, "name": "one/b.onnx", "own_ms": None}
    bad = {"package": "two==1", "name": "two/b.tflite", "kind": "birds", "message": "an operator | is unknown", "own_ms": None}
    lines = table([bad, alone, good]).splitlines()
    assert lines[2] == "| one/a.onnx | faces | 2e-06 | 61.7 | 12.35 | 2.1% | 24.69 | 0.50 |"
    assert lines[3] == "| one/b.onnx | faces | 2e-06 | 61.7 | 12.35 | 2.1% |  |  |"
    assert lines[4] == r"| two/b.tflite | birds | an operator \| is unknown |  |  |  |  |  |"
    summary = "2 of 3 files of 2 packages run and agree. 1 were timed in their own runtime: the median ratio is 0.50."
    assert lines[-1] == summary
