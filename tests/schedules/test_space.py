"""Spaces: whose task is whose, what neighbours are, and schedules as values."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmmobile.graph.layers import Conv2d, Dense, Layer, Opaque, Pool
from tvmmobile.graph.machine import BASELINE
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import schedule_from_json, schedule_to_json, task_from_json, task_to_json
from tvmmobile.schedules import TEMPLATES, KnobSchedule, Space, template_for, template_named
from tvmmobile.schedules.floats.winograd import Winograd

POINTWISE = Conv2d(14, 14, 512, 512, clamp=(0.0, 6.0))
DEPTHWISE = Conv2d(14, 14, 512, 512, (3, 3), (1, 1), (1, 1, 1, 1), 512, (0.0, 6.0))
IMAGE = Conv2d(224, 224, 3, 32, (3, 3), (2, 2), (1, 1, 1, 1), 1, (0.0, 6.0), "NCHW")
CLASSIFIER = Dense(1024, 1000)
POOL = Pool(7, 7, 1024)
OPAQUE = Opaque("mean", "0123456789ab", ((1, 7, 7, 1024),), (1, 1, 1, 1024))
CONV = Conv2d(28, 28, 128, 256, (3, 3), (2, 2), (1, 1, 1, 1), 1, (0.0, 6.0))
LAYERS = {"pointwise": POINTWISE, "depthwise": DEPTHWISE, "image_conv": IMAGE, "dense": CLASSIFIER, "conv": CONV, "pool": POOL}


def space_of(layer: Layer, threads: int = 1) -> Space:
    task = Task((layer,), threads=threads)
    template = template_for(task)
    assert template is not None
    space = template.space(task)
    assert space is not None
    return space


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_has_a_template_of_its_own(name: str) -> None:
    """It is asked first; of the others, only Strassen's algorithm is another way to compute one of these."""
    names = [template.name for template in TEMPLATES if template.space(Task((LAYERS[name],))) is not None]
    assert names == ([name, "strassen"] if name == "pointwise" else [name])


@pytest.mark.parametrize(
    "layer",
    [
        replace(POINTWISE, padding=(0, 0, 1, 1)),
        replace(POINTWISE, groups=2),
        replace(POINTWISE, kernel=(3, 3), padding=(1, 1, 1, 1)),
        replace(DEPTHWISE, groups=256),
        replace(DEPTHWISE, out_channels=1024),
        replace(IMAGE, in_layout="NHWC"),
    ],
)
def test_other_convolutions_are_taken_as_such(layer: Layer) -> None:
    names = [template.name for template in TEMPLATES if template.space(Task((layer,))) is not None]
    assert names == (["conv", "winograd"] if (layer.kernel, layer.stride, layer.groups) == ((3, 3), (1, 1), 1) else ["conv"])


def test_a_mean_of_planes_has_a_template_of_its_own() -> None:
    assert [template.name for template in TEMPLATES if template.space(Task((replace(POOL, in_layout="NCHW"),))) is not None] == [
        "plane_mean"
    ]


@pytest.mark.parametrize(
    "layer",
    [
        OPAQUE,
        replace(POINTWISE, in_layout="NCHW"),
        replace(DEPTHWISE, in_layout="NCHW"),
        replace(DEPTHWISE, scaled=True),
        replace(IMAGE, scaled=True),
        replace(CONV, scaled=True),
        replace(IMAGE, in_channels=5),
        replace(IMAGE, groups=3, out_channels=33),
        replace(CONV, groups=2, out_layout="NCHW32c"),
    ],
)
def test_other_layers_are_left_to_the_fallback(layer: Layer) -> None:
    assert [template.name for template in TEMPLATES if template.space(Task((layer,))) is not None] == []
    assert template_for(Task((layer,))) is None


def test_a_gate_is_multiplied_by_the_direct_product_alone() -> None:
    scaled = replace(POINTWISE, scaled=True)
    assert [template.name for template in TEMPLATES if template.space(Task((scaled,))) is not None] == ["pointwise"]
    for region in ((DEPTHWISE, scaled), (scaled, DEPTHWISE), (IMAGE, DEPTHWISE, scaled)):
        assert template_for(Task(region)) is None


@pytest.mark.parametrize("layer", LAYERS.values())
def test_templates_take_one_float32_layer(layer: Layer) -> None:
    assert template_for(Task((layer,), dtype="float16")) is None
    assert template_for(Task((layer, layer))) is None


def test_templates_are_found_by_name_and_version() -> None:
    for template in TEMPLATES:
        assert template_named(template.name, template.version) is template
        assert template_named(template.name, template.version + 1) is None
    assert len({template.name for template in TEMPLATES}) == len(TEMPLATES)


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(
    st.sampled_from(sorted(LAYERS)), st.integers(1, 40), st.integers(1, 40), st.integers(2, 70), st.integers(1, 70), st.sampled_from((1, 4))
)
def test_spaces_of_all_shapes(name: str, height: int, width: int, inputs: int, outputs: int, threads: int) -> None:
    """The pruned space is part of the whole, never empty, its tiles fit the registers; features are finite and as many for every shape."""
    layer: Layer = Dense(inputs, outputs) if name == "dense" else replace(LAYERS[name], height=height, width=width)
    if isinstance(layer, Conv2d) and name == "pointwise":
        layer = replace(layer, in_channels=inputs, out_channels=outputs)
    elif isinstance(layer, Conv2d) and name == "depthwise":
        layer = replace(layer, in_channels=inputs, out_channels=inputs, groups=inputs)
    task = Task((layer,), threads=threads)
    template = template_for(task)
    assert template is not None and template.name == name
    space = template.space(task)
    assert space is not None
    whole = set(space.unpruned())
    members = list(space)
    assert members and len(members) == len(space) == len(set(members))
    assert set(members) <= whole
    assert all(schedule in space for schedule in whole)
    assert space.default in set(members)
    rng = random.Random(0)
    for schedule in rng.sample(members, min(len(members), 5)):
        features = template.features(task, schedule.values)
        assert len(features) == len(template.features(Task((LAYERS[name],)), schedule.values))
        assert all(feature == feature and abs(feature) < 1e6 for feature in features)
        assert accumulators(schedule) < BASELINE.registers
        mutant = space.mutate(schedule, rng)
        assert mutant in whole
        assert sum(one != other for one, other in zip(schedule.knobs, mutant.knobs, strict=True)) <= 1
        assert mutant in members
    several = 3 if isinstance(template, Winograd) else 2
    assert ("axis" not in space.options) or (len(space.options["axis"]) == (several if threads > 1 else 1))


