"""Networks of the user's own on their way through trials, workers, reports and comparisons."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from network_files import (
    convolution,
    with_data_beside,
    write_model,
    write_python,
)
from own_networks import load, module_text, names_of, network_of

from tvmmobile.graph.layers import Opaque
from tvmmobile.networks.model import Model
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.loading import files_of, load_again, own_specs
from tvmmobile.system.errors import UserError

_READS_PLACES = module_text("return self.conv(x)[:, [3, 1]].softmax(1).cumsum(1)")
_TAKES_ROOTS = module_text("return nn.functional.layer_norm(self.conv(x), (8,)).clamp(min=1e-3).log().flatten(1)")


@pytest.mark.parametrize("text", [_READS_PLACES, _TAKES_ROOTS], ids=["places in a tensor", "roots and logarithms"])
def test_what_a_trial_gives_a_kernel_of_any_operators(tmp_path: Path, text: str) -> None:
    """No index is outside its tensor, and no root is taken of a negative number."""
    import tvm

    from tvmmobile.graph.tasks import Task
    from tvmmobile.tuning.search.trial import _workload

    path = write_python(tmp_path, text)
    nodes = [node for node in network_of(load(f"{path}:small", 8)).nodes if isinstance(node.layer, Opaque)]
    assert nodes
    for node in nodes:
        data, _, expected = _workload(Task((node.layer,)), tvm.ir.save_json(node.function))
        assert [array.shape for array in data] == list(node.layer.input_shapes) and np.isfinite(expected).all()


def test_a_job_takes_its_files_to_another_machine(tmp_path: Path) -> None:
    from tvmmobile.devices.registry import find_device
    from tvmmobile.pipeline.cluster.parcel import pack, unpack
    from tvmmobile.pipeline.job import VariantJob
    from tvmmobile.pipeline.options.library import LibraryOptions
    from tvmmobile.pipeline.planning import variant_tasks

    path = with_data_beside(write_model(tmp_path / "net.onnx", convolution()))
    file = OwnFile(path)
    assert [each.name for each in files_of(file)] == ["net.onnx", "weights.bin"]
    ((spec, _),) = own_specs(file, (), None, 0)
    job = VariantJob(Model(spec, own=file), LibraryOptions(), find_device("pi4-virtual").profile, (), tmp_path)
    assert not any(each.read_bytes() in pickle.dumps(job) for each in files_of(file))
    parcel = pickle.loads(pickle.dumps(pack(variant_tasks, job)))
    path.unlink()
    (tmp_path / "there").mkdir()
    there = unpack(parcel, tmp_path / "there")
    assert there.model.own.path.parent == tmp_path / "there/network" and load_again(there.model.own, there.spec, None, 0).spec == spec


def test_a_comparison_says_that_the_network_is_another_one() -> None:
    from report_samples import sample_results

    from tvmmobile.gate.comparison import compare_results

    results = sample_results(1)
    base, new = (
        replace(results, variants=(replace(results.variants[0], network_sha256=digest, library_sha256=digest),)) for digest in ("a", "b")
    )
    assert compare_results(base, new).notes == ("mobilenet_v1_1.0_224_float32_t1 was compiled from another file than before.",)


def test_arrays_for_networks_of_other_channels(tmp_path: Path) -> None:
    from tvmmobile.networks.images import read_input
    from tvmmobile.networks.preprocessing import Preprocessing

    gray = Preprocessing(8, channels=1)
    np.save(tmp_path / "gray.npy", np.zeros((1, 1, 8, 8), np.float32))
    assert read_input(tmp_path / "gray.npy", gray).array.shape == (1, 1, 8, 8)
    for name in ("photo.png", "photo.npy"):
        np.save(tmp_path / "photo.npy", np.zeros((8, 8, 3), np.uint8))
        (tmp_path / "photo.png").write_bytes(b"PNG")
        with pytest.raises(UserError, match=r"the network takes 1 channels|which this network does not take"):
            read_input(tmp_path / name, gray)


def test_the_example_of_the_documentation(tmp_path: Path, repository: Path) -> None:
    """`python net.py` writes the files of the other formats."""
    text = (repository / "docs/own-networks.md").read_text()
    source = text.partition("```python\n")[2].partition("```")[0]
    path = write_python(tmp_path, source)
    subprocess.run([sys.executable, "-W", "ignore", path.name], cwd=tmp_path, capture_output=True, check=True)
    found = [load(f"{path}:tiny", 96), load(tmp_path / "tiny.pt2"), load(tmp_path / "tiny.onnx")]
    assert names_of(found[0]) == names_of(found[1]) == names_of(found[2])
    assert {imported.spec.variant for imported in found} == {"tiny_1.0_96"}
