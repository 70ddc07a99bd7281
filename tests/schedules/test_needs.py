"""Templates fail closed: what a task needs beyond its shape has to be declared, and knobs have to be those of the space."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from tvmmobile.graph.layers import (
    Attention,
    ChannelNorm,
    Conv2d,
    Dense,
    GroupNorm,
    Layer,
    MaxPool,
    MeanPool,
    Opaque,
    Pool,
    Product,
    Resize,
    Softmax,
)
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import make_parameters
from tvmmobile.schedules import TEMPLATES, Template

RELU6 = (0.0, 6.0)


@dataclass(frozen=True)
class NewConv2d(Conv2d):
    """A convolution with something that no template knows."""

    rotation: int = 0


@dataclass(frozen=True)
class NewDense(Dense):
    """See `NewConv2d`."""

    mask: tuple[int, ...] = ()


@dataclass(frozen=True)
class NewPool(Pool):
    """See `NewConv2d`."""

    squared: bool = False


@dataclass(frozen=True)
class NewMaxPool(MaxPool):
    """See `NewConv2d`."""

    order: str = "first"


@dataclass(frozen=True)
class NewMeanPool(MeanPool):
    """See `NewConv2d`."""

    order: str = "first"


@dataclass(frozen=True)
class NewResize(Resize):
    """See `NewConv2d`."""

    antialias: bool = False


@dataclass(frozen=True)
class NewNorm(ChannelNorm):
    """See `NewConv2d`."""

    robust: bool = False


@dataclass(frozen=True)
class NewGroupNorm(GroupNorm):
    """See `NewConv2d`."""

    centred: bool = True


@dataclass(frozen=True)
class NewAttention(Attention):
    """See `NewConv2d`."""

    masked: bool = False


@dataclass(frozen=True)
class NewProduct(Product):
    """See `NewConv2d`."""

    masked: bool = False


@dataclass(frozen=True)
class NewSoftmax(Softmax):
    """See `NewConv2d`."""

    signed: bool = False


@dataclass(frozen=True)
class NewTask(Task):
    """See `NewConv2d`."""

    core: str = ""


POINTWISE = NewConv2d(14, 14, 64, 64, clamp=RELU6)
DEPTHWISE = NewConv2d(14, 14, 64, 64, (3, 3), (1, 1), (1, 1, 1, 1), 64, RELU6)
_TENSOR = (2, 16, 8)
ATTENTION = NewAttention(1, 2, 16, 16, 8, 8, 0.3, (_TENSOR, _TENSOR, _TENSOR), (0, 0, 128, 8), (0, 0, 128, 8), (0, 0, 128, 8), True)
#: One task of every template's, each with the need that is new in its last layer.
TASKS: dict[str, tuple[tuple[Layer, ...], dict[str, object], str]] = {
    "pointwise": ((POINTWISE,), {"rotation": 2}, "rotation"),
    "depthwise": ((DEPTHWISE,), {"rotation": 2}, "rotation"),
    "image_conv": ((NewConv2d(32, 32, 3, 8, (3, 3), in_layout="NCHW"),), {"rotation": 2}, "rotation"),
    "dense": ((NewDense(64, 40),), {"mask": (1,)}, "mask"),
    "separable": ((DEPTHWISE, POINTWISE), {"rotation": 2}, "rotation"),
    "strassen": ((replace(POINTWISE, in_channels=256, out_channels=256),), {"rotation": 2}, "rotation"),
    "chain": ((POINTWISE, DEPTHWISE), {"rotation": 2}, "rotation"),
    "conv": ((NewConv2d(14, 14, 16, 24, (3, 3)),), {"rotation": 2}, "rotation"),
    "winograd": ((NewConv2d(14, 14, 16, 24, (3, 3)),), {"rotation": 2}, "rotation"),
    "pool": ((NewPool(7, 7, 64),), {"squared": True}, "squared"),
    "max_pool": ((NewMaxPool(9, 9, 16, (3, 3)),), {"order": "last"}, "order=last"),
    "mean_pool": ((NewMeanPool(9, 9, 16, (3, 3)),), {"order": "last"}, "order=last"),
    "resize": ((NewResize(9, 9, 16, 18, 18, "linear", "half_pixel"),), {"antialias": True}, "antialias"),
    "channel_norm": ((NewNorm(9, 9, 16, 1e-5),), {"robust": True}, "robust"),
    "group_norm": ((NewGroupNorm(9, 9, 16, 2, 1e-5),), {"centred": False}, "centred"),
    "attention": ((ATTENTION,), {"masked": True}, "masked"),
    "softmax": ((NewSoftmax((9, 9), 16),), {"signed": True}, "signed"),
    "batched_product": ((NewProduct((2,), 9, 9, 16),), {"masked": True}, "masked"),
}


def test_every_template_is_tried() -> None:
    assert sorted(TASKS) == sorted(template.name for template in TEMPLATES)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_a_new_need_of_a_layer_is_refused(template: Template) -> None:
    """The new field costs nothing while it has its default, and every template refuses it otherwise, wherever in the region it is."""
    region, new, need = TASKS[template.name]
    assert template.space(Task(region)) is not None
    for place, layer in enumerate(region):
        changed = replace(layer, **new)
        task = Task((*region[:place], changed, *region[place + 1 :]))
        assert need in task.needs
        assert [other.name for other in TEMPLATES if other.space(task) is not None] == []


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_a_new_need_of_a_task_is_refused(template: Template) -> None:
    region = TASKS[template.name][0]
    assert template.space(NewTask(region)) is not None
    assert template.space(NewTask(region, core="cortex-a510")) is None
    assert template.space(Task(region, dtype="float16")) is None


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_a_template_that_declares_nothing_takes_plain_tasks_alone(template: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    """`handles` decides, and nothing that a template's own checks do can overrule it."""
    task = Task(TASKS[template.name][0], threads=4)
    assert template.space(task) is not None
    monkeypatch.setattr(template, "handles", template.handles - {"threads"})
    assert template.space(task) is None


def test_needs_are_named_after_fields_and_choices() -> None:
    layer = Conv2d(8, 8, 16, 16, clamp="hswish", in_layout="NCHW8c", out_layout="NCHW16c", residual=True, scaled=True)
    assert Task((layer,)).needs == {"clamp=hswish", "in_layout=blocked", "out_layout=blocked", "residual", "scaled"}
    assert Task((replace(layer, clamp=RELU6, in_layout="NCHW", out_layout="NHWC", residual=False, scaled=False),)).needs == {
        "clamp",
        "in_layout=NCHW",
    }
    assert Task((Conv2d(8, 8, 16, 16), Dense(4, 4)), "float8", 4).needs == {"layers", "dtype=float8", "threads"}
    assert Task((Conv2d(8, 8, 16, 16),), "float16").needs == {"core with half"}
    assert Task((Conv2d(8, 8, 6, 6, sources=(4, 4), pieces=((0, 0, 4), (1, 2, 2))),)).needs == {"sources", "pieces"}
    assert not Task((Conv2d(8, 8, 16, 16, (3, 3), (2, 2), (1, 1, 1, 1), 2),)).needs


def test_a_field_without_a_default_is_always_a_need() -> None:
    assert Task((Opaque("mean", "0" * 12, (), (1,)),)).needs >= {"operator=mean", "input_shapes", "result_shape"}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
@pytest.mark.parametrize("verb", ["emit", "pack"])
def test_knobs_are_those_of_the_space(template: Template, verb: str) -> None:
    task = Task(TASKS[template.name][0])
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
