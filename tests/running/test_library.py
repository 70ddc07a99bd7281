"""A compiled variant is checked as a whole before anything of it runs."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tvmmobile.devices.registry import find_device
from tvmmobile.pipeline import bench as bench_module
from tvmmobile.pipeline.agreement import agreement
from tvmmobile.pipeline.bench import check_libraries
from tvmmobile.pipeline.compiled_library import open_libraries
from tvmmobile.pipeline.listener import Listener
from tvmmobile.pipeline.outcome import kernel_results
from tvmmobile.pipeline.run import run
from tvmmobile.pipeline.sentences import differences
from tvmmobile.running.library import find_libraries
from tvmmobile.running.manifest import records_compare, write_manifest
from tvmmobile.system.errors import Disagreement, UserError
from tvmmobile.system.files import sha256_of

Manifest = dict[str, Any]

PROFILE = find_device("pi4-virtual").profile
PI5 = "uses schedules tuned on pi5-virtual, whose latencies are not comparable with pi4-virtual's"


def write_library(folder: Path, change: Callable[[Manifest], object] = lambda _: None) -> Path:
    """Return a library that loads nowhere, with a manifest and a reference that are in order but for `change`."""
    path = folder / "net.so"
    path.write_bytes(b"\x7fELF")
    kernel = {"name": "k", "kind": "other", "macs": 0, "latency_us": None, "schedule": {"trace": "[]"}}
    manifest = {
        "version": 1,
        "library": path.name,
        "sha256": sha256_of(path),
        "model": {"name": "mobilenet_v1", "alpha": 0.25, "resolution": 32, "activation": "relu6", "classes": 10},
        "weights": "seeded kaiming, seed 0",
        "dtype": "float32",
        "threads": 1,
        "input": {"shape": [1, 3, 32, 32], "layout": "NCHW", "dtype": "float32"},
        "output": {"shape": [1, 10], "dtype": "float32"},
        "device": "pi4-virtual",
        "timing_model": PROFILE.origin.model,
        "target": {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72", "num-cores": 4},
        "kernels": [kernel],
    }
    change(manifest)
    path.with_suffix(".json").write_text(json.dumps(manifest))
    write_reference(path)
    return path


def write_reference(path: Path, side: int = 32, dtype: type = np.float32) -> None:
    np.savez(path.with_suffix(".reference.npz"), input=np.zeros((1, 3, side, side), dtype), output=np.zeros((1, 10), dtype))


def test_what_a_killed_command_left_is_no_library(tmp_path: Path) -> None:
    path = write_library(tmp_path)
    (tmp_path / f".{path.stem}.12345678.tmp.so").write_bytes(b"half")
    assert [library.path for library in find_libraries([tmp_path])] == [path]


def test_a_sound_one_is_found_once(tmp_path: Path) -> None:
    path = write_library(tmp_path)
    (library,) = find_libraries([tmp_path, path])
    assert library.spec.variant == "mobilenet_v1_0.25_32" and library.reference().inputs[0].shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("value", "stored", "complaint"),
    [
        (np.nan, "float32", "the input holds values that are not finite (NaN or infinity)"),
        (-np.inf, "float16", "the input holds values that are not finite (NaN or infinity)"),
        (1e300, "float32", "the input holds values beyond the range of float32"),
        (70_000, "float16", "the input holds values beyond the range of float16"),
        (1j, "float32", "the input holds complex numbers"),
    ],
)
def test_values_that_it_would_not_get(tmp_path: Path, value: complex, stored: str, complaint: str) -> None:
    """Said before a device is started, as the command says it of a file."""

    def stores(manifest: Manifest) -> None:
        for part in (manifest, manifest["input"], manifest["output"]):
            part["dtype"] = stored

    (library,) = open_libraries(write_library(tmp_path, stores))
    given = np.zeros((1, 3, 32, 32), np.asarray(value).dtype)
    given[0, 1, 2, 3] = value
    for called in (library.run, partial(run, library)):
        with pytest.raises(UserError, match=re.escape(complaint)):
            called(given, "pi4-virtual")


def test_two_of_one_name_cannot_share_a_report(tmp_path: Path) -> None:
    """A result file knows its variants by name."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    paths = [write_library(tmp_path / name) for name in ("old", "new")]
    with pytest.raises(UserError, match=r"old/net\.so and .*new/net\.so have the same name"):
        find_libraries(paths)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda manifest: manifest.pop("kernels"), "kernels is missing"),
        (lambda manifest: manifest.pop("weights"), "weights is missing"),
        (lambda manifest: manifest.update(threads=0), r"threads: input should be greater than or equal to 1 \(it is 0\)"),
        (lambda manifest: manifest["model"].update(resolution=[]), "is not a manifest"),
        (
            lambda manifest: manifest["kernels"][0].update(macs="many"),
            r"kernels\[0\]\.macs: input should be a valid integer",
        ),
        (lambda manifest: manifest["kernels"][0].update(latency_us=-1), r"kernels\[0\]\.latency_us: input should be greater than 0"),
        (lambda manifest: manifest["kernels"][0].update(schedule={}), "'knobs' is missing"),
        (lambda manifest: manifest["kernels"][0].update(latency_us=True), r"kernels\[0\]\.latency_us: input should be a valid number"),
        (lambda manifest: manifest.update(fastest_threads=0), "fastest_threads: input should be greater than or equal to 1"),
        (lambda manifest: manifest.update(fastest_threads=65), "fastest_threads is more than the"),
        (lambda manifest: manifest.update(version=999), "version: this tvmmobile reads 1, not 999"),
        (lambda manifest: manifest.update(version=True), "version: input should be a valid integer"),
        (lambda manifest: manifest.pop("version"), "version is missing"),
        (lambda manifest: manifest.update(library="/usr/lib/libc.so"), "library: '/usr/lib/libc.so' is not the name of a file beside it"),
        (lambda manifest: manifest.update(library="../net.so"), "library: '../net.so' is not the name of a file beside it"),
        (lambda manifest: manifest.update(library=7), "library: input should be a valid string"),
        (
            lambda manifest: manifest["target"].update(mtriple="x86_64-linux-gnu"),
            "target: 'llvm' for 'x86_64-linux-gnu', and devices are AArch64",
        ),
        (lambda manifest: manifest["target"].update(kind="cuda"), "target: 'cuda' for 'aarch64-linux-gnu', and devices are AArch64"),
        (lambda manifest: manifest["target"].pop("mcpu"), "target: mcpu is not text"),
        (
            lambda manifest: manifest["input"].update(shape=[1, 3, 64, 64]),
            r"input is \[1, 3, 64, 64\], and the network's is \[1, 3, 32, 32\]",
        ),
        (lambda manifest: manifest["input"].update(shape=[True, 3, 32, 32]), r"input\.shape\[0\]: input should be a valid integer"),
        (lambda manifest: manifest["output"].update(shape=[1, 1000]), r"output is \[1, 1000\], and the network's is \[1, 10\]"),
        (lambda manifest: manifest["input"].update(layout="NHWC"), "its input is 'float32' in 'NHWC', and networks take"),
        (lambda manifest: manifest["output"].update(dtype="int8"), "its output is 'int8' in 'NCHW', and networks take"),
        (lambda manifest: manifest.update(device=None), "device: input should be a valid string"),
        (lambda manifest: manifest.update(quantised="yes"), "quantised: input should be a valid boolean"),
        (lambda manifest: manifest["kernels"].append("conv"), "is not a manifest"),
        (lambda manifest: manifest["model"].update(resolution=float("inf")), "is not a manifest"),
        (lambda manifest: manifest.update(sha256="0" * 64), "is not the library its manifest describes"),
    ],
)
def test_a_tampered_manifest(tmp_path: Path, change: Callable[[Manifest], object], complaint: str) -> None:
    write_library(tmp_path, change)
    with pytest.raises(UserError, match=complaint):
        find_libraries([tmp_path])


