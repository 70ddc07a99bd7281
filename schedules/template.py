"""What a schedule template is: a space of knobs for the tasks it takes, the kernel for given knobs, and the weights packed for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from tvmmobile.graph.layers import Array, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.space import Knobs, Space

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc


class Template(ABC):
    """A hand-written kernel with searched knobs.

    A kernel takes the region's input, what else its layers read (`Task.side_shapes`), the arrays that `pack` returned, and the output, all
    as float32 tensors, in this order.
    """

    name: str
    #: Trials that are enough, whatever more is asked for: where they come within a percent of the best of the whole space.
    enough_trials: int | None = None
    #: Raised whenever `emit` or `pack` changes what old knobs mean, so that no record is read with a new meaning.
    version: int

    @abstractmethod
    def space(self, task: Task) -> Space | None:
        """The schedules for `task`, or `None`: not mine."""

    @abstractmethod
    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """What a cost model should know beyond the knobs themselves, for tasks of every size; always the same number of values."""

    @abstractmethod
    def emit(self, task: Task, knobs: Knobs) -> PrimFunc:
        """The kernel as TIR with the global symbol `task.symbol`."""

    @abstractmethod
    def pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """The region's constants in the order and layout the kernel reads them."""
