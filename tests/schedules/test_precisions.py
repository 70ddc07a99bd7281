"""Another precision than float32 through every template, with nothing added but its one value: `float64.FLOAT64`."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from assembly import assembly_of, hottest_loop
from float64 import FLOAT64
from host_kernels import check_schedule
from template_regions import PADDED, REGIONS, RELU6

from tvmmobile.graph.curves import SCALED
from tvmmobile.graph.integers import HIGHEST, LOWEST
from tvmmobile.graph.layers import NO_CLAMP, Conv2d, Dense, Layer, Pool, SumLayer
from tvmmobile.graph.machine import BASELINE, machine_of
from tvmmobile.graph.precision import FLOAT16, FLOAT32, INT8, Precision, register
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters
from tvmmobile.kernels.serial import task_from_json, task_to_json
from tvmmobile.schedules import TEMPLATES, Template, templates_for

#: Those for all precisions; the exponential functions of attention, softmax and recurrent layers have the digits of float32, which
#: products of activations keep as well, and `digits` is for float32 with weights in int8.
EVERY = [template for template in TEMPLATES if template.name not in ("attention", "batched_product", "digits", "recurrent", "softmax")]


@pytest.mark.parametrize(("precision", "error"), [(FLOAT64, 1e-13), (FLOAT16, 1.5e-2)], ids=lambda value: getattr(value, "name", ""))
@pytest.mark.parametrize("template", EVERY, ids=lambda template: template.name)
def test_every_template_computes_in_it(tmp_path: Path, template: Template, precision: Precision, error: float) -> None:
    """To the last digits of a double, and in half precision to what sums of a hundred terms lose there, over the whole space of knobs."""
    for number, region in enumerate(REGIONS[template.name]):
        task = Task(region, precision.name, 1 + number % 2, machine_of("cortex-a76"))
        space = template.space(task)
        if precision is FLOAT16 and (template.name == "strassen" or (template.name == "chain" and number == 0)):
            assert space is None  # its sums lose too many digits; and a chain's channels fill vectors, of eight
            continue
        assert space is not None
        for choice in (0, 1009, -1):
            check_schedule(task, space, choice, error, tmp_path)


@pytest.mark.parametrize(("inside", "outside"), [(FLOAT16, FLOAT32), (FLOAT32, FLOAT16), (FLOAT64, FLOAT32)], ids=lambda one: one.name)
@pytest.mark.parametrize("template", EVERY, ids=lambda template: template.name)
def test_every_template_converts_what_it_reads_and_writes(
    tmp_path: Path, template: Template, inside: Precision, outside: Precision
) -> None:
    """An input and output in another precision, with the error that a trial allows; all but Strassen's algorithm, which keeps partial sums
    in the output.
    """
    region = REGIONS[template.name][template.name == "chain"]
    stored = (replace(region[0], reads=outside.name), *region[1:])
    task = Task((*stored[:-1], replace(stored[-1], writes=outside.name)), inside.name, machine=machine_of("cortex-a76"))
    space = template.space(task)
    assert (space is None) == (template.name == "strassen")
    if space is not None:
        check_schedule(task, space, 1009, task.tolerance, tmp_path)
    if template.name == "chain":  # conversions would be in its loops
        image, following = REGIONS["chain"][2]
        tasks = [replace(task, region=(first, following)) for first in (image, replace(image, reads=outside.name))]
        assert [template.space(each) is None for each in tasks] == [False, True]


@pytest.mark.parametrize("template", [one for one in EVERY if isinstance(REGIONS[one.name][0][-1], SumLayer)], ids=lambda one: one.name)
def test_every_template_of_sums_stores_the_nearest_integers(tmp_path: Path, template: Template) -> None:
    """Stored integers are no farther from the results than half a step plus their error; what lies beyond int8 becomes its bounds. The
    weights are in steps of these, or results are scaled.
    """
    for number, region in enumerate(REGIONS[template.name]):
        last = replace(region[-1], writes=INT8.name)
        last = replace(last, then=(SCALED,)) if number else replace(last, clamp=NO_CLAMP)
        task = Task((*region[:-1], last), FLOAT32.name, 1 + number % 2, machine_of("cortex-a76"))
        space = template.space(task)
        if space is None:
            assert template.name in ("strassen", "chain")
            continue
        assert task.rounds and abs(expected_output(task, make_inputs(task), make_parameters(task))).max() in (-LOWEST, HIGHEST)
        for choice in (0, 1009):
            check_schedule(task, space, choice, task.tolerance, tmp_path)


@pytest.mark.parametrize("layer", [Conv2d(5, 4, 72, 16, in_layout="NCHW24c"), Conv2d(4, 4, 144, 24, in_layout="NCHW48c")])
def test_chains_of_sums_end_with_blocks_of_channels(tmp_path: Path, layer: Conv2d) -> None:
    """Sixty-four terms are no whole blocks of 24 or 48."""
    task = Task((layer,), FLOAT16.name, machine=machine_of("cortex-a76"))
    space = templates_for(task)[0].space(task)
    assert space is not None
    check_schedule(task, space, 0, 1e-2, tmp_path)


def test_the_storage_of_input_and_output_is_part_of_a_task() -> None:
    """It is in a task's name, its least traffic and its log lines; partial sums stay in an output that has all their digits."""
    layer = Conv2d(14, 14, 256, 256, clamp=RELU6)
    plain, ends = Task((layer,), "float16"), Task((replace(layer, reads="float32", writes="float32"),), "float16")
    assert ends.name == "pw_14x14_256x256_from_float32_to_float32_relu6_float16_t1" and task_from_json(task_to_json(ends)) == ends
    assert ends.least_bytes - plain.least_bytes == 2 * 2 * 14 * 14 * 256
    narrow = Task((replace(layer, writes="float16"),), "float32")
    spaces = [templates_for(task)[0].space(task) for task in (Task((layer,)), narrow)]
    assert [len(space.options["k_block"]) > 1 for space in spaces if space] == [True, False]
    assert [template.name for template in templates_for(narrow)] == ["pointwise"] and len(templates_for(Task((layer,)))) == 2


