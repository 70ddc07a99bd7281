"""Templates fail closed: what a task needs beyond its shape must be declared, whatever its name, and knobs are those of the space."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest

from tvmmobile.graph.layers import (
    KINDS,
    Attention,
    ChannelNorm,
    Conv2d,
    Dense,
    Gating,
    GroupNorm,
    IntegerFacts,
    Layer,
    MaxPool,
    MeanPool,
    Opaque,
    Pool,
    Product,
    Recurrent,
    Resize,
    Rounding,
    Softmax,
)
from tvmmobile.graph.layers.image import ImageLayer
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.needs import SHAPE, needs_of, shape_of
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import make_parameters
from tvmmobile.schedules import INTEGER_TEMPLATES, TEMPLATES, Template
from tvmmobile.schedules.template import EPILOGUE


def _names_of(kind: type[Any]) -> Iterator[str]:
    yield from (found.name for found in dataclasses.fields(kind))
    yield from (name for name in dir(kind) if not name.startswith("_"))


_CLASSES: tuple[type[Any], ...] = (*KINDS.values(), Rounding, IntegerFacts, Task)
#: Every public name that a kind, its integer facts or a task has, and others.
NAMES = sorted({name for kind in _CLASSES for name in _names_of(kind)} | {"rotation", "mask"})
EVERY = (*TEMPLATES, *INTEGER_TEMPLATES)
_TOKENS, _PLACE = (2, 16, 8), (0, 0, 128, 8)
_POINTWISE, _WINDOW = Conv2d(14, 14, 64, 64), Conv2d(14, 14, 16, 24, (3, 3))
_DEPTHWISE = Conv2d(14, 14, 64, 64, (3, 3), (1, 1), (1, 1, 1, 1), 64)
_IMAGE = Conv2d(32, 32, 3, 8, (3, 3), in_layout="NCHW")


def _in_floats(*region: Layer) -> Task:
    return Task(region)


def _in_integers(*region: Layer, mcpu: str = "cortex-a72") -> Task:
    return Task(region, "int8", machine=machine_of(mcpu))


#: A task for every template.
TASKS = {
    "pointwise": _in_floats(_POINTWISE),
    "depthwise": _in_floats(_DEPTHWISE),
    "image_conv": _in_floats(_IMAGE),
    "dense": _in_floats(Dense(64, 40)),
    "separable": _in_floats(_DEPTHWISE, _POINTWISE),
    "strassen": _in_floats(replace(_POINTWISE, in_channels=256, out_channels=256)),
    "chain": _in_floats(_POINTWISE, _DEPTHWISE),
    "conv": _in_floats(_WINDOW),
    "winograd": _in_floats(_WINDOW),
    "pool": _in_floats(Pool(7, 7, 64)),
    "max_pool": _in_floats(MaxPool(9, 9, 16, (3, 3))),
    "mean_pool": _in_floats(MeanPool(9, 9, 16, (3, 3))),
    "resize": _in_floats(Resize(9, 9, 16, 18, 18, "linear", "half_pixel")),
    "channel_norm": _in_floats(ChannelNorm(9, 9, 16, 1e-5)),
    "group_norm": _in_floats(GroupNorm(9, 9, 16, 2, 1e-5)),
    "attention": _in_floats(Attention(1, 2, 16, 16, 8, 8, 0.3, (_TOKENS, _TOKENS, _TOKENS), _PLACE, _PLACE, _PLACE, True)),
    "batched_product": _in_floats(Product((2,), 9, 9, 16)),
    "softmax": _in_floats(Softmax((9, 9), 16)),
    "sparse": _in_floats(replace(_POINTWISE, in_layout="NCHW", out_layout="NCHW", sparse=(400, 1))),
    "sparse_clusters": _in_floats(replace(_POINTWISE, in_layout="NCHW", out_layout="NCHW", sparse=(400, 1))),
    "sparse_separable": _in_floats(replace(_DEPTHWISE, in_layout="NCHW"), replace(_POINTWISE, out_layout="NCHW", sparse=(400, 1))),
    "digits": replace(_in_floats(replace(_POINTWISE, weights="int8")), machine=machine_of("cortex-a76")),
    "plane_conv": _in_floats(replace(_DEPTHWISE, in_layout="NCHW", out_layout="NCHW")),
    "plane_mean": _in_floats(Pool(7, 7, 64, "NCHW")),
    "recurrent": _in_floats(Recurrent("gru", 3, 1, 8)),
    "pair_product": _in_integers(_POINTWISE, mcpu="cortex-a710"),
    "pair_window": _in_integers(_WINDOW, mcpu="cortex-a710"),
    "dot_product": _in_integers(_POINTWISE, mcpu="cortex-a76"),
    "long_product": _in_integers(_POINTWISE),
    "dot_depthwise": _in_integers(_DEPTHWISE, mcpu="cortex-a76"),
    "long_depthwise": _in_integers(_DEPTHWISE),
    "dot_image": _in_integers(replace(_IMAGE, reads="uint8"), mcpu="cortex-a76"),
    "long_image": _in_integers(replace(_IMAGE, reads="uint8")),
    "dot_window": _in_integers(_WINDOW, mcpu="cortex-a76"),
    "long_window": _in_integers(_WINDOW),
    "long_separable": _in_integers(_DEPTHWISE, replace(_POINTWISE, out_channels=32)),
    "integer_pool": _in_integers(Pool(7, 7, 64)),
    "integer_gate": _in_integers(Gating(7, 7, 64)),
}


@functools.cache
def extended(kind: type[Any], name: str, says_shape: bool) -> type[Any]:
    """Return a kind of layer with one more field, which is 0 by default."""
    added = (name, object, field(default=0, kw_only=True, metadata=SHAPE if says_shape else {}))
    return dataclasses.make_dataclass(f"New{kind.__name__}", [added], bases=(kind,), frozen=True)


def with_field(layer: Layer, name: str, value: object, says_shape: bool = False) -> Layer:
    """Return the same layer of an extended kind."""
    values = {known.name: getattr(layer, known.name) for known in dataclasses.fields(layer)}
    made: Layer = extended(type(layer), name, says_shape)(**values | {name: value})
    return made


def declares(template: Template, name: str) -> bool:
    """Return whether a template declares a need of that name."""
    return name in template.handles or (name in ("clamp", "then") and template.handles >= EPILOGUE)


def test_every_template_and_kind_is_tried() -> None:
    assert TASKS.keys() == {template.name for template in EVERY}
    assert {type(layer) for task in TASKS.values() for layer in task.region} == {*KINDS.values()} - {Opaque}


@pytest.mark.parametrize("template", EVERY, ids=lambda template: template.name)
def test_no_template_takes_a_layer_with_a_field_that_it_does_not_declare(template: Template) -> None:
    """Whatever the field's name, wherever in the region, and even if it says that it is shape: templates recognise kinds of layers by
    `isinstance`, so those of the extended kind would read past it.
    """
    task = TASKS[template.name]
    assert template.space(task) is not None
    for place, layer in enumerate(task.region):
        for name in NAMES:
            if name in {known.name for known in dataclasses.fields(layer)}:
                continue
            assert needs_of(with_field(layer, name, 0)) == needs_of(layer)
            for says_shape in (False, True):
                new = with_field(layer, name, 7, says_shape)
                changed = replace(task, region=(*task.region[:place], new, *task.region[place + 1 :]))
                takers = {other.name for other in EVERY if not declares(other, name) and other.space(changed) is not None}
                assert not takers, f"{type(layer).__name__}.{name}"


@pytest.mark.parametrize("template", INTEGER_TEMPLATES, ids=lambda template: template.name)
def test_no_template_takes_a_layer_with_an_integer_fact_that_it_does_not_declare(template: Template) -> None:
    task = TASKS[template.name]
    first: Any = task.region[0]
    for name, says_shape in itertools.product(NAMES, (False, True)):
        if name in ("name", *(known.name for known in dataclasses.fields(IntegerFacts))):
            continue
        for facts, accepted in ((extended(IntegerFacts, name, says_shape)(**{name: number}), not number) for number in (0, 7)):
            changed = replace(task, region=(replace(first, integers=facts), *task.region[1:]))
            assert (template.space(changed) is not None) == (accepted or name in template.handles), name


def test_a_task_says_which_of_its_fields_are_shape() -> None:
    @dataclass(frozen=True)
    class Placed(Task):
        depth: int = 0
        core: str = field(default="", compare=False)

    assert shape_of(Placed) == shape_of(Task) == {"region", "dtype", "machine"}
    plain = Placed((_POINTWISE,))
    assert not plain.needs and replace(plain, depth=1).needs == {"depth"} and replace(plain, core="big").needs == {"core=big"}


def test_a_kind_of_its_own_says_which_fields_are_shape() -> None:
    @dataclass(frozen=True)
    class Turned(ImageLayer):
        turns: int = field(metadata=SHAPE)
        depth: int = 0
        kind: ClassVar[str] = "turned"

        @property
        def name(self) -> str:
            return "turned"

    assert shape_of(Turned) == {"height", "width", "channels", "turns"}
    assert not needs_of(Turned(1, 2, 3, 4)) and needs_of(Turned(1, 2, 3, 4, 5)) == {"depth"}


def test_a_subclass_cannot_hide_a_need_behind_another_default() -> None:
    @dataclass(frozen=True)
    class Added(Conv2d):
        residual: bool = True

    @dataclass(frozen=True)
    class Halved(Conv2d):
        stride: tuple[int, int] = field(default=(2, 2), metadata=SHAPE)

    assert needs_of(Added(8, 8, 4, 4)) == {"residual"} and not needs_of(Added(8, 8, 4, 4, residual=False))
    assert needs_of(Halved(8, 8, 4, 4)) == {"stride"} and not needs_of(Conv2d(8, 8, 4, 4, stride=(2, 2)))


def test_no_kernel_writes_bytes_without_sign() -> None:
    """No kernel in floats reads them either."""
    for layer in (replace(_WINDOW, writes="uint8"), replace(_WINDOW, reads="uint8"), Pool(7, 7, 64, writes="uint8")):
        for task in (_in_floats(layer), _in_integers(layer)):
            assert [template.name for template in EVERY if template.space(task) is not None] == []
    assert _in_floats(replace(_WINDOW, writes="uint8")).rounds


@dataclass(frozen=True)
class NewTask(Task):
    """A task with something that no template knows."""

    core: str = ""


@pytest.mark.parametrize("template", EVERY, ids=lambda template: template.name)
def test_a_new_need_of_a_task_is_refused(template: Template) -> None:
    task = TASKS[template.name]
    given = task.region, task.dtype, task.threads, task.machine
    assert template.space(NewTask(*given)) is not None
    assert template.space(NewTask(*given, core="cortex-a510")) is None
    assert template.space(Task(task.region, dtype="float16")) is None


@pytest.mark.parametrize("template", EVERY, ids=lambda template: template.name)
def test_a_template_that_declares_nothing_takes_plain_tasks_alone(template: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    """`handles` decides, and nothing that a template's own checks do can overrule it."""
    task = replace(TASKS[template.name], threads=4)
    assert template.space(task) is not None
    monkeypatch.setattr(template, "handles", template.handles - {"threads"})
    assert template.space(task) is None


