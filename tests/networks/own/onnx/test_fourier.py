"""Fourier transforms of ONNX files agree with ONNX Runtime or NumPy for random lengths, windows and axes, or are refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_campaign import AGREES, REFUSED, outcomes
from random_onnx import Case

from tvmmobile.kernels.reference import relative_error
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.loading import load_own
from tvmmobile.networks.own.onnx.constants import with_shapes

Array = np.ndarray[Any, Any]


def case(operator: str, opset: int, nodes: Sequence[Any], shape: Sequence[int], constants: Mapping[str, Array], seed: int = 0) -> Case:
    """Return a model in which the input `x` times a matrix of weights is `c`, and nodes make `y` of that."""
    random = np.random.default_rng(seed)
    values = {"w": random.normal(0, 1, (shape[-1], shape[-1])).astype(np.float32), **constants}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["c"]), *nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(array, name) for name, array in values.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8
    return Case("fourier", operator, opset, seed, with_shapes(made), {"x": random.normal(0, 1, shape).astype(np.float32)})


def number(value: int) -> Array:
    return np.array(value, np.int64)


def short_time(seed: int) -> Case:
    """Frames of any length with or without a window, one behind another, overlapping, or with samples between them."""
    random = np.random.default_rng(seed)
    length = int(random.integers(3, 40))
    samples, hop = length + int(random.integers(0, 90)), int(random.integers(1, 50))
    window = {"v": random.uniform(0.1, 1, length).astype(np.float32)} if seed % 3 else {}
    names = ["d", "h", "v" if window else "", "" if window and seed % 2 else "n"]
    nodes = [helper.make_node("Reshape", ["c", "s"], ["d"]), helper.make_node("STFT", names, ["y"], onesided=int(seed % 4 > 0))]
    sizes = {"s": np.array([2, samples] + [1] * (seed % 2), np.int64), "h": number(hop), "n": number(length)}
    return case("STFT", 17, nodes, (2, samples), {**sizes, **window}, seed)


def discrete(seed: int) -> Case:
    """Transforms of real and complex numbers along any axis, of part of them or with zeros behind them, there and back."""
    random = np.random.default_rng(seed)
    shape = (int(random.integers(1, 4)), int(random.integers(1, 9)), int(random.integers(1, 9)), 1 + seed % 2)
    axis, opset, inverse = int(random.integers(0, 3)), (17, 20)[seed % 3 > 0], seed % 5 == 1
    length = {"n": number(max(1, shape[axis] + int(random.integers(-2, 4))))} if seed % 4 else {}
    names, given = ["d", "n" if length else ""], {"inverse": int(inverse), "onesided": int(not inverse and shape[-1] == 1)}
    more = {"axis": axis} if opset == 17 else {}
    if opset == 20:
        names, length = [*names, "a"], {**length, "a": number(axis - 4 if seed % 2 else axis)}
    nodes = [helper.make_node("Reshape", ["c", "s"], ["d"]), helper.make_node("DFT", names, ["y"], **given, **more)]
    return case("DFT", opset, nodes, (1, int(np.prod(shape))), {"s": np.array(shape, np.int64), **length}, seed)


def to_real(seed: int) -> Case:
    """Transforms of half of the complex numbers back to real ones, as many as there were; the first and last one need not be real."""
    random = np.random.default_rng(seed)
    shape, axis = [int(random.integers(1, 4)), int(random.integers(1, 5)), int(random.integers(1, 5)), 2], int(random.integers(0, 3))
    shape[axis] = int(random.integers(2, 9))
    length, opset = {"n": number(2 * (shape[axis] - 1))} if seed % 2 else {}, (17, 20)[seed % 3 > 0]
    names, more = ["d", "n" if length else "", *(["a"] if opset == 20 else [])], {"axis": axis} if opset == 17 else {}
    nodes = [helper.make_node("Reshape", ["c", "s"], ["d"]), helper.make_node("DFT", names, ["y"], inverse=1, onesided=1, **more)]
    return case("DFT", opset, nodes, (1, math.prod(shape)), {"s": np.array(shape, np.int64), **length, "a": number(axis)}, seed)


@pytest.mark.parametrize("seeds", [range(5), pytest.param(range(5, 16), marks=pytest.mark.long)], ids=["few", "more"])
def test_random_transforms_agree_with_onnx_runtime(seeds: range) -> None:
    found = list(outcomes([*map(short_time, seeds), *map(discrete, seeds), *map(to_real, seeds)]))
    assert [outcome for outcome in found if outcome.result != AGREES] == [] and len(found) == 3 * len(seeds)


def long(seed: int) -> tuple[Case, Array]:
    """Transforms of real numbers in two stages, of lengths with many factors or with a large one, and their values by NumPy: power spectra
    by `STFT`, `DFT` with too few or too many numbers, `Conv` with a transform's weights.
    """
    random, kind = np.random.default_rng(seed), ("STFT", "DFT", "Conv")[seed % 3]
    length, hop = int(random.choice((128, 160, 240, 256, 320, 400, 418, 450, 512, 600))), int(random.integers(1, 400))
    batch, half, keeps = 1 + seed // 3 % 2, kind == "Conv" or bool(seed % 4), int(random.integers(2))
    samples, window = length + int(random.integers(4 * hop)), random.uniform(0.1, 1, length)
    if kind == "DFT":
        samples, window, hop = length + int(random.integers(-20, 20)), np.ones(length), length
    samples = -(-samples // 8) * 8
    turns = np.fft.rfft(np.eye(length)).T * window
    sizes = {
        "s": np.array({"STFT": [batch, samples], "DFT": [batch, 1, samples, 1], "Conv": [batch, 1, samples]}[kind], np.int64),
        "n": number(length),
        "h": number(hop),
    }
    sizes |= {"v": window.astype(np.float32), "k": np.concatenate([turns.real, turns.imag])[:, None].astype(np.float32)}
    nodes = {
        "STFT": helper.make_node("STFT", ["d", "h", "v"], ["z"], onesided=int(half)),
        "DFT": helper.make_node("DFT", ["d", "n"], ["y"], axis=2, onesided=int(half)),
        "Conv": helper.make_node("Conv", ["d", "k"], ["y"], strides=[hop], pads=[3, 5]),
    }
    made = [helper.make_node("Reshape", ["c", "s"], ["d"]), nodes[kind]]
    made += [helper.make_node("ReduceSumSquare", ["z"], ["y"], axes=[-1], keepdims=keeps)] * (kind == "STFT")
    given = case(kind, 17, made, (batch, samples // 8, 8), sizes, seed)
    signal = (given.feeds["x"] @ numpy_helper.to_array(given.model.graph.initializer[0])).astype(np.float64).reshape(batch, samples)
    signal = np.pad(signal, ((0, 0), (3, 5) if kind == "Conv" else (0, max(0, length - samples))))
    frames = np.lib.stride_tricks.sliding_window_view(signal, length, 1)[:, :: hop if kind != "DFT" else samples] * window
    found = (np.fft.rfft if half else np.fft.fft)(frames)
    if kind == "STFT":
        return given, np.abs(found[..., None] if keeps else found) ** 2
    pairs = np.stack([found.real, found.imag], -1)
    return given, pairs if kind == "DFT" else pairs.transpose(0, 3, 2, 1).reshape(batch, length + 2, -1)


@pytest.mark.parametrize("seeds", [range(0, 9, 4), pytest.param(range(1, 60), marks=pytest.mark.long)], ids=["few", "more"])
def test_transforms_in_two_stages_agree_with_numpy(seeds: range) -> None:
    made = [long(seed) for seed in seeds]
    expected = {given.seed: [values] for given, values in made}
    found = list(outcomes([given for given, _ in made], lambda given: expected[given.seed]))
    assert [outcome for outcome in found if outcome.result != AGREES or float(outcome.why) > 1e-6] == [] and len(found) == len(seeds)


def test_only_convolutions_with_a_transforms_weights_become_one(tmp_path: Path) -> None:
    given, _ = long(2)
    [kernel] = [tensor for tensor in given.model.graph.initializer if tensor.name == "k"]
    weights = numpy_helper.to_array(kernel).copy()
    weights[7, 0, 5] += 1e-4
    changed = replace(given, model=onnx.ModelProto.FromString(given.model.SerializeToString()))
    [other] = [tensor for tensor in changed.model.graph.initializer if tensor.name == "k"]
    other.CopyFrom(numpy_helper.from_array(weights, "k"))
    for number, one in enumerate((given, changed)):
        onnx.save(one.model, tmp_path / f"{number}.onnx")
    by_stages, plain = (load_own(OwnFile(tmp_path / f"{number}.onnx"), None, None, 0) for number in range(2))
    assert ["frames" in str(one.module) for one in (by_stages, plain)] == [True, False]
    assert by_stages.macs is not None and plain.macs is not None and by_stages.macs < plain.macs


def test_what_has_no_constant_matrix_is_refused_by_name() -> None:
    computed = [
        helper.make_node("Reshape", ["c", "s"], ["d"]),
        helper.make_node("Abs", ["d"], ["v"]),
        helper.make_node("STFT", ["d", "h", "v"], ["y"]),
    ]
    long = [helper.make_node("Reshape", ["c", "s"], ["d"]), helper.make_node("DFT", ["d", "n"], ["y"], axis=1)]
    cases = [
        case("STFT", 17, computed, (1, 8), {"s": np.array([1, 8], np.int64), "h": number(2)}),
        case("DFT", 17, long, (1, 4096), {"s": np.array([1, 4096, 1], np.int64), "n": number(8191)}),
    ]
    assert [outcome.result for outcome in outcomes(cases[1:])] == [REFUSED]
    assert all(outcome.result != AGREES for outcome in outcomes(cases[:1]))  # ONNX Runtime takes no such window either


def test_frames_of_any_length_are_judged_by_a_program_that_computes_them_well(tmp_path: Path) -> None:
    """ONNX Runtime's are 3e-5 off where the length is no power of two: more than a network may be after squares and a logarithm."""
    for length, hop, judge in ((320, np.array([100]), "onnx.reference"), (256, number(100), "ONNX Runtime")):
        window = np.hanning(length).astype(np.float32)
        given = case("STFT", 17, [helper.make_node("STFT", ["c", "h", "v"], ["y"])], (1, 2000), {"h": hop, "v": window})
        onnx.save(given.model, tmp_path / f"{length}.onnx")
        imported = load_own(OwnFile(tmp_path / f"{length}.onnx"), None, None, 0)
        [found], signal = imported.compute([given.feeds["x"]]), given.feeds["x"] @ numpy_helper.to_array(given.model.graph.initializer[0])
        frames = np.lib.stride_tricks.sliding_window_view(signal[0].astype(np.float64), length)[::100] * window
        right = np.fft.rfft(frames)
        assert imported.reference_program.startswith(judge)
        assert relative_error(found[0], np.stack([right.real, right.imag], -1)) < 2e-6