def test_what_older_and_newer_manifests_have_otherwise(tmp_path: Path) -> None:
    """Fields that came later have defaults, and those of a later version are ignored."""

    def change(manifest: Manifest) -> None:
        for name in ("layout", "dtype"):
            manifest["input"].pop(name)
        manifest["kernels"][0]["colour"] = manifest["colour"] = "red"

    (library,) = find_libraries([write_library(tmp_path, change)])
    assert library.facts.fastest_threads is None and library.facts.fastest_by_core == {}
    assert not library.is_c and not {"format", "reference", "versions", "created"} & library.manifest().keys()
    (kernel,) = kernel_results(library.facts.kernels, ())
    assert (kernel.rank_correlation, kernel.least_bytes, kernel.course) == (None, None, ())


def test_a_quantised_network_may_be_steps_off_in_any_precision(tmp_path: Path) -> None:
    near, far, expected = ([np.full((1, 10), value, np.float32)] for value in (0.98, 0.7, 1.0))
    (plain,) = find_libraries([write_library(tmp_path)])
    with pytest.raises(Disagreement):
        agreement(plain, near, expected, "pi4")
    (quantised,) = find_libraries([write_library(tmp_path, lambda manifest: manifest.update(quantised=True))])
    assert agreement(quantised, near, expected, "pi4") == pytest.approx(0.02)
    with pytest.raises(Disagreement):
        agreement(quantised, far, expected, "pi4")


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    path = write_library(tmp_path, lambda manifest: manifest["kernels"][0].update(schedule={"trace": "\ud800"}))
    with pytest.raises(UserError, match="is not a manifest of tvmmobile: it is not JSON"):
        find_libraries([path])