def test_needs_are_named_after_fields_and_choices() -> None:
    layer = Conv2d(8, 8, 16, 16, clamp="hswish", in_layout="NCHW8c", out_layout="NCHW16c", residual=True, scaled=True)
    assert Task((layer,)).needs == {"clamp=hswish", "in_layout=blocked", "out_layout=blocked", "residual", "scaled"}
    assert Task((replace(layer, clamp=(0.0, 6.0), in_layout="NCHW", out_layout="NHWC", residual=False, scaled=False),)).needs == {
        "clamp",
        "in_layout=NCHW",
    }
    assert Task((Conv2d(8, 8, 16, 16), Dense(4, 4)), "float8", 4).needs == {"layers", "dtype=float8", "threads"}
    assert Task((Conv2d(8, 8, 16, 16),), "float16").needs == {"core with half"}
    assert Task((Conv2d(8, 8, 6, 6, sources=(4, 4), pieces=((0, 0, 4), (1, 2, 2))),)).needs == {"sources", "pieces"}
    assert not Task((Conv2d(8, 8, 16, 16, (3, 3), (2, 2), (1, 1, 1, 1), 2),)).needs


def test_a_field_without_a_default_is_always_a_need() -> None:
    assert Task((Opaque("mean", "0" * 12, (), (1,)),)).needs >= {"operator=mean", "input_shapes", "result_shape"}


@pytest.mark.parametrize("template", EVERY, ids=lambda template: template.name)
@pytest.mark.parametrize("verb", ["emit", "pack"])
def test_knobs_are_those_of_the_space(template: Template, verb: str) -> None:
    task = TASKS[template.name]
    space = template.space(task)
    assert space is not None
    knobs = space.default.values
    first = next(iter(knobs))
    rest = (make_parameters(task),) if verb == "pack" else ()
    call = getattr(template, verb)
    assert call(task, knobs, *rest) is not None
    with pytest.raises(ValueError, match=f"^{template.name}@{template.version}: missing knob {first}$"):
        call(task, {name: value for name, value in knobs.items() if name != first}, *rest)
    with pytest.raises(ValueError, match=f"^{template.name}@{template.version}: unknown knob zeal$"):
        call(task, knobs | {"zeal": 1}, *rest)
    with pytest.raises(ValueError, match=f"^{template.name} does not take "):
        call(Task(task.region, dtype="float16"), knobs, *rest)
