"""The base class of schedule templates: a space of knobs for the tasks it takes, the kernel for given knobs, and the packed weights."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import replace
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


#: Every step that `CURVES` has, see `epilogue.Epilogue`: in `handles` it stands for the needs of all of them.
EPILOGUE = frozenset({"epilogue"})
#: Channels in blocks, in input and output.
BLOCKED = frozenset({"in_layout=blocked", "out_layout=blocked"})
SHUFFLED = frozenset({"out_layout=shuffled"})
#: An input composed of slices of other tensors.
PIECES = frozenset({"sources", "pieces"})
#: An added tensor that is a slice of another one.
ADDED = frozenset({"added"})
THREADS, LAYERS = frozenset({"threads"}), frozenset({"layers"})
#: An input or output in another precision than the kernel's, or all that it reads and writes: `Kernel.load` and `Kernel.store` convert.
STORAGE = needs.STORAGE | {"widened"}
#: Weights in fewer bits, see `graph.small_weights`.
WEIGHTS = frozenset(f"weights={name}" for name in SMALL_WEIGHTS)
_Kind = TypeVar("_Kind")
#: Number of cached spaces: a search reuses those of a kernel and its neighbours, whose members are then counted only once.
SPACES_KEPT = 128


def layer_of(task: Task, kind: type[_Kind]) -> _Kind:
    """Return the only layer of a task, of the kind that the template's space has checked."""
    assert isinstance(task.layer, kind)
    return task.layer


def layers_of(task: Task, kind: type[_Kind]) -> tuple[_Kind, ...]:
    """Return the layers of a task, all of the kind that the template's space has checked."""
    layers = tuple(layer for layer in task.region if isinstance(layer, kind))
    assert len(layers) == len(task.region)
    return layers


def _steps() -> frozenset[str]:
    """Return the needs that `EPILOGUE` stands for."""
    return frozenset(f"{field}{step}" for field in ("clamp", "then") for step in ("", *(f"={curve}" for curve in CURVES)))


def with_inner(space: Space, task: Task) -> Space:
    """Return the space with the knob `inner`: whether LLVM or tvmmobile orders the instructions of a register tile's loop.

    Its values are those of `inner_order`; without it, LLVM orders. Only cores that issue in order have it.
    """
    order, optional = inner_order(task.machine, task.lanes), {**space.optional, "inner": (0, 1, 2)}
    if not order:
        return replace(space, optional=optional)
    return replace(space, options={**space.options, "inner": (order,)}, usual={**space.usual, "inner": order}, optional=optional)


@functools.lru_cache(maxsize=SPACES_KEPT)
def _space_of(template: Template, task: Task, machine: Machine) -> Space | None:
    """Return a template's space for `task` on `machine`, which equal tasks may differ in."""
    space = template._space(task)
    # Not `if space`: its length is that of the whole space, counted.
    return space if space is None or not template.multiplies else with_inner(space, task)


class Template(ABC):
    """A hand-written kernel with searched knobs.

    A kernel takes the region's input, what else its layers read (`Task.side_shapes`), the arrays that `pack` returned, and the output, all
    as tensors of the task's precision (`Task.storage` for input and output), in this order.

    A subclass writes `_space`, `features`, `_emit` and `_pack`, and declares in `handles` which needs (`Task.needs`) they know. A task with
    any other need never reaches them.
    """

    name: str
    #: Trials that suffice, even if more are requested: they come within a percent of the best of the whole space.
    enough_trials: int | None = None
    #: Raised whenever `_emit` or `_pack` changes what old knobs mean, so that no record is read with a new meaning.
    version: int
    #: The needs that the kernels meet; a plain floating-point NHWC layer on one thread has none.
    handles: frozenset[str] = frozenset()
    #: True if the kernels consist of `MatmulTile`s, whose loop the knob `inner` orders (see `with_inner`).
    multiplies: bool = False

    def space(self, task: Task) -> Space | None:
        """Return the schedules for `task`, or `None` if the template does not take it."""
        steps = _steps() if self.handles >= EPILOGUE else frozenset()
        return _space_of(self, task, task.machine) if task.needs <= self.handles | steps else None

    def emit(self, task: Task, knobs: Knobs, source: PrimFunc | None = None) -> PrimFunc:
        """Return the kernel as TIR with the global symbol `task.symbol`; `ValueError` for another's task or knobs. An opaque layer's
        `source` is its unscheduled function.
        """
        self._check(task, knobs)
        return self._emit(task, knobs)

    def pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return the region's constants in the order and layout the kernel reads them; `ValueError` for another's task or knobs."""
        self._check(task, knobs)
        return self._pack(task, knobs, parameters)

    def executed_macs(self, task: Task) -> float:
        """Return the fewest multiply-adds that a kernel of any knobs executes; a template whose algorithm needs fewer overrides it."""
        return task.least_macs

    def promises(self, task: Task) -> bool:
        """Return whether a task's usual schedule is estimated to be clearly faster than a direct kernel; asked if nothing is measured."""
        return False

    def faster_in_floats(self, task: Task) -> bool:
        """Return whether a float32 kernel is estimated to be faster for an integer layer that this template is for."""
        return False

    def gains_by_smaller_weights(self, task: Task, weight: Array) -> bool:
        """Return whether an integer layer's kernel becomes faster if its weights are as small as `integer_step` makes them."""
        return False

    def shortcuts(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[dict[str, float]]:
        """Return the shares of output channels, from 0 to 1, for which the kernel saves work because of their weights, by layer."""
        return []

    def _check(self, task: Task, knobs: Knobs) -> None:
        space = self.space(task)
        if space is None:
            raise ValueError(f"{self.name} does not take {task.name}")
        if wrong := sorted((space.options.keys() ^ knobs.keys()) - space.optional.keys()):
            problems = [f"{'unknown' if name in knobs else 'missing'} knob {name}" for name in wrong]
            raise ValueError(f"{self.name}@{self.version}: {', '.join(problems)}")

    @abstractmethod
    def _space(self, task: Task) -> Space | None:
        """Return the schedules for a task whose needs are all handled; `None` to refuse it."""

    @abstractmethod
    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the inputs of the cost model besides the knobs, for tasks of any size; always the same number of values."""

    @abstractmethod
    def _emit(self, task: Task, knobs: Knobs) -> PrimFunc:
        """Return the kernel for knobs that `emit` has checked."""

    @abstractmethod
    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return the packed constants for knobs that `pack` has checked."""
