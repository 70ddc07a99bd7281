"""Quantises a network for one of the other libraries: `integer_models.py PACKAGES MODEL CALIBRATION OUTPUT`, in a process of its own.

PACKAGES is the folder with the packages of converters.lock, CALIBRATION a `.npy` with some inputs, NCHW. What each library's own
tool makes of it: weights by output channel, activations by tensor, input and output in float32. An OUTPUT that ends in `.u8.onnx` has
unsigned activations.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


def to_litert(model: Path, inputs: Any, output: Path) -> None:
    """Quantise a LiteRT model with ai-edge-quantizer."""
    from ai_edge_quantizer import quantizer, recipe_manager
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.recipe import AlgorithmName

    recipe = recipe_manager.RecipeManager()
    whole = {"regex": ".*"}
    integers = {"activation_num_bits": 8, "weight_num_bits": 8, "algorithm_key": AlgorithmName.MIN_MAX_UNIFORM_QUANT}
    recipe.add_static_config(**whole, operation_name=TFLOperationName.ALL_SUPPORTED, **integers)
    for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        recipe.add_quantization_config(**whole, operation_name=end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    found = quantizer.Quantizer(float_model=str(model))
    found.load_quantization_recipe(recipe.get_quantization_recipe())
    signature = "serving_default"
    calibrated = found.calibrate({signature: [{"args_0": pixels[None].transpose(0, 2, 3, 1)} for pixels in inputs]})
    found.quantize(calibrated).export_model(str(output))


def to_mnn(model: Path, inputs: Any, output: Path) -> None:
    """Quantise an MNN model with MNN's own tool, which reads inputs from files of text."""
    import _tools

    with tempfile.TemporaryDirectory(prefix="tvmmobile-quantise-") as scratch:
        for number, pixels in enumerate(inputs):
            folder = Path(scratch, "inputs", str(number))
            folder.mkdir(parents=True)
            description = {"inputs": [{"name": "image", "shape": [1, *pixels.shape]}], "outputs": ["logits"]}
            (folder / "input.json").write_text(json.dumps(description), encoding="utf-8")
            np.savetxt(folder / "image.txt", pixels.ravel(), fmt="%.7g")
        settings = {
            "format": "RGB",
            "mean": [0.0, 0.0, 0.0],
            "normal": [1.0, 1.0, 1.0],
            "width": inputs.shape[3],
            "height": inputs.shape[2],
            "path": f"{scratch}/inputs/",
            "used_image_num": len(inputs),
            "input_type": "sequence",
            "feature_quantize_method": "KL",
            "weight_quantize_method": "MAX_ABS",
        }
        configuration = Path(scratch, "settings.json")
        configuration.write_text(json.dumps(settings), encoding="utf-8")
        _tools.mnnquant(["mnnquant", str(model), str(output), str(configuration)])


def to_onnx(model: Path, inputs: Any, output: Path) -> None:
    """Quantise an ONNX model with ONNX Runtime's quantiser: floats between pairs of conversions, which it fuses when loading."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Inputs(CalibrationDataReader):
        def __init__(self) -> None:
            self._rest: Iterator[Any] = iter(inputs)

        def get_next(self) -> dict[str, Any] | None:
            pixels = next(self._rest, None)
            return None if pixels is None else {"image": pixels[None]}

    activations = QuantType.QUInt8 if output.name.endswith(".u8.onnx") else QuantType.QInt8
    with tempfile.TemporaryDirectory(prefix="tvmmobile-quantise-") as scratch:
        ready = Path(scratch, "ready.onnx")
        quant_pre_process(str(model), str(ready), skip_symbolic_shape=True)
        options = {"quant_format": QuantFormat.QDQ, "activation_type": activations, "weight_type": QuantType.QInt8, "per_channel": True}
        quantize_static(str(ready), str(output), Inputs(), **options)


def to_ncnn(model: Path, inputs: Any, output: Path) -> None:
    """Quantise an ncnn model by the largest magnitudes that ncnn itself finds; weights go into a file beside `output`."""
    import ncnn

    from studies.formats.ncnn_models import quantise, quantised_inputs, read_layers, write_layers

    layers = read_layers(model.read_text(encoding="utf-8"), model.with_suffix(".bin").read_bytes())
    net = ncnn.Net()
    net.opt.lightmode = False  # tensors are read after their last use
    net.load_param(str(model))
    net.load_model(str(model.with_suffix(".bin")))
    magnitudes = dict.fromkeys(quantised_inputs(layers), 0.0)
    for pixels in inputs:
        extractor = net.create_extractor()
        extractor.input(net.input_names()[0], ncnn.Mat(pixels))
        for name in magnitudes:
            magnitudes[name] = max(magnitudes[name], float(np.abs(np.array(extractor.extract(name)[1])).max()))
    quantise(layers, magnitudes)
    text, weights = write_layers(layers)
    output.with_suffix(".bin").write_bytes(weights)
    output.write_text(text, encoding="utf-8")


CONVERTERS = {".tflite": to_litert, ".mnn": to_mnn, ".onnx": to_onnx, ".param": to_ncnn}


if __name__ == "__main__":
    _, packages, source, calibration, goal = sys.argv
    # Those of the checkout's Python come first.
    sys.path += [str(Path(__file__).resolve().parents[2]), packages]
    CONVERTERS[Path(goal).suffix](Path(source), np.load(calibration), Path(goal))
