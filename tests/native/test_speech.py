"""Voice detectors as C libraries: C programs stream speech through them by the documented interface, as ONNX Runtime does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from c_libraries import write_own_library
from onnx import TensorProto, helper, numpy_helper

import tvmmobile as tm
from studies.networks.zoo import extracted, published, wheel_of
from tvmmobile.graph.layers import Array
from tvmmobile.native.source import FUNCTIONS, STATE_FUNCTIONS
from tvmmobile.networks.frontend import Imported
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.loading import load_own
from tvmmobile.pipeline.options.network import shape_from, value_from

PROGRAM = Path(__file__).with_name("speech.c")
RATE, SECONDS = 16000, 10
#: First formants of a, i, u in Hz.
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240))
node = helper.make_node


def speech() -> Array:
    """Return ten seconds of syllables with pauses: pulses of a falling pitch through three resonators, with a little noise."""
    random, sound = np.random.default_rng(7), np.zeros(RATE * SECONDS)
    start = RATE // 2
    for syllable in range(24):
        length = int(random.uniform(0.15, 0.3) * RATE)
        places = np.arange(length) / RATE
        source = np.diff(np.floor(np.cumsum(random.uniform(100, 160) * (1 - 0.5 * places)) / RATE), prepend=0)
        for formant in VOWELS[syllable % 3]:
            radius = np.exp(-np.pi * 80 / RATE)
            reply = radius ** np.arange(800) * np.cos(2 * np.pi * formant / RATE * np.arange(800))
            source = np.convolve(source, reply)[:length]
        sound[start : start + length] = 0.3 * source / np.abs(source).max() * np.hanning(length)
        start += length + int((1.0 if syllable % 6 == 5 else 0.05) * RATE)
    return (sound + random.normal(0, 1e-3, sound.size)).astype(np.float32)


def write_small(path: Path) -> Path:
    """Write a detector: the magnitudes of a Fourier transform, a convolution, an LSTM with its state, a sigmoid."""
    random, units = np.random.default_rng(2), 8
    waves = np.exp(-2j * np.pi * np.arange(9)[:, None] * np.arange(16) / 16) * np.hanning(16)
    constants: Mapping[str, Array] = {
        "waves": np.concatenate([waves.real, waves.imag])[:, None].astype(np.float32),
        "kernel": random.normal(0, 3.0, (units, 9, 3)).astype(np.float32),
        "w": random.normal(0, 1.0, (1, 4 * units, units)).astype(np.float32),
        "r": random.normal(0, 0.5, (1, 4 * units, units)).astype(np.float32),
        "b": random.normal(0, 0.3, (1, 8 * units)).astype(np.float32),
        "head": random.normal(0, 3.0, (units, 1)).astype(np.float32),
        "one": np.array([1]),
        "zero": np.array([0]),
    }
    nodes = [
        node("Unsqueeze", ["input", "one"], ["sound"]),
        node("Conv", ["sound", "waves"], ["both"], strides=[8]),
        node("Split", ["both"], ["re", "im"], axis=1),
        *[node("Mul", [part, part], [f"{part}2"]) for part in ("re", "im")],
        node("Add", ["re2", "im2"], ["power"]),
        node("Sqrt", ["power"], ["magnitude"]),
        node("Conv", ["magnitude", "kernel"], ["c"], strides=[2], pads=[1, 1]),
        node("Relu", ["c"], ["f"]),
        node("Transpose", ["f"], ["steps"], perm=[2, 0, 1]),
        node("Split", ["state"], ["h", "m"], axis=0),
        node("LSTM", ["steps", "w", "r", "b", "", "h", "m"], ["", "hn", "mn"], hidden_size=units),
        node("Concat", ["hn", "mn"], ["stateN"], axis=0),
        node("Squeeze", ["hn", "zero"], ["last"]),
        node("Relu", ["last"], ["active"]),
        node("MatMul", ["active", "head"], ["logit"]),
        node("Sigmoid", ["logit"], ["output"]),
    ]
    ends = {"input": (1, 96), "state": (2, 1, units), "output": (1, 1), "stateN": (2, 1, units)}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends.items()]
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "detector", values[:2], values[2:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def by_onnxruntime(path: Path, imported: Imported, sound: Array, chunk: int) -> Array:
    """Return the probability of each chunk."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    window, state = (np.zeros(port.shape, np.float32) for port in imported.spec.takes)
    rate = {"sr": np.array(RATE)} if len(session.get_inputs()) > 2 else {}
    found = []
    for begin in range(0, len(sound) - chunk + 1, chunk):
        window = np.concatenate([window[:, chunk:], sound[None, begin : begin + chunk]], 1)
        probability, state = session.run(["output", "stateN"], {"input": window, "state": state, **rate})
        found.append(probability.item())
    return np.array(found)


