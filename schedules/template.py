"""The base class of schedule templates: for the tasks that it accepts, a space of knobs, the kernel for given knobs, and packed weights."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from tvmmobile.graph import needs
from tvmmobile.graph.curves import CURVES
from tvmmobile.graph.layers import Array, LayerParameters
from tvmmobile.graph.machine import Machine
from tvmmobile.graph.precision import SMALL_WEIGHTS
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.in_order_order import inner_order
from tvmmobile.schedules.space import Knobs, Space

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc

    from tvmmobile.schedules.emit.expansion import Expansion


#: Every step of `CURVES`, see `epilogue.Epilogue`; in `handles` it stands for the needs of all steps.
EPILOGUE = frozenset({"epilogue"})
#: Blocked channels in input and output.
BLOCKED = frozenset({"in_layout=blocked", "out_layout=blocked"})
SHUFFLED = frozenset({"out_layout=shuffled"})
#: An input that is a concatenation of slices of other tensors.
PIECES = frozenset({"sources", "pieces"})
#: A residual that is a slice of another tensor.
ADDED = frozenset({"added"})
THREADS, LAYERS = frozenset({"threads"}), frozenset({"layers"})
#: Inputs and outputs in another precision than the kernel's, which `Kernel.load` and `Kernel.store` convert.
STORAGE = needs.STORAGE | {"widened"}
#: Weights in fewer bits, see `graph.small_weights`.
WEIGHTS = frozenset(f"weights={name}" for name in SMALL_WEIGHTS)
_Kind = TypeVar("_Kind")
#: Number of cached spaces: a search reuses the spaces of a kernel and of its neighbours, whose members are then enumerated only once.
SPACES_KEPT = 128


def layer_of(task: Task, kind: type[_Kind]) -> _Kind:
    """Return the only layer of a task, whose kind the template's `_space` has checked."""
    assert isinstance(task.layer, kind)
    return task.layer


def layers_of(task: Task, kind: type[_Kind]) -> tuple[_Kind, ...]:
    """Return the layers of a task, whose kind the template's `_space` has checked."""
    layers = tuple(layer for layer in task.region if isinstance(layer, kind))
    assert len(layers) == len(task.region)
    return layers


def _steps() -> frozenset[str]:
    """Return the needs that `EPILOGUE` stands for."""
    return frozenset(f"{field}{step}" for field in ("clamp", "then") for step in ("", *(f"={curve}" for curve in CURVES)))


def with_inner(space: Space, task: Task) -> Space:
    """Return the space with the knob `inner`, which selects the instruction order of a register tile's loop: LLVM's or tvmmobile's.

    Its values are those of `inner_order`; without it, LLVM chooses the order. Only spaces for in-order cores have it.
    """
    order, optional = inner_order(task.machine, task.lanes), {**space.optional, "inner": (0, 1, 2)}
    if not order:
        return replace(space, optional=optional)
    return replace(space, options={**space.options, "inner": (order,)}, usual={**space.usual, "inner": order}, optional=optional)


@functools.lru_cache(maxsize=SPACES_KEPT)
def _space_of(template: Template, task: Task, machine: Machine) -> Space | None:
    """Return a template's space for `task`; `machine` is part of the cache key, because equal tasks may differ in it."""
    space = template._space(task)
    # Not `if space`, which would count the whole space.
    return space if space is None or not template.multiplies else with_inner(space, task)


@dataclass(frozen=True)
class Algorithm:
    """What half precision has to know of an algorithm that multiplies sums of inputs.

    Attributes:
        growth: the largest sum, as a multiple of the largest input.
        noise: the rounding errors of its results, as a multiple of the direct sum's.
    """

    name: str
    growth: float
    noise: float


