"""`compile` runs what it made once: a wrong library is not handed over, and the error names where its values differ first."""

from __future__ import annotations

import pickle
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import broken_templates as broken
import numpy as np
import pytest
import torch
from deployed import make_library
from network_files import Graph, convolution, write_model, write_pt2
from onnx import helper
from small_networks import seeded, unit
from torch import nn

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.passes import pipeline as passes
from tvmmobile.graph.passes.rewriting import rewrite_main
from tvmmobile.graph.precision import FLOAT16, FLOAT32, Precision
from tvmmobile.networks import torch_operators, torch_trace
from tvmmobile.networks.model import Model
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.loading import load_own, own_specs
from tvmmobile.networks.own.onnx import importer
from tvmmobile.pipeline import build as building
from tvmmobile.pipeline import checking, planning
from tvmmobile.pipeline.agreement import agreement
from tvmmobile.pipeline.build import build
from tvmmobile.pipeline.checking import check
from tvmmobile.pipeline.diagnosis import Difference, _wrong_import, explain
from tvmmobile.pipeline.job import VariantJob, variant_job
from tvmmobile.pipeline.movement import rounding_of
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.sentences import check_lines, unchecked_note
from tvmmobile.pipeline.stages import explaining
from tvmmobile.pipeline.stages.explaining import accept_roundings
from tvmmobile.running import emulation
from tvmmobile.running.emulation import run_here
from tvmmobile.running.formats import VM
from tvmmobile.running.library import Library, Reference
from tvmmobile.running.manifest import CheckEntry, Manifest, read_manifest
from tvmmobile.running.measure import MeasureError
from tvmmobile.system.errors import Disagreement, UserError

pytestmark = pytest.mark.virtual
SHAPE = (1, 3, 8, 8)


def two_convolutions(folder: Path) -> Path:
    """Return an ONNX network: convolution, ReLU "first", convolution, ReLU "second"."""
    first = convolution([helper.make_node("Relu", ["c"], ["d"], "first")])
    weight = np.random.default_rng(1).normal(0, 0.5, (6, 4, 1, 1)).astype(np.float32)
    behind = [helper.make_node("Conv", ["d", "v"], ["e"], "wide"), helper.make_node("Relu", ["e"], ["y"], "second")]
    return write_model(folder / "net.onnx", Graph([*first.nodes, *behind], {**first.constants, "v": weight}), SHAPE)


def classifier(folder: Path) -> Path:
    """Return a PyTorch network whose last layer is the one that `broken_templates` knows."""
    layers = *unit(3, 4, 3), *unit(4, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(5, 3)
    return write_pt2(seeded(*layers), folder / "net.pt2", SHAPE)


def job_of(path: Path, device: str = "pi4-virtual", **settings: Any) -> VariantJob:
    """Return the job of compiling and checking a file without any records."""
    file = OwnFile(path)
    ((spec, quantised),) = own_specs(file, (), None, 0)
    model, profile = Model(spec, own=file, quantised=quantised), find_device(device).profile
    job = variant_job(model, profile, (), path.parent / "out", LibraryOptions(**settings))
    return replace(job, unchecked="")


def refused(job: VariantJob) -> str:
    """Return the message of a build whose library is wrong; nothing of it is left."""
    job.out.mkdir(exist_ok=True)
    with pytest.raises(Disagreement) as wrong:
        build(job)
    assert wrong.value.exit_code == 5 and "Nothing was written" in wrong.value.remedy
    assert list(job.out.iterdir()) == []
    return wrong.value.message


@pytest.mark.parametrize(("form", "threads"), [("c", 4), pytest.param(VM, 1, marks=pytest.mark.long)])
def test_a_right_library_is_run_and_the_manifest_says_so(tmp_path: Path, form: str, threads: int) -> None:
    library = build(job_of(two_convolutions(tmp_path), format=form, threads=threads)).library
    found = read_manifest(library.manifest_path)
    assert found.checked and found.check.place == "QEMU's cortex-a72" and found.check.error is not None and 0 < found.check.error < 1e-5
    assert unchecked_note(library.path.name, library.facts) == ""
    assert {path.suffix for path in library.path.parent.iterdir()} >= {".so", ".json", ".npz"}


def test_an_operator_that_is_imported_wrongly_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tvm import relax

    def wrong(inputs: Any, _attrs: Any, _opset: int) -> Any:
        right = relax.op.nn.relu(inputs[0])
        return relax.op.multiply(right, relax.const(1.01)) if int(inputs[0].ty.shape[1]) == 6 else right

    monkeypatch.setitem(importer.CONVERTERS, "Relu", wrong)
    message = refused(job_of(two_convolutions(tmp_path)))
    assert re.fullmatch(
        r"net_\S+\.so disagrees with ONNX Runtime \S+ on QEMU's cortex-a72: "
        r"error 0\.01 of the output's largest magnitude, more than 0\.0001; "
        r'the first value that differs is that of Relu "second" as it is imported \(error 0\.01\)\.',
        message,
    ), message


def test_an_operator_of_pytorch_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tvm import relax

    def wrong(node: Any, importer: Any) -> Any:
        (data,) = importer.retrieve_args(node)
        builder = importer.block_builder
        return builder.emit(relax.op.multiply(builder.emit(relax.op.sigmoid(data)), relax.const(0.9)))

    real = torch_operators.converters
    for module in (torch_operators, torch_trace):
        monkeypatch.setattr(module, "converters", lambda: {**real(), "sigmoid.default": wrong})
    imported = load_own(OwnFile(write_pt2(seeded(*unit(3, 4, 3), nn.Sigmoid()), tmp_path / "net.pt2", SHAPE)), None, None, 0)
    given = (np.random.default_rng(0).normal(size=SHAPE).astype(np.float32),)
    found = _wrong_import(imported, Reference(given, imported.compute(given)))
    assert re.fullmatch(
        r'the first value that differs is that of sigmoid\.default "sigmoid" \(\S+\.py, line \d+\) as it is imported \(error 0\.1\)', found
    ), found


def test_a_kernel_that_is_wrong_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = planning.choose

    def chosen(task: Any, *others: Any) -> Any:
        found = choose(task, *others)
        return replace(found, schedule=broken.schedule(broken.WRONG)) if task == broken.TASK else found

    monkeypatch.setattr(planning, "choose", chosen)
    message = refused(job_of(classifier(tmp_path)))
    assert re.search(rf"; the first value that differs is that of kernel {broken.TASK.name} \(node 3; error 0\.0\d+\)\.$", message), message


@pytest.mark.parametrize(("device", "precision"), [("pi4-virtual", FLOAT32), ("pi5-virtual", FLOAT16)], ids=["float32", "float16"])
def test_a_layer_that_a_pass_makes_wrong_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, precision: Precision
) -> None:
    from tvm import relax
    from tvm.relax.dpl import is_op, wildcard

    def wrong(module: Any) -> Any:
        inner = wildcard()

        def larger(call: Any, matched: Any) -> Any:
            if int(call.ty.shape[1]) != 6:
                return call
            return relax.op.maximum(relax.op.add(matched[inner], relax.const(2.5)), relax.const(0.0))

        return rewrite_main(module, is_op("relax.nn.relu")(inner), larger)

    monkeypatch.setattr(passes, "compare_booleans", wrong)
    message = refused(job_of(two_convolutions(tmp_path), device, precision=precision))
    assert re.search(
        r"; the first value that the imported network does not have is that of layer pw_8x8_4x6_\S+ \(node 1\): a graph pass is wrong\.$",
        message,
    ), message


