"""ONNX's own tests of operators: all whose inputs are float32 and of known shape, and those with other inputs that can be constants."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx_campaign import AGREES, FAILED, REFUSED, UNNAMED, WRONG, Outcome, by_runtime, outcomes
from random_onnx import Array, Case

from tvmmobile.networks.own.files import RequestedShape
from tvmmobile.networks.own.onnx.file import load_onnx

#: Every so many cases are tried by default.
STRIDE = 60
#: Results with as many rows as values say are filled up, which `test_missing_rows.py` tests.
VARYING = ("test_compress", "test_nonmaxsuppression", "test_nonzero", "test_unique")
#: Those whose outputs are given with four digits, or computed as ONNX Runtime does not; we compute as it does.
DISPUTED = {
    "test_averagepool_2d_ceil_last_window_starts_on_pad",
    "test_resize_downsample_scales_cubic_align_corners",
    "test_resize_downsample_scales_linear_align_corners",
}
#: What was refused once without an operator's name.
UNSUPPORTED = {
    "test_batchnorm_epsilon_training_mode",
    "test_cast_FLOAT_to_INT4",
    "test_castlike_FLOAT_to_UINT4",
    "test_causal_conv_with_state_kernel_size_one",
    "test_quantizelinear",
    "test_quantizelinear_int4",
    "test_sce_mean_expanded",
    "test_shape_start_greater_than_end",
}
#: What went wrong once.
FOUND = {
    "test_causal_conv_with_state_silu_with_past_state",
    "test_gelu_tanh_1_expanded",
    "test_isnan",
    "test_mod_float_edge_cases_fmod_0_float32",
    "test_shape_end_negative_1",
    "test_size",
    "test_swiglu",
}
#: What does not exist in networks that run on boards, by the beginnings of names: they are refused by name.
FOREIGN = ("test_adagrad", "test_adam", "test_momentum", "test_nesterov", "test_ai_onnx_ml", "test_training_dropout")


def cases() -> Iterator[tuple[Case, list[Array], bool]]:
    """Yield models with their inputs and right outputs, and whether all inputs are float32: others are made constants."""
    with np.errstate(all="ignore"):
        tests = load_model_tests(kind="node")
    for number, test in enumerate(sorted(tests, key=lambda test: test.name)):
        model = test.model or onnx.load(Path(test.model_dir) / "model.onnx")
        values = [*model.graph.input, *model.graph.output]
        if test.name.startswith((*FOREIGN, *VARYING)) or not all(value.type.HasField("tensor_type") for value in values):
            continue
        given = test.data_sets[0] if test.data_sets else (_read(test.model_dir, "input"), _read(test.model_dir, "output"))
        inputs, outputs = (
            [numpy_helper.to_array(one) if isinstance(one, TensorProto) else np.asarray(one) for one in part] for part in given
        )
        if case := _case(test.name, number, model, inputs):
            yield case, outputs, len(case.feeds) == len(model.graph.input)


def _read(folder: str, kind: str) -> list[Array]:
    files = sorted(Path(folder, "test_data_set_0").glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.rpartition("_")[2]))
    return [numpy_helper.to_array(TensorProto.FromString(path.read_bytes())) for path in files]


def _case(name: str, number: int, given: ModelProto, inputs: list[Array]) -> Case | None:
    """Return a model with float32 inputs of known shape; `None` if it has none."""
    model, feeds = ModelProto.FromString(given.SerializeToString()), {}
    if len(inputs) != len(model.graph.input):
        return None
    for value, array in zip(model.graph.input, inputs, strict=True):
        kind = value.type.tensor_type
        fixed = feeds and given.graph.node[0].op_type in ("Resize", "Upsample")
        if kind.elem_type == TensorProto.FLOAT and array.size and array.ndim and not fixed:
            feeds[value.name] = array
            kind.shape.CopyFrom(onnx.helper.make_tensor_value_info("", TensorProto.FLOAT, array.shape).type.tensor_type.shape)
        else:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
    opset = max(entry.version for entry in model.opset_import)
    return Case("backend", name, opset, number, model, feeds) if feeds else None


def tried(stride: int, named: Set[str] = frozenset()) -> dict[bool, list[Outcome]]:
    """Every so many cases and those of these names, by whether all their inputs are float32."""
    chosen = [case for number, case in enumerate(cases()) if number % stride == 0 or case[0].operator in named]
    expected = {case.operator: by_runtime(case) if case.operator in DISPUTED else outputs for case, outputs, _ in chosen}
    floats = {case.operator: alone for case, _, alone in chosen}
    found: dict[bool, list[Outcome]] = {True: [], False: []}
    for outcome in outcomes(
        [case for case, _, _ in chosen], lambda case: expected[case.operator], lambda file: load_onnx(file, RequestedShape())
    ):
        found[floats[outcome.case.operator]].append(outcome)
    return found


def check(found: dict[bool, list[Outcome]]) -> None:
    """None is wrong, fails without a message, or is refused without an operator's name; 95 % of those with float32 inputs agree."""
    bad = [(one.case.operator, one.why[-300:]) for group in found.values() for one in group if one.result in (WRONG, FAILED, UNNAMED)]
    assert not bad, bad
    counts = Counter(one.result for one in found[True])
    refused = [(one.case.operator, one.why) for one in found[True] if one.result == REFUSED]
    assert counts[AGREES] >= math.floor(0.95 * counts.total()), refused


def test_some_of_onnxs_own_tests() -> None:
    check(tried(STRIDE, FOUND))


def test_refusals_name_the_operator() -> None:
    found = [one for group in tried(10**9, UNSUPPORTED).values() for one in group]
    assert {one.case.operator for one in found} >= UNSUPPORTED
    assert [(one.case.operator, one.why) for one in found if one.case.operator in UNSUPPORTED and one.result != REFUSED] == []


@pytest.mark.long
def test_all_of_onnxs_own_tests() -> None:
    found = tried(1)
    for alone, group in found.items():
        print("float32 inputs" if alone else "others, too", Counter(one.result for one in group))
    check(found)