@pytest.mark.parametrize("template", EVERY, ids=lambda template: template.name)
def test_tiles_are_as_many_vectors(template: Template) -> None:
    """A knob counts channels by whole vectors of the precision, and the tile that a search starts with has as many as in float32, unless an
    estimate chooses it."""
    for region in REGIONS[template.name]:
        double, single = (template.space(Task(region, dtype)) for dtype in (FLOAT64.name, FLOAT32.name))
        assert double is not None
        for name in ("columns", "image_columns"):
            if name in double.options and template.name not in ("depthwise", "max_pool", "mean_pool"):
                assert all(value % 2 == 0 for value in double.options[name])
                assert single is None or template.name == "winograd" or double.usual[name] * 2 == single.usual[name]


def test_the_product_is_fmla_by_lane_without_spills() -> None:
    task = Task((Conv2d(14, 14, 256, 256, clamp=RELU6),), FLOAT64.name)
    (template, *_) = templates_for(task)
    space = template.space(task)
    assert space is not None and template.name == "pointwise"
    loop = hottest_loop(assembly_of(task, space.default.values))
    products = [text for text in loop.instructions if text.startswith("fmla")]
    assert len(products) == space.default.values["rows"] * space.default.values["columns"]  # two steps of K, two lanes
    assert all(".2d" in text and ".d[" in text for text in products) and loop.stack_accesses == []


#: With the knobs that a search has tried first, or found to be fast.
HALF_LOOPS: dict[str, tuple[tuple[Layer, ...], dict[str, int]]] = {
    "pointwise": ((Conv2d(14, 14, 256, 64, clamp=RELU6),), {"rows": 7, "columns": 16}),
    "depthwise": ((Conv2d(14, 14, 64, 64, (3, 3), (1, 1), PADDED, 64, RELU6),), {}),
    "image_conv": ((Conv2d(32, 32, 3, 32, (3, 3), (2, 2), PADDED, 1, RELU6, "NCHW", reads="float32"),), {}),
    "dense": ((Dense(128, 160, writes="float32"),), {}),
    "conv": ((Conv2d(14, 14, 64, 64, (3, 3), (1, 1), PADDED, clamp=RELU6),), {}),
    "separable": ((Conv2d(14, 14, 32, 32, (3, 3), (1, 1), PADDED, 32, RELU6), Conv2d(14, 14, 32, 64, clamp=RELU6)), {}),
    "chain": ((Conv2d(28, 28, 24, 96, clamp=RELU6), Conv2d(28, 28, 96, 96, (3, 3), (1, 1), PADDED, 96, RELU6)), {"rows": 7, "columns": 16}),
}


