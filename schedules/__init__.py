"""Hand-written schedule templates. To add one, write a `Template` in its own file and list it in `TEMPLATES` or `INTEGER_TEMPLATES`.

`floats` and `integers` hold templates for single layers, `fused` templates for regions of several layers, and `emit` their building blocks.

Templates outside this package must be added with `register` in every process that uses them (see `workers.Workers`).
"""

from __future__ import annotations

from collections.abc import Iterator

from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.floats.attention import HeadAttention
from tvmmobile.schedules.floats.batched_product import BatchedProduct
from tvmmobile.schedules.floats.channel_norm import PixelwiseChannelNorm
from tvmmobile.schedules.floats.conv import Conv
from tvmmobile.schedules.floats.dense import DenseVector
from tvmmobile.schedules.floats.depthwise import Depthwise
from tvmmobile.schedules.floats.digits import DigitPointwise
from tvmmobile.schedules.floats.group_norm import ThreePassGroupNorm
from tvmmobile.schedules.floats.image_conv import ImageConv
from tvmmobile.schedules.floats.plane_conv import PlaneConv
from tvmmobile.schedules.floats.plane_mean import PlaneMean
from tvmmobile.schedules.floats.pointwise import Pointwise
from tvmmobile.schedules.floats.pool import PoolMean
from tvmmobile.schedules.floats.recurrent import StepwiseRecurrent
from tvmmobile.schedules.floats.resize import Resample
from tvmmobile.schedules.floats.softmax import AxisSoftmax
from tvmmobile.schedules.floats.sparse import SparseClusters, SparsePointwise
from tvmmobile.schedules.floats.strassen import Strassen
from tvmmobile.schedules.floats.window_pool import WindowMax, WindowMean
from tvmmobile.schedules.floats.winograd import Winograd
from tvmmobile.schedules.fused.chain import Chain
from tvmmobile.schedules.fused.integer_separable import LongSeparable
from tvmmobile.schedules.fused.separable import Separable
from tvmmobile.schedules.fused.sparse_separable import SparseSeparable
from tvmmobile.schedules.fused.stages import Stages
from tvmmobile.schedules.integers.depthwise import DotDepthwise, LongDepthwise
from tvmmobile.schedules.integers.gate import IntegerGate
from tvmmobile.schedules.integers.image import DotImage, LongImage
from tvmmobile.schedules.integers.long import LongProduct
from tvmmobile.schedules.integers.pair_window import PairWindow
from tvmmobile.schedules.integers.pairs import PairProduct
from tvmmobile.schedules.integers.pool import IntegerPool
from tvmmobile.schedules.integers.product import DotProduct
from tvmmobile.schedules.integers.window import DotWindow, LongWindow
from tvmmobile.schedules.space import Knobs, KnobSchedule, Space
from tvmmobile.schedules.template import Template

TEMPLATES: tuple[Template, ...] = (
    Pointwise(),
    Depthwise(),
    ImageConv(),
    DenseVector(),
    Separable(),
    Strassen(),
    Chain(),
    Conv(),
    Winograd(),
    PoolMean(),
    WindowMax(),
    WindowMean(),
    Resample(),
    PixelwiseChannelNorm(),
    ThreePassGroupNorm(),
    HeadAttention(),
    BatchedProduct(),
    AxisSoftmax(),
    StepwiseRecurrent(),
    SparsePointwise(),
    SparseClusters(),
    SparseSeparable(),
    PlaneConv(),
    PlaneMean(),
    DigitPointwise(),
)
#: Templates for quantised layers, which the float templates reject.
INTEGER_TEMPLATES: tuple[Template, ...] = (
    PairWindow(),
    PairProduct(),
    DotProduct(),
    LongProduct(),
    DotDepthwise(),
    LongDepthwise(),
    DotImage(),
    LongImage(),
    DotWindow(),
    LongWindow(),
    LongSeparable(),
    IntegerPool(),
    IntegerGate(),
)
#: Templates that schedule the TIR functions of opaque layers.
OPAQUE_TEMPLATES: tuple[Template, ...] = (Stages(),)
_registered: list[Template] = []

__all__ = [
    "INTEGER_TEMPLATES",
    "OPAQUE_TEMPLATES",
    "TEMPLATES",
    "KnobSchedule",
    "Knobs",
    "Space",
    "Template",
    "all_templates",
    "register",
    "template_for",
    "template_named",
    "templates_for",
]


def register(template: Template) -> None:
    """Add a template to this process; it takes precedence over all templates registered before."""
    _registered.insert(0, template)


def all_templates() -> Iterator[Template]:
    """Yield every template in order of precedence: registered ones first."""
    yield from (*_registered, *TEMPLATES, *INTEGER_TEMPLATES, *OPAQUE_TEMPLATES)


def templates_for(task: Task) -> list[Template]:
    """Return the templates that accept `task`, in order of precedence; an empty list if only the fallback accepts it."""
    return [template for template in all_templates() if template.space(task) is not None]


def template_for(task: Task) -> Template | None:
    """Return the first template that accepts `task`, or `None` if only the fallback accepts it."""
    return next((template for template in all_templates() if template.space(task) is not None), None)


def template_named(name: str, version: int) -> Template | None:
    """Return the template that a record names, or `None` if this version of tvmmobile lacks it."""
    return next((template for template in all_templates() if (template.name, template.version) == (name, version)), None)
