"""Object files in the cache: read by a network with other weights, of no use to other kernels or cores, and bounded in size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import HOST, kernels_of, prepared, two_blocks

from tvmmobile.graph.lowering import lower
from tvmmobile.kernels.codegen import pass_context
from tvmmobile.native import objects
from tvmmobile.native.parts import cut_parts
from tvmmobile.native.program import read_program

CORTEX_A72 = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}


def functions(factor: float = 1.0, side: int = 8, target: dict[str, Any] = HOST) -> Any:
    """Return the kernels of a network whose weights are multiplied by a factor."""
    module = two_blocks()
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(factor)
    network = prepared(module, (1, 3, side, side))
    program = read_program(lower(network, kernels_of(network)), ())
    with pass_context():
        return cut_parts(program.functions, target)[1]


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TVMMOBILE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/objects"


def written(module: Any, folder: Path, target: dict[str, Any] = HOST) -> dict[str, bytes]:
    folder.mkdir()
    objects.write_objects(module, target, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_other_weights_have_the_same_objects(cache: Path, tmp_path: Path) -> None:
    first = written(functions(), tmp_path / "first")
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes() + b"from the cache")
    second = written(functions(0.5), tmp_path / "second")
    assert second == {name: content + b"from the cache" for name, content in first.items()}


def test_other_images_and_cores_have_others(cache: Path, tmp_path: Path) -> None:
    module = functions(target=CORTEX_A72)
    first = written(module, tmp_path / "first", CORTEX_A72)
    kept = set(cache.iterdir())
    assert written(functions(side=16, target=CORTEX_A72), tmp_path / "second", CORTEX_A72) != first
    changed = set(cache.iterdir()) - kept
    assert changed
    other = {**CORTEX_A72, "mcpu": "cortex-a53"}
    written(module, tmp_path / "third", other)
    assert len(set(cache.iterdir()) - kept - changed) == len(first)


def test_the_least_recently_used_files_go_first(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = functions()
    sizes = [len(content) for content in written(module, tmp_path / "first").values()]
    old = cache / "old.o"
    old.write_bytes(b"old")
    os.utime(old, (1, 1))
    monkeypatch.setattr(objects, "MOST_BYTES", sum(sizes))
    written(module, tmp_path / "second")
    assert not old.exists() and len(list(cache.iterdir())) == len(sizes)
    monkeypatch.setattr(objects, "MOST_BYTES", 0)
    assert written(module, tmp_path / "third") and not list(cache.iterdir())


def test_without_a_cache_they_are_compiled_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVMMOBILE_CACHE", "/proc/nowhere")  # nobody can create anything there, root included
    module = functions()
    assert written(module, tmp_path / "first") == written(module, tmp_path / "second")