def test_a_manifest_is_written_as_its_type_orders_it(tmp_path: Path) -> None:
    """Whatever the order in which entries are given: one of an int8 network, and one of a network with several inputs and outputs."""
    golden = Path(__file__).parents[1] / "golden/manifests"
    found = sorted(golden.glob("*.json"))
    assert len(found) > 1
    for path in found:
        entries = json.loads(path.read_text())
        write_manifest(tmp_path / "net.json", dict(reversed(entries.items())))
        assert (tmp_path / "net.json").read_text() == path.read_text()
        with pytest.raises(AssertionError):
            write_manifest(tmp_path / "net.json", entries | {"colour": "red"})


@pytest.mark.parametrize(
    ("changes", "core", "remark"),
    [
        ({}, "cortex-a72", ""),
        ({}, "cortex-a76", "note: net.so was compiled for cortex-a76, not for pi4-virtual's cortex-a72."),
        (
            {"device": "pi5-virtual"},
            "cortex-a76",
            f"note: net.so was compiled for cortex-a76, not for pi4-virtual's cortex-a72, and {PI5}.",
        ),
        (
            {"timing_model": "0" * 16},
            "cortex-a72",
            "note: net.so uses schedules tuned with another timing model, whose latencies are not comparable with the current one's.",
        ),
    ],
)
def test_what_sets_a_library_apart_is_said(tmp_path: Path, changes: Manifest, core: str, remark: str) -> None:
    path = write_library(tmp_path, lambda manifest: (manifest.update(changes), manifest["target"].update(mcpu=core)))
    remarks: list[str] = []
    libraries = find_libraries([path])

    class Remarks(Listener):
        def message(self, text: str) -> None:
            remarks.append(text)

    check_libraries(libraries, PROFILE, Remarks())
    assert remarks == ([remark] if remark else [])


