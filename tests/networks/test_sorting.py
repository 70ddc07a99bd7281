"""Sorting as a kernel agrees with a stable sort, for rows of any length, type and axis, of many equal elements; running sums are exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_campaign import built, run

from tvmmobile.networks.sorting import without_sorting

#: Shape, axis, type, elements that are wanted, and whether the largest come first.
CASES: list[tuple[tuple[int, ...], int, str, int, bool]] = [
    ((1, 6000), 1, "float32", 300, True),
    ((2, 5, 7), 1, "float32", 3, False),
    ((4, 9), 0, "int64", 4, True),
    ((3, 1), -1, "int32", 1, True),
]


@pytest.fixture(scope="module")
def machine() -> Any:
    """A virtual machine with a function for each case: the first elements and where they are, and all in order."""
    import tvm
    from tvm import relax

    modules = []
    for shape, axis, dtype, count, largest in CASES:
        builder, data = relax.BlockBuilder(), relax.Var("data", relax.TensorType(shape, dtype))
        with builder.function("main", [data]):
            with builder.dataflow():
                top = builder.emit(relax.op.topk(data, count, axis, "both", largest, "int64"))
                outputs = [builder.emit_output(relax.TupleGetItem(top, place)) for place in (0, 1)]
                outputs.append(builder.emit_output(relax.op.sort(data, axis, not largest)))
            builder.emit_func_output(relax.Tuple(outputs))
        module = relax.transform.LegalizeOps()(without_sorting(builder.get()))
        assert not any("sort" in name.name_hint for name in module.get_global_vars())
        modules.append(tvm.relax.transform.CanonicalizeBindings()(module))
    return built(modules)


@pytest.mark.parametrize("place", range(len(CASES)), ids=str)
def test_first_elements(machine: Any, place: int) -> None:
    shape, axis, dtype, count, largest = CASES[place]
    for seed in range(3):
        data = np.random.default_rng(seed).integers(-40, 40, shape).astype(dtype)
        values, places, whole = run(machine, f"main_{place}", [data])
        order = np.argsort(-data if largest else data, axis, kind="stable").take(range(count), axis)
        assert np.array_equal(places, order)
        assert np.array_equal(values, np.take_along_axis(data, order, axis))
        assert np.array_equal(whole, np.sort(data, axis) if largest else np.flip(np.sort(data, axis), axis))


#: Of running sums: type of the data and of the sums, axis, and whether an element counts in its own sum.
SUMS = [("float32", "float32", 1, False), ("float32", "float32", 0, True), ("int64", "int64", 1, False), ("bool", "int64", -1, False)]


@pytest.mark.parametrize(("given", "wanted", "axis", "exclusive"), SUMS)
def test_running_sums(given: str, wanted: str, axis: int, exclusive: bool) -> None:
    """Sums have many steps or large integers, or reach an infinity, which no earlier sum includes."""
    from tvm import relax

    random = np.random.default_rng(1)
    data = random.normal(2.0**40 if given == "int64" else 0.4, 1.0, (2, 16_000)).astype(given)
    if given == "float32":
        data[0, 9000], data[1, 40], data[1, 70] = -np.inf, np.inf, -np.inf
    builder, argument = relax.BlockBuilder(), relax.Var("data", relax.TensorType(data.shape, given))
    with builder.function("main", [argument]):
        with builder.dataflow():
            output = builder.emit_output(relax.op.cumsum(argument, axis, wanted, exclusive))
        builder.emit_func_output(output)
    (found,) = run(built([relax.transform.LegalizeOps()(without_sorting(builder.get()))]), "main_0", [data])
    wide = data.astype("float64" if given == "float32" else "int64")
    with np.errstate(invalid="ignore"):
        sums = np.cumsum(wide, axis)
    expected = np.concatenate([np.zeros((1, 16_000)), sums[:1]]) if exclusive else sums
    assert found.dtype == wanted
    np.testing.assert_allclose(found, expected, rtol=1e-6 if given == "float32" else 0)