def accumulators(schedule: KnobSchedule) -> int:
    """Vector registers the tile's sums take."""
    knobs = schedule.values
    if schedule.template == "depthwise":
        return knobs["rows"] * knobs["columns"]
    if schedule.template == "pool":
        return knobs["vectors"] * knobs["pixels"]
    return knobs.get("rows", knobs.get("pixels", 1)) * knobs["columns"] // 4


@pytest.mark.parametrize("name", LAYERS)
def test_nearest_stays_inside_and_keeps_members(name: str) -> None:
    home = space_of(LAYERS[name])
    other = LAYERS[name]
    small = Dense(24, 10) if isinstance(other, Dense) else replace(other, height=4, width=3)
    away = space_of(small)
    for schedule in random.Random(1).sample(list(home), 8):
        assert home.nearest(schedule) == schedule
        moved = away.nearest(schedule)
        assert moved in list(away)
    four = space_of(other, threads=4)
    assert all(four.nearest(schedule) in list(four) for schedule in list(home)[:5])


@pytest.mark.parametrize("name", LAYERS)
def test_the_usual_knobs_are_members_where_the_shape_allows_them(name: str) -> None:
    space = space_of(LAYERS[name])
    if name == "pointwise":  # its members are those that cost least by counting
        assert space.default in set(space)
    else:
        assert space.default.values == dict(space.usual)


def test_nearest_takes_the_fewest_steps() -> None:
    space = Space("t", 1, {"rows": (1, 2, 4, 8), "order": (0, 1)}, lambda knobs: knobs["rows"] > 1, {"rows": 8, "order": 1})
    assert space.nearest(KnobSchedule("t", 1, (("rows", 5), ("order", 1)))) == KnobSchedule("t", 1, (("rows", 4), ("order", 1)))
    assert space.nearest(KnobSchedule("t", 1, (("rows", 1), ("order", 0)))) == KnobSchedule("t", 1, (("rows", 2), ("order", 0)))
    # A knob that the other version of the task did not have.
    assert space.nearest(KnobSchedule("t", 1, (("order", 1),))) is not None
    assert space.nearest(KnobSchedule("t", 2, (("rows", 4), ("order", 1)))) is None
    assert space.nearest(KnobSchedule("u", 1, (("rows", 4), ("order", 1)))) is None


def test_a_space_in_which_nothing_fits_is_whole() -> None:
    space = Space("t", 1, {"rows": (1, 2)}, lambda knobs: False, {"rows": 2})
    assert len(space) == 2 == len(list(space))
    assert space.default.values == {"rows": 2}


def test_membership_is_exact() -> None:
    space = space_of(POINTWISE)
    member = next(iter(space))
    assert member in space
    assert replace(member, version=member.version + 1) not in space
    assert replace(member, knobs=member.knobs[1:]) not in space
    assert replace(member, knobs=(("rows", 99), *member.knobs[1:])) not in space
    assert "pointwise" not in space


@pytest.mark.parametrize("name", LAYERS)
def test_schedules_and_tasks_survive_json(name: str) -> None:
    import json

    task = Task((LAYERS[name],), threads=4)
    assert task_from_json(json.loads(json.dumps(task_to_json(task)))) == task
    for schedule in list(space_of(LAYERS[name]))[:5]:
        assert schedule_from_json(json.loads(json.dumps(schedule_to_json(schedule)))) == schedule


def test_opaque_tasks_and_chains_survive_json() -> None:
    task = Task((DEPTHWISE, replace(POINTWISE, scaled=True, residual=True), replace(POOL, in_layout="NCHW32c"), OPAQUE))
    assert task_from_json(task_to_json(task)) == task


def test_what_a_layer_does_not_have_is_not_in_its_json() -> None:
    """Records that were made before an attribute was there are still read."""
    (entry,) = task_to_json(Task((POINTWISE,)))["region"]
    assert sorted(entry) == ["clamp", "height", "in_channels", "kind", "out_channels", "width"]


def test_what_a_kernel_reads_besides_its_input() -> None:
    scaled = replace(POINTWISE, scaled=True, residual=True)
    assert list(Task((DEPTHWISE, scaled)).side_shapes.items()) == [("gate1", (1, 1, 1, 512)), ("residual1", (1, 14, 14, 512))]


def test_a_schedule_prints_as_what_it_is() -> None:
    assert str(KnobSchedule("dense", 1, (("columns", 40), ("unroll", 4)))) == "dense@1(columns=40, unroll=4)"


@pytest.mark.parametrize("layer", LAYERS.values())
def test_asking_for_a_space_does_not_enumerate_it(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of thousands of records asks for as many spaces."""
    monkeypatch.setattr(Space, "__len__", lambda space: pytest.fail("the space was counted"))
    assert [template for template in TEMPLATES if template.space(Task((layer,))) is not None]