def test_copies_with_another_name_are_not_timed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables show one of them, and a baseline would be that of either."""
    monkeypatch.setattr(bench_module, "started_workers", None)  # nothing starts
    libraries = find_libraries([write_library(tmp_path)])
    for suffix in (".so", ".json", ".reference.npz"):
        shutil.copy(tmp_path / f"net{suffix}", tmp_path / f"copy{suffix}")
    libraries += find_libraries([tmp_path / "copy.so"])
    with pytest.raises(UserError, match=r"net\.so and .*copy\.so have the same network, precision and number of threads"):
        bench_module.bench(libraries, "pi4-virtual")


def test_networks_without_a_library_for_each_thread_count_are_refused_before_they_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_module, "started_workers", None)  # nothing starts
    changes: list[Manifest] = [{}, {"threads": 4, "dtype": "int8"}]
    libraries = []
    for number, change in enumerate(changes):
        (folder := tmp_path / str(number)).mkdir()
        libraries += find_libraries([write_library(folder, lambda manifest, change=change: manifest.update(change))])
    with pytest.raises(UserError, match=r"some networks have no library for one of \[1, 4\] threads"):
        bench_module.bench(libraries, "pi4-virtual")


@pytest.mark.parametrize(
    ("core", "remark"),
    [
        ("neoverse-n2", ""),
        ("cortex-a715", ""),
        ("cortex-x3", "note: net was compiled for cortex-x3, not for pi4-virtual's cortex-a715."),
    ],
)
def test_a_core_that_llvm_names_after_an_older_one_is_that_of_virtual_boards(tmp_path: Path, core: str, remark: str) -> None:
    real = replace(PROFILE, cpu="Cortex-A720", mcpu="cortex-a715", modelled_as="neoverse-n2")
    (library,) = find_libraries([write_library(tmp_path, lambda manifest: manifest["target"].update(mcpu=core))])
    assert differences("net", library.facts, real) == remark


def test_records_of_another_device_are_not_shown_as_this_ones(tmp_path: Path) -> None:
    kernel = {"name": "k", "kind": "other", "macs": 0, "latency_us": 2.5, "schedule": {"trace": "[]"}, "course": [[1, 2.5]]}
    (library,) = find_libraries([write_library(tmp_path, lambda manifest: manifest.update(kernels=[kernel]))])
    assert records_compare(library.facts, PROFILE)
    assert not records_compare(library.facts.model_copy(update={"device": "pi5-virtual"}), PROFILE)
    assert not records_compare(library.facts.model_copy(update={"timing_model": None}), PROFILE)
    (own,), (others,) = (kernel_results(library.facts.kernels, (), comparable) for comparable in (True, False))
    assert (own.latency_us, own.course) == (2.5, ((1, 2.5),)) and (others.latency_us, others.course) == (None, ())


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


def test_a_pickled_reference_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_library(tmp_path).with_suffix(".reference.npz")
    np.savez(path, input=np.array([_Bomb()], dtype=object), output=np.zeros(10, np.float32))
    with pytest.raises(UserError, match="cannot be read"):
        find_libraries([tmp_path])
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", bytes(range(256))])
def test_a_damaged_reference(tmp_path: Path, content: bytes) -> None:
    write_library(tmp_path).with_suffix(".reference.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"reference\.npz cannot be read"):
        find_libraries([tmp_path])


def _archive(method: int, members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def _npy(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(4 * 3 * 32 * 32)


def _corrupt(content: bytes) -> bytes:
    """Return the same with other bytes where the first member's packed content is."""
    return content[:60] + b"\xff" * 20 + content[80:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_archive(zipfile.ZIP_STORED, {"input.npy": b"no array", "output.npy": b""}), "does not hold the arrays"),
        (_archive(zipfile.ZIP_STORED, {"input.npy": _npy("(1, 3, 32, ((("), "output.npy": b""}), "cannot be read"),
        (_archive(zipfile.ZIP_STORED, {"input.npy": _npy("(99999999, 99999999)"), "output.npy": b""}), "cannot be read"),
        (_corrupt(_archive(zipfile.ZIP_DEFLATED, {"input.npy": _npy("(1, 3, 32, 32)"), "output.npy": b""})), "cannot be read"),
        (_archive(zipfile.ZIP_DEFLATED, {"input.npy": bytes(1 << 25), "output.npy": b""}), "does not hold the arrays"),
    ],
    ids=["text", "syntax", "shape", "deflate", "bomb"],
)
def test_a_hostile_reference(tmp_path: Path, content: bytes, message: str) -> None:
    write_library(tmp_path).with_suffix(".reference.npz").write_bytes(content)
    with pytest.raises(UserError, match=message):
        find_libraries([tmp_path])


@pytest.mark.parametrize(("side", "dtype"), [(64, np.float32), (32, np.float64)])
def test_the_reference_of_another_variant(tmp_path: Path, side: int, dtype: type) -> None:
    write_reference(write_library(tmp_path), side, dtype)
    with pytest.raises(UserError, match=r"does not hold the arrays of mobilenet_v1_0\.25_32"):
        find_libraries([tmp_path])
