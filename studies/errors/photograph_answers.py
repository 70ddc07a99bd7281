"""The classes that networks find in photographs, by libraries under QEMU or on this machine."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import tvmmobile as tm
from studies.errors.half_errors import host_library
from studies.errors.imagenet import NORMALISED, SIDES, float32_scores, inputs_of, laid_out, preprocessing
from studies.errors.losses import SignalToNoise
from studies.formats import export_models
from studies.int8_networks import DEVICE, QuantisedModel, imported_file, quantised
from tvmmobile.accuracy.evaluation_file import ImageResult
from tvmmobile.graph.layers import Array
from tvmmobile.graph.precision import FLOAT16, FLOAT32, INT8
from tvmmobile.networks.labelled import LabelledImage
from tvmmobile.quantisation.data import calibration_data
from tvmmobile.system.entry_points import progress
from tvmmobile.system.programs import run_tool

#: What is measured: the precision, and what `--max-drop` says. LiteRT's quantiser gets the same pictures.
LITERT = "int8, LiteRT"
KINDS = {"float32": "", "float16": "", "int8": "", "int8, --max-drop 1%": "1%", LITERT: ""}
_AT_ONCE = 8
INTEGER_MODELS = export_models.HERE / "integer_models.py"
QUANTISER_TIMEOUT_S = 3600


@dataclass(frozen=True)
class Answers:
    """Classes of pictures: the right ones, float32's, and those of another precision.

    Attributes:
        floats: number of layers that stay in float32.
        decibels: signal-to-noise ratio of the outputs.
    """

    labels: tuple[int, ...]
    exact: tuple[int, ...]
    found: tuple[int, ...]
    floats: int
    decibels: float | None


def by_libraries(name: str, file: Path, kind: str, pictures: Sequence[LabelledImage], work: Path) -> Answers:
    """Compile libraries and evaluate them on the virtual board: one for all pictures, or, in int8, one for each half."""
    parts = [(pictures, pictures)]
    if kind.startswith(INT8.name):
        parts = [(pictures[0::2], pictures[1::2]), (pictures[1::2], pictures[0::2])]
    results: list[ImageResult] = []
    floats, signals = 0, []
    for number, (calibrating, tested) in enumerate(parts):
        place = work / f"{kind} {number}"
        data: dict[str, Any] = {}
        if kind.startswith(INT8.name):
            data["calibrate"] = laid_out(calibrating, place / "calibration")
            data |= {"max_drop": KINDS[kind]} if KINDS[kind] else {}
        model = tm.load(str(file))
        dtype = kind.partition(",")[0]
        compiled = tm.compile(model, DEVICE, out=place, dtype=dtype, image=NORMALISED, **data)
        folder = laid_out(tested, place / "tested")
        evaluated = tm.evaluate(compiled, folder, DEVICE, model=str(file), preprocessing=preprocessing(name)).file
        results += evaluated.images
        floats = max(floats, len(compiled.facts.float32_layers))
        signals.append(evaluated.differences.signal_to_noise_db)
    labels, exact, found = zip(*((one.label, one.original_top5[0], one.library_top5[0]) for one in results), strict=True)
    return Answers(labels, exact, found, floats, min((one for one in signals if one is not None), default=None))


@cache
def on_host(
    name: str, file: Path, kind: str, calibrating: tuple[LabelledImage, ...], tested: tuple[LabelledImage, ...], work: Path
) -> Answers:
    """Compute pictures on this machine, a few at a time: float32 in PyTorch, float16 by kernels for this machine, exact integers."""
    float32, floats = float32_scores(name), 0
    found: Callable[[Array], Array] = float32
    if kind == FLOAT16.name:
        half, floats = host_library(tm.load(str(file)), work)
        found = partial(_one_by_one, half)
    elif kind == LITERT:
        found = litert_integers(name, file, calibrating, work)
    elif kind != FLOAT32.name:
        ready = integers(name, file, KINDS[kind], calibrating)
        if KINDS[kind] and not ready.floats:  # the limit holds as it is
            return on_host(name, file, INT8.name, calibrating, tested, work)
        found, floats = ready.integers.outputs, ready.floats
    exact_classes, found_classes, ratio = [], [], SignalToNoise()
    for first in range(0, len(tested), _AT_ONCE):
        inputs = inputs_of(name, tested[first : first + _AT_ONCE])
        exact, outputs = float32(inputs), found(inputs)
        exact_classes += exact.argmax(1).tolist()
        found_classes += outputs.argmax(1).tolist()
        ratio.add(exact, outputs)
        progress(f"{name} {kind}: {len(exact_classes)} of {len(tested)} pictures")
    labels = tuple(one.label for one in tested)
    return Answers(labels, tuple(exact_classes), tuple(found_classes), floats, ratio.decibels)


def litert_integers(name: str, file: Path, calibrating: Sequence[LabelledImage], work: Path) -> Callable[[Array], Array]:
    """Quantise a network with LiteRT's tool; return what its interpreter computes on this machine."""
    from ai_edge_litert.interpreter import Interpreter

    work.mkdir(parents=True, exist_ok=True)
    export_models.convert(export_models.Source.of(file, (1, 3, SIDES[name], SIDES[name])), "model.tflite", work)
    np.save(work / "inputs.npy", inputs_of(name, calibrating))
    model, goal = work / "model.tflite", work / "integers.tflite"
    command = [sys.executable, INTEGER_MODELS, export_models.converters(), model, work / "inputs.npy", goal]
    run_tool(
        list(map(str, command)), "LiteRT's quantiser", "Run it by hand: studies/formats/integer_models.py says how.", QUANTISER_TIMEOUT_S
    )
    interpreter = Interpreter(model_path=str(goal), num_threads=1)
    interpreter.allocate_tensors()
    [given], [returned] = (
        (one["index"] for one in interpreter.get_input_details()),
        (one["index"] for one in interpreter.get_output_details()),
    )

    def compute(image: Array) -> Array:
        interpreter.set_tensor(given, np.ascontiguousarray(image.transpose(0, 2, 3, 1)))
        interpreter.invoke()
        output: Array = interpreter.get_tensor(returned)
        return output

    return partial(_one_by_one, compute)


def _one_by_one(compute: Callable[[Array], Array], inputs: Array) -> Array:
    return np.concatenate([compute(image[None]) for image in inputs])


@cache
def integers(name: str, file: Path, limit: str, calibrating: tuple[LabelledImage, ...]) -> QuantisedModel:
    """Quantise a network as `compile` does it; within a limit, the fewest layers stay in float32."""
    with tempfile.TemporaryDirectory(prefix="tvmmobile-photographs-") as place:
        data = calibration_data(str(laid_out(calibrating, Path(place) / "calibration")), preprocessing(name), generated=False)
        model, imported = imported_file(file)
        return quantised(model, data, limit, imported)