class Template(ABC):
    """A hand-written kernel generator with a space of knobs.

    A kernel's arguments are the region's input, the other tensors that its layers read (`Task.side_shapes`), the arrays returned by `pack`,
    and the output, in this order; all are tensors of the task's precision (`Task.storage` for input and output).

    A subclass implements `_space`, `features`, `_emit` and `_pack`, and declares in `handles` which needs (`Task.needs`) they handle. Tasks
    with any other need are rejected before these are called.
    """

    name: str
    #: Number of trials after which the best schedule is within a percent of the space's best; a search makes no more. `None` for no limit.
    enough_trials: int | None = None
    #: Version of the knobs; raise it whenever `_emit` or `_pack` changes the meaning of old knobs, so that old records are not misread.
    version: int
    #: Needs that the kernels handle; a plain floating-point NHWC layer on one thread has none.
    handles: frozenset[str] = frozenset()
    #: The algorithm of kernels that multiply sums of inputs in half precision, too.
    algorithm: Algorithm | None = None
    #: True if the kernels have loops whose instruction order the knob `inner` selects, see `with_inner`.
    multiplies: bool = False

    def space(self, task: Task) -> Space | None:
        """Return the schedules for `task`, or `None` if the template rejects it."""
        steps = _steps() if self.handles >= EPILOGUE else frozenset()
        return _space_of(self, task, task.machine) if task.needs <= self.handles | steps else None

    def emit(self, task: Task, knobs: Knobs, source: PrimFunc | None = None) -> PrimFunc:
        """Return the kernel as a TIR function with the global symbol `task.symbol`.

        Args:
            source: unscheduled TIR function of an opaque layer.

        Raises:
            ValueError: if the template rejects the task, or if the knobs are not its own.
        """
        self._check(task, knobs)
        return self._emit(task, knobs)

    def pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return the region's constants in the order and layout in which the kernel reads them.

        Raises:
            ValueError: if the template rejects the task, or if the knobs are not its own.
        """
        self._check(task, knobs)
        return self._pack(task, knobs, parameters)

    def executed_macs(self, task: Task) -> float:
        """Return the fewest multiply-adds that any of the template's kernels executes; algorithms that need fewer override it."""
        return task.least_macs

    def promises(self, task: Task) -> bool:
        """Return whether the usual schedule is estimated to be clearly faster than a direct kernel; used for tasks without records."""
        return False

    def loses(self, task: Task, knobs: Knobs) -> bool:
        """Return whether a schedule is estimated to be slower than a direct kernel; for tasks without records."""
        return False

    def faster_in_floats(self, task: Task) -> bool:
        """Return whether a float32 kernel is estimated to be faster than this template's int8 kernel for the task."""
        return False

    def gains_by_smaller_weights(self, task: Task, weight: Array) -> bool:
        """Return whether an int8 layer's kernel becomes faster with weights as small as `integer_step` makes them."""
        return False

    def shortcuts(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[dict[str, float]]:
        """Return, for each layer, the shares (0 to 1) of its work that take each shortcut its weights allow, by the shortcut's name."""
        return []

    def _check(self, task: Task, knobs: Knobs) -> None:
        space = self.space(task)
        if space is None:
            raise ValueError(f"{self.name} does not take {task.name}")
        if wrong := sorted((space.options.keys() ^ knobs.keys()) - space.optional.keys()):
            problems = [f"{'unknown' if name in knobs else 'missing'} knob {name}" for name in wrong]
            raise ValueError(f"{self.name}@{self.version}: {', '.join(problems)}")

    def expansion(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> Expansion | None:
        """Return how `init` makes the first of `pack`'s constants from weights in fewer bits; `None` if it does not."""
        return None

    @abstractmethod
    def _space(self, task: Task) -> Space | None:
        """Return the schedules for a task whose needs are all in `handles`, or `None` to reject it."""

    @abstractmethod
    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the inputs of the cost model in addition to the knobs; all tasks have the same number of values."""

    @abstractmethod
    def _emit(self, task: Task, knobs: Knobs) -> PrimFunc:
        """Return the kernel for knobs that `emit` has checked."""

    @abstractmethod
    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return the packed constants for knobs that `pack` has checked."""