class Waves(nn.Module):
    """Products of waves beyond half precision's range, which are moved and scaled back."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        wave = torch.sin(image) * 300
        return (wave * wave * wave).roll(1, 2) * 1e-4


def test_a_network_beyond_half_precisions_range_is_no_fault_of_a_pass(tmp_path: Path) -> None:
    file = write_pt2(seeded(*unit(3, 4, 3), Waves()), tmp_path / "net.pt2", SHAPE)
    job = job_of(file, "pi5-virtual", precision=FLOAT16)
    job.out.mkdir()
    with pytest.raises(Disagreement, match=r"values up to \S+, beyond the range of float16 \(up to 65504\)") as wrong:
        build(job)
    assert wrong.value.message.endswith("; compiled for float32, the network is right.")
    assert wrong.value.remedy.startswith("Nothing was written. Compile it with another `dtype`, such as float32")


def test_where_nothing_can_be_named_the_library_is_refused_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older library stays in place."""

    def fails(*_given: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(building, "_write_reference", _doubled(building._write_reference))
    monkeypatch.setattr("tvmmobile.pipeline.diagnosis._first_difference", fails)
    job = job_of(two_convolutions(tmp_path))
    job.out.mkdir()
    job.library.path.write_bytes(b"old")
    with pytest.raises(Disagreement, match=r"error 0\.5 of the output's largest magnitude, more than 0\.0001\."):
        build(job)
    assert {path: path.read_bytes() for path in job.out.iterdir()} == {job.library.path: b"old"}


def _doubled(write: Callable[..., None]) -> Callable[..., None]:
    def doubled(job: VariantJob, variant: Any) -> None:
        write(job, variant)
        path = job.library.reference_path
        with np.load(path) as stored:
            np.savez(path, **{name: array * (2 if name == "output" else 1) for name, array in stored.items()})

    return doubled


def test_without_qemu_the_manifest_says_why_it_was_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "installed", lambda name: False)
    manifest = read_manifest((path := make_library(tmp_path)).with_suffix(".json"))
    library = Library(manifest.spec, manifest.dtype, 1, path)
    check(library, float, str)
    found = library.facts
    assert (found.checked, found.check) == (False, CheckEntry(why="qemu-aarch64 was not found; apt-get install -y qemu-user"))
    assert check_lines([found, found]) == ["not checked: qemu-aarch64 was not found; apt-get install -y qemu-user."]
    assert unchecked_note("net.so", library.facts).startswith("note: net.so was not compared with its reference when it was compiled: qemu")


