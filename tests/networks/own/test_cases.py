"""Small networks that users' bug reports describe: each runs as ONNX Runtime does, whatever its exporter wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from network_files import Graph, convolution, write_model, write_pt2
from onnx import TensorProto, helper, numpy_helper
from own_networks import TOLERANCE, image_for, load, run_compiled
from quantised_files import run_onnxruntime

from tvmmobile.kernels.reference import relative_error
from tvmmobile.networks import torch_operators
from tvmmobile.networks.own.files import Side, own_file
from tvmmobile.networks.own.loading import load_own
from tvmmobile.networks.own.onnx import importer
from tvmmobile.pipeline.load import load as load_model
from tvmmobile.system.errors import UserError

CASES = Path(__file__).with_name("cases")


def with_batch_of_one(path: Path, folder: Path) -> Path:
    """Return the model without dimensions of -1, which ONNX Runtime takes for a size."""
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            dimension.dim_value = abs(dimension.dim_value)
    changed = folder / path.name
    onnx.save(model, str(changed))
    return changed


@pytest.mark.parametrize(
    ("name", "parameters", "tolerance"),
    [
        ("const_weights", 108, TOLERANCE),
        ("batch_minus1", 108, TOLERANCE),
        # The files compute in float16, and have parameters that are exactly the library's.
        ("fp16_keep_io", 112, 2e-3),
        ("fp16_io", 112, 2e-3),
        ("fp16_w_cast", 108, TOLERANCE),
        ("split_one", 128, TOLERANCE),
        ("slice9", 108, TOLERANCE),
    ],
)
def test_a_file_runs(tmp_path: Path, name: str, parameters: int, tolerance: float) -> None:
    path = CASES / f"{name}.onnx"
    imported = load(path)
    image, found = image_for(imported), run_compiled(imported, tmp_path / "net.so")
    given = image.astype(np.float16) if name == "fp16_io" else image
    wanted = run_onnxruntime(with_batch_of_one(path, tmp_path), given)
    assert imported.spec.input_shape[0] == 1 and imported.parameters == parameters and imported.spec.takes[0].dtype == "float32"
    assert relative_error(found, wanted.astype(np.float32)) <= tolerance
    assert relative_error(found, imported.compute([image])[0]) <= TOLERANCE


#: Of quantised networks a value at a tie may be a step off.
STEP = 1e-2


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        *((f"bn_opset{version}.onnx", TOLERANCE) for version in (9, 11, 13)),
        *((name, TOLERANCE) for name in ("upsample9.onnx", "resize_3in.onnx", "interpo_bil.onnx", "interpo_near.onnx", "interp_bil.pt2")),
        *((name, TOLERANCE) for name in ("dprnn.onnx", "shuffle3.onnx", "shuffle_gather.onnx")),
        *((f"qdq_{name}.onnx", STEP) for name in ("resize", "u8w", "int16", "tconv")),
    ],
)
def test_a_file_is_right(tmp_path: Path, name: str, tolerance: float) -> None:
    path = CASES / name
    imported = load(path)
    image, found = image_for(imported), run_compiled(imported, tmp_path / "net.so")
    judge = "ONNX Runtime" if path.suffix == ".onnx" else "PyTorch"
    wanted = run_onnxruntime(path, image) if path.suffix == ".onnx" else imported.compute([image])[0]
    assert imported.reference_program.startswith(judge) and np.ptp(wanted) > 0.1
    assert relative_error(found, wanted) <= tolerance


def test_a_resolution_may_be_text() -> None:
    path = CASES / "const_weights.onnx"
    assert load_model(path, resolution="12x16").spec == load_model(path, resolution=(12, 16)).spec
    with pytest.raises(UserError, match=r"takes only images of side 12x16, not 8x9"):
        load_model(path, resolution="8x9")


def test_the_side_of_a_batch_is_that_of_its_images(tmp_path: Path) -> None:
    path = write_model(tmp_path / "net.onnx", convolution(), (5, 3, 6, 8))
    with pytest.raises(UserError, match="takes only images of side 6x8, not 320"):
        load(path, 320)
    assert load(path, (6, 8)).spec.input_shape == (5, 3, 6, 8)


@pytest.mark.parametrize(("shape", "side"), [((-1, 3, -1, -1), (6, 8)), ((0, 3, 0, 8), (6, 8)), ((-1, 3, 6, 8), None)])
def test_extents_below_one_are_unknown(tmp_path: Path, shape: tuple[int, ...], side: Side | None) -> None:
    path = write_model(tmp_path / "net.onnx", convolution(), shape)
    own = own_file(str(path))
    assert own is not None and load_own(own, side, None, 0, batch=2).spec.output_shape == (2, 4, 6, 8)
    if side is not None:
        with pytest.raises(UserError, match=rf"dimension 2 of the input 'x' is dynamic \({min(shape)} in the file\), and must be a number"):
            load(path)


def _constants(form: str) -> Graph:
    """Return a network whose weights are in a `Constant` node of some form."""
    made = convolution()
    weight, bias = (made.constants[name] for name in "wb")
    if form == "sparse_value":
        weight = np.where(np.abs(weight) > 0.4, weight, 0).astype(np.float32)
        places = np.argwhere(weight).astype(np.int64)
        values = numpy_helper.from_array(weight[weight != 0], "values")
        given = {form: helper.make_sparse_tensor(values, numpy_helper.from_array(places, "places"), weight.shape)}
        return Graph([helper.make_node("Constant", [], ["w"], **given), *made.nodes], {"b": bias})
    numbers = [helper.make_node("Constant", [], ["flat"], value_floats=weight.ravel().tolist())]
    numbers += [helper.make_node("Constant", [], ["shape"], value_ints=list(weight.shape))]
    numbers += [helper.make_node("Constant", [], ["half"], value_float=0.5), helper.make_node("Reshape", ["flat", "shape"], ["w"])]
    changed = helper.make_node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return Graph([*numbers, changed, helper.make_node("Mul", ["c", "half"], ["y"])], {"b": bias})


@pytest.mark.parametrize("form", ["sparse_value", "value_floats"])
def test_constants_of_every_form(tmp_path: Path, form: str) -> None:
    """ONNX Runtime and ONNX's evaluator have no sparse constants of four dimensions, so PyTorch computes the convolution."""
    weight, bias = (convolution().constants[name] for name in "wb")
    if form == "sparse_value":
        weight = np.where(np.abs(weight) > 0.4, weight, 0).astype(np.float32)
    imported = load(write_model(tmp_path / "net.onnx", _constants(form)))
    image = image_for(imported)
    sums = torch.nn.functional.conv2d(*map(torch.from_numpy, (image, weight, bias)), padding=1).numpy()
    assert relative_error(imported.compute([image])[0], sums if form == "sparse_value" else sums / 2) <= TOLERANCE
    assert imported.parameters == 112


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16])
def test_other_types_of_real_numbers(tmp_path: Path, dtype: int) -> None:
    """A product of integers that become real numbers in such a type, and a constant of `ConstantOfShape`, beside weights in it."""
    made, kind = convolution(), helper.tensor_dtype_to_np_dtype(dtype)
    shape, one = np.array([1, 4, 1, 1]), helper.make_tensor("value", dtype, [1], [1.5])
    after = [
        helper.make_node("Cast", ["numbers"], ["real"], to=dtype),
        helper.make_node("ConstantOfShape", ["shape"], ["ones"], value=one),
        helper.make_node("Mul", ["real", "ones"], ["factor"]),
        helper.make_node("Mul", ["c", "factor"], ["d"]),
        helper.make_node("Cast", ["d"], ["e"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["e"], ["y"], to=dtype),
    ]
    constants = {name: array.astype(kind) for name, array in made.constants.items()} | {
        "numbers": np.arange(4).reshape(shape),
        "shape": shape,
    }
    path = write_model(tmp_path / "net.onnx", Graph([*convolution(after).nodes], constants), dtype=dtype)
    imported = load(path)
    image = image_for(imported)
    weight, bias = (torch.from_numpy(constants[name].astype(np.float32)) for name in "wb")
    sums = torch.nn.functional.conv2d(torch.from_numpy(image), weight, bias, padding=1).numpy()
    assert imported.spec.takes[0].dtype == imported.spec.returns[0].dtype == "float32" and imported.parameters == 112
    assert relative_error(imported.compute([image])[0], sums * 1.5 * np.arange(4).reshape(shape).astype(np.float32)) <= TOLERANCE


def test_an_operator_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_given: Any) -> Any:
        raise ValueError("too odd")

    monkeypatch.setitem(importer.CONVERTERS, "Relu", refuse)
    path = write_model(tmp_path / "net.onnx", convolution([helper.make_node("Relu", ["c"], ["y"], "bend")]))
    with pytest.raises(UserError, match=r"the operator Relu \(node 'bend', opset 17\) cannot be imported into Relax: ValueError: too odd"):
        load(path)
    monkeypatch.setattr(torch_operators, "converters", lambda: {"relu.default": refuse})
    program = write_pt2(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU()).eval(), tmp_path / "net.pt2")
    with pytest.raises(
        UserError, match=r"the operator aten\.relu\.default \(node 'relu'\).* cannot be imported into Relax: ValueError: too odd"
    ):
        load(program)