def by_c_program(library: Path, sound: Array, chunk: int, words: Sequence[str], emulator: Sequence[str | Path] = ()) -> Array:
    """Compile the program around a library, by a compiler with options; return what it prints."""
    folder = library.parent
    subprocess.run([*words, "-Wall", "-Wextra", "-Werror", PROGRAM, "-I", folder, library, "-o", folder / "speech"], check=True)
    sound.tofile(folder / "sound.f32")
    command = [*emulator, folder / "speech", folder / "sound.f32", str(chunk)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "LD_LIBRARY_PATH": str(folder)})
    return np.array(done.stdout.split(), float)


def by_host_program(imported: Imported, sound: Array, chunk: int, folder: Path, stateful: bool) -> Array:
    """Compile the network, whose library may keep the state, and the program for this machine."""
    write_own_library(imported, folder / "net.so", ["state=stateN"] * stateful)
    return by_c_program(folder / "net.so", sound, chunk, ["gcc", "-std=c11", *["-DSTATEFUL"] * stateful])


@pytest.mark.parametrize("stateful", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_c_program_streams_speech(tmp_path: Path, stateful: bool) -> None:
    path, sound = write_small(tmp_path / "net.onnx"), speech()[: 2 * RATE]
    imported = load_own(OwnFile(path), None, None, 0)
    expected = by_onnxruntime(path, imported, sound, 64)
    assert expected.shape == (500,) and np.ptp(expected) > 0.2
    np.testing.assert_allclose(by_host_program(imported, sound, 64, tmp_path, stateful), expected, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("stateful", [False, True])
def test_a_c_program_detects_speech_with_silero(tmp_path: Path, stateful: bool) -> None:
    (file,) = (each for each in published() if each.path == "silero_vad/data/silero_vad.onnx")
    path, sound = extracted(file, wheel_of(file.package), tmp_path), speech()
    own = OwnFile(path, "", tuple(map(shape_from, file.shape)), tuple(map(value_from, file.value)))
    imported = load_own(own, None, None, 0)
    expected = by_onnxruntime(path, imported, sound, 512)
    assert expected.shape == (312,) and expected.max() > 0.9 and expected.min() < 0.1
    np.testing.assert_allclose(by_host_program(imported, sound, 512, tmp_path, stateful), expected, atol=1e-4)


@pytest.mark.long
@pytest.mark.virtual
@pytest.mark.parametrize(("device", "dtype", "most"), [("pi4", "float32", 1e-5), ("pi5", "float16", 5e-3)])
def test_a_compiled_library_keeps_the_state_on_a_device(tmp_path: Path, device: str, dtype: str, most: float) -> None:
    path, sound = write_small(tmp_path / "net.onnx"), speech()[:RATE]
    library = tm.compile(tm.load(path), f"{device}-virtual", dtype=dtype, stateful="state=stateN", out=tmp_path)
    program = library.facts.program
    assert library.facts.stateful == ("state=stateN",) and library.facts.checked and len(library.reference().inputs) == 1
    evaluation = tm.evaluate(library, "noise:2", f"{device}-virtual", model=str(path))
    assert evaluation.file.beyond_tolerance == 0 and evaluation.file.evaluated == 2
    names = [f"#define net_{name} {program.prefix}_{name}" for name in (*FUNCTIONS, *STATE_FUNCTIONS)]
    (tmp_path / "net.h").write_text("\n".join([f'#include "{library.header_path.name}"', *names, ""]))
    emulator = ["qemu-aarch64", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu"]
    found = by_c_program(library.path, sound, 64, ["aarch64-linux-gnu-gcc", "-DSTATEFUL"], emulator)
    expected = by_onnxruntime(path, load_own(OwnFile(path), None, None, 0), sound, 64)
    assert expected.shape == (250,)
    np.testing.assert_allclose(found, expected, atol=most)