def test_a_crash_is_named_by_its_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crashes(*_given: Any) -> Any:
        raise emulation._failure(-signal.SIGSEGV, "")

    monkeypatch.setattr(checking, "run_here", crashes)
    manifest = read_manifest((path := make_library(tmp_path)).with_suffix(".json"))
    with pytest.raises(Disagreement, match=r"\.so does not run once it is compiled: killed by SIGSEGV\.") as wrong:
        check(Library(manifest.spec, manifest.dtype, 1, path), float, str)
    assert "check=False" in wrong.value.remedy


def test_what_compile_says_of_several_libraries() -> None:
    entries = (CheckEntry(place="QEMU's cortex-a72", error=error) for error in (2e-6, 3.14e-6))
    done, other = (Manifest.model_construct(checked=True, check=entry) for entry in entries)
    left_out = Manifest.model_construct(checked=False, check=CheckEntry(why="--no-check"))
    assert check_lines([done]) == ["1 library agrees with its reference on QEMU's cortex-a72 (error 2e-06)."]
    assert check_lines([done, other, left_out]) == [
        "2 libraries agree with their references on QEMU's cortex-a72 (error 3.1e-06).",
        "not checked: --no-check.",
    ]


def test_a_manifest_without_the_entries_is_read(tmp_path: Path) -> None:
    """Older versions wrote such manifests."""
    manifest = read_manifest(make_library(tmp_path).with_suffix(".json"))
    assert (manifest.checked, manifest.check) == (True, CheckEntry()) and unchecked_note("old.so", manifest) == ""


@pytest.mark.parametrize("entries", [{"checked": "yes"}, {"check": 1}, {"checked": False, "check": {"why": 1}}, {"check": {"error": "0"}}])
def test_other_entries_are_refused(tmp_path: Path, entries: dict[str, Any]) -> None:
    path = make_library(tmp_path, **entries).with_suffix(".json")
    with pytest.raises(UserError, match="is not a manifest of tvmmobile: check"):
        read_manifest(path)


def test_a_library_that_is_none_is_not_run(tmp_path: Path) -> None:
    path = make_library(tmp_path, format="c", c={"prefix": "net", "workspace_bytes": 640})
    before, manifest = path.with_suffix(".json").read_text(), read_manifest(path.with_suffix(".json"))
    with pytest.raises(MeasureError, match=f"{path.name}: (file too short|invalid ELF header)"):
        run_here(Library(manifest.spec, manifest.dtype, 1, path), 30)
    assert path.with_suffix(".json").read_text() == before


@pytest.mark.parametrize(("is_of_precision", "remedy"), [(False, "Please report this with the network"), (True, "Compile it with another")])
def test_an_error_on_a_device_names_where_values_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_of_precision: bool, remedy: str
) -> None:
    """`tune` finds such errors in libraries that no emulator ran; the remedy does not depend on the words of the message."""

    class Workers:
        def run(self, function: Any, jobs: Any, _timeout_s: float) -> Any:
            if function is rounding_of:
                return [(job, 3e-4) for job in jobs]
            assert function.func is explain and function.keywords == {"moves": 3e-4 if jobs else 0.0}
            return [(job, Difference(f"the first value that differs is that of {job.spec.name}", is_of_precision)) for job in jobs]

    job = job_of(two_convolutions(tmp_path))
    name = job.library.path.name
    wrong = pickle.loads(pickle.dumps(Disagreement(f"{name} disagrees with PyTorch on pi4: error 1.", "Compile it again.", name)))
    monkeypatch.setattr(explaining, "note_rounding", lambda *_given: False)
    with pytest.raises(Disagreement) as raised:
        accept_roundings(wrong, Workers(), [job], print)  # type: ignore[arg-type]
    assert raised.value.message == f"{wrong.message[:-1]}; the first value that differs is that of net."
    assert raised.value.remedy.startswith(remedy)
    other = Disagreement("another.so does not run on pi4: killed by SIGILL.")
    with pytest.raises(Disagreement) as raised:
        accept_roundings(other, Workers(), [job], print)  # type: ignore[arg-type]
    assert raised.value is other


def test_a_library_on_disk_that_turns_out_wrong(tmp_path: Path) -> None:
    """One that agreed when it was compiled has a kernel that is wrong on the device."""
    for entries, remedy in (({"checked": True, "check": {"place": "QEMU's cortex-a72"}}, "It agreed on QEMU"), ({}, "Compile it again: ")):
        manifest = read_manifest((path := make_library(tmp_path, **entries)).with_suffix(".json"))
        with pytest.raises(Disagreement, match=r"on pi4: error 1 of the output's largest magnitude, more than 0\.0001\.") as wrong:
            agreement(Library(manifest.spec, manifest.dtype, 1, path), [np.zeros(1)], [np.ones(1)], "pi4")
        assert wrong.value.remedy.startswith(remedy)