@pytest.mark.parametrize("name", HALF_LOOPS)
def test_half_precision_is_fmla_of_eight_lanes_without_conversions(name: str) -> None:
    """By lane where it is a product; sums in chains of sixty-four terms that stay in registers, input and output converted elsewhere."""
    region, knobs = HALF_LOOPS[name]
    task = Task(region, FLOAT16.name, machine=machine_of("cortex-a76"))
    template = next(template for template in templates_for(task) if template.name == name)
    space = template.space(task)
    assert space is not None
    text = assembly_of(task, {**space.default.values, **knobs}, mcpu="cortex-a76", template=template)
    loop = hottest_loop(text)
    products = [line for line in loop.instructions if line.startswith("fmla")]
    assert products and all(".8h" in line and (".h[" in line or name == "depthwise") for line in products)
    assert loop.stack_accesses == [] and not any("fcvt" in line for line in loop.instructions)
    assert ("fcvt" in text) == any(getattr(layer, end) for layer in region for end in ("reads", "writes"))


def test_a_chain_of_sums_begins_with_its_first_products() -> None:
    """Not with zeros to which they are added: 14 vectors of them for every 64 steps."""
    task = Task((Conv2d(14, 14, 256, 64, clamp=RELU6),), FLOAT16.name, machine=machine_of("cortex-a76"))
    template = templates_for(task)[0]
    space = template.space(task)
    assert space is not None and template.name == "pointwise"
    text = assembly_of(task, {**space.default.values, "rows": 7, "columns": 16}, mcpu="cortex-a76", template=template)
    count = Counter(line.split()[0] for line in text.splitlines() if line.strip())
    assert count["fmul"] == count["fadd"] == 14 and count["movi"] < 14


def test_inputs_and_weights_are_stored_in_it() -> None:
    task = Task(REGIONS["pointwise"][0], FLOAT64.name)
    assert (
        {array.dtype.name for array in make_inputs(task)}
        == {parameter.weight.dtype.name for parameter in make_parameters(task)}
        == {"float64"}
    )
    assert task.least_bytes == 2 * replace(task, dtype=FLOAT32.name).least_bytes and task.lanes == 2


def test_what_a_core_lacks_is_refused_by_every_template() -> None:
    """Templates have to declare the precision's needs as well."""
    half = Precision("float16", "float16", "float32", "float32", 1e-2, 1e-2, 2.0, "int16", requires="half")
    registered = [replace(half, name="half_test"), replace(FLOAT64, name="needy_test", needs=frozenset({"scales"}))]
    for precision in registered:
        register(precision)
    layer = REGIONS["pool"][0]
    assert not templates_for(Task(layer, "half_test", machine=BASELINE)) and not templates_for(Task(layer, "needy_test"))
    assert Task(layer, "half_test").needs == {"core with half"} and Task(layer, "needy_test").needs == {"scales"}
    assert not Task(layer, "half_test", machine=machine_of("cortex-a76")).needs


@pytest.mark.parametrize(
    "layer",
    [
        Conv2d(14, 14, 64, 64),
        Conv2d(14, 14, 64, 64, (3, 3)),
        Conv2d(14, 14, 64, 64, (3, 3), (1, 1), PADDED, 64),
        Conv2d(28, 28, 3, 32, (3, 3), (2, 2), PADDED, in_layout="NCHW"),
        Conv2d(14, 14, 256, 256, clamp=RELU6),
        Dense(64, 96),
        Pool(7, 7, 96),
    ],
)
def test_tiles_fill_the_registers_of_the_machine(layer: Layer) -> None:
    """Fewer registers or accumulators leave other tiles; tasks are told apart by what they compute alone."""
    usual, small = Task((layer,)), Task((layer,), machine=replace(BASELINE, registers=16, accumulators=6))
    assert usual == small
    spaces = [[template.space(task) for template in templates_for(task)] for task in (usual, small)]
    for one, other in zip(*spaces, strict=True):
        assert one is not None and other is not None and one.options == other.options and set(one) != set(other)


@pytest.mark.parametrize("name", ["pointwise", "image_conv", "chain"])
def test_a_task_from_another_process_gives_the_same_kernel(name: str) -> None:
    """Workers read tasks whose precisions are objects of their own; a core that does not reorder has kernels that depend on them."""
    template = next(template for template in TEMPLATES if template.name == name)
    task = Task(REGIONS[name][-1 if name == "chain" else 0], FLOAT32.name, machine=machine_of("cortex-a53"))
    space = template.space(task)
    assert space is not None and task.storage == (FLOAT32, FLOAT32)
    other = pickle.loads(pickle.dumps(task))
    assert template._space(other) is not None
    knobs = dict(space.default.knobs)
    assert template.emit(other, knobs).script() == template.emit(task, knobs).script()
