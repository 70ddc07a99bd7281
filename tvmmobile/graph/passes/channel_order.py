"""Removes channel shuffles at compile time: weights are permuted, and convolutions read slices.

Between convolutions ShuffleNet only moves channels: it concatenates, takes the channels of two halves or of groups in turn, splits. A
convolution sums over its input channels in any order, so each later convolution can read them from where they were computed, with its
weights permuted; and the earlier one can write its output channels so that channels read together are adjacent, with its filters permuted.
The operators that moved them then have no readers left.

References:
    ShuffleNet, arXiv 1707.01083; ShuffleNet v2, arXiv 1807.11164
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from tvmmobile.graph.bindings import bindings_of, readers_of, values_of
from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.operators import constant_operand
from tvmmobile.graph.passes.channel_trace import NHWC, MovedChannels, Trace
from tvmmobile.graph.passes.rewriting import replace_variables

Order = npt.NDArray[np.int64]
#: Pieces that one convolution reads; more would be slower than moving the channels.
MOST_PIECES = 24


def order_channels(module: Any) -> Any:
    """Rewrite `main` wherever only convolutions read shuffled channels. Weights must be constants, NHWC and HWIO."""
    graph = _Graph(module["main"])
    edits: dict[Any, _Edit] = defaultdict(_Edit)
    for family in graph.families():
        for variable, edit in _edits(graph, family).items():
            edits[variable].add(edit)

    return replace_variables(module, {variable: _edited(graph.bound[variable], edit) for variable, edit in edits.items()})


@dataclass
class _Edit:
    """Changes to the operator that computes a variable.

    Attributes:
        pieces: the slices that form the input, as (tensor, first channel, channels).
        inputs: permutation of a convolution's input channels, new to old; groups stay.
        outputs: permutation of the output's channels, new to old.
    """

    pieces: tuple[tuple[Any, int, int], ...] = ()
    inputs: Order | None = None
    outputs: Order | None = None

    def add(self, other: _Edit) -> None:
        """Merge two edits of different kinds."""
        self.pieces = self.pieces or other.pieces
        self.inputs = other.inputs if self.inputs is None else self.inputs
        self.outputs = other.outputs if self.outputs is None else self.outputs


@dataclass(frozen=True)
class _Reader:
    """A convolution that reads moved channels.

    Attributes:
        variable: the output.
        origins: origin of each input channel.
        groups: number of groups of input channels that are summed over.
        followers: variables computed channel by channel from a depthwise convolution.
        last: convolutions that finally sum over the channels of `followers`.
    """

    variable: Any
    origins: npt.NDArray[np.int64]
    groups: int
    followers: tuple[Any, ...] = ()
    last: tuple[Any, ...] = ()


@dataclass(frozen=True)
class _ChannelGroup:
    """Tensors whose channels get mixed, by number, and the tensors that result."""

    numbers: tuple[int, ...]
    moved: tuple[Any, ...]


@dataclass
class _Graph:
    """`main`, with its operators that only move channels."""

    main: Any
    trace: Trace = field(default_factory=Trace)
    bound: dict[Any, Any] = field(default_factory=dict)
    uses: dict[Any, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trace.follow(bindings_of(self.main))
        self.bound = values_of(self.main)
        self.uses = readers_of(self.main)

    def families(self) -> list[_ChannelGroup]:
        """Return the families with shuffled channels."""
        found: list[_ChannelGroup] = []
        for variable, moved in self.trace.moved.items():
            numbers = {*np.unique(moved.origins[..., 0]).tolist()}
            joined = [family for family in found if not numbers.isdisjoint(family.numbers)]
            together = numbers.union(*(family.numbers for family in joined))
            variables = [*(one for family in joined for one in family.moved), variable]
            if numbers:
                found = [*(one for one in found if one not in joined), _ChannelGroup(tuple(sorted(together)), tuple(variables))]
        return [family for family in found if any(self.trace.moved[variable].shuffled for variable in family.moved)]

    def readers(self, family: _ChannelGroup) -> list[_Reader] | None:
        """Return all readers of moved channels, in order of execution; `None` if the channels' order matters to one."""
        found = []
        for variable in family.moved:
            for use in self.uses[variable]:
                if use in self.trace.moved:
                    continue
                reader = self._reader(use, variable, self.trace.moved[variable])
                if reader is None:
                    return None
                found.append(reader)
        position = {variable: number for number, variable in enumerate(self.bound)}
        return sorted(found, key=lambda reader: position[reader.variable])

    def _reader(self, use: Any, data: Any, moved: MovedChannels) -> _Reader | None:
        if use is None or not _is_conv(self.bound[use]) or not self.bound[use].args[0].same_as(data) or moved.axis != NHWC:
            return None
        if not _is_depthwise(self.bound[use]):
            return _Reader(use, moved.origins, int(self.bound[use].attrs.groups))
        followers, last = self._followers(use)
        return _Reader(use, moved.origins, 1, followers, last) if last else None

    def _followers(self, variable: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return the channel-wise operators after a depthwise convolution, and the convolutions behind them; none if others follow."""
        followers: list[Any] = []
        while len(self.uses[variable]) == 1 and self._channelwise_input(self.uses[variable][0]) is not None:
            variable = self.uses[variable][0]
            followers.append(variable)
        last = tuple(self.uses[variable])
        if any(
            use is None or not _is_conv(self.bound[use]) or int(self.bound[use].attrs.groups) != 1 or use in self.trace.moved
            for use in last
        ):
            return (), ()
        return tuple(followers), last

    def makers(self, number: int) -> tuple[Any, ...]:
        """Return the operators that compute a tensor's channels, back to the convolution that may reorder them; none if the order is
        fixed.
        """
        variable = self.trace.tensors[number]
        if not all(use in self.trace.moved for use in self.uses[variable]):
            return ()
        found = []
        while variable is not None:
            found.append(variable)
            if _is_conv(self.bound.get(variable)) and not _is_depthwise(self.bound[variable]):
                return tuple(found)
            variable = self._channelwise_input(variable)
            if variable is None or len(self.uses[variable]) != 1:
                return ()
        return ()

    def _channelwise_input(self, variable: Any) -> Any:
        """Return the data of an operator that computes each channel from the same input channel; `None` for other operators."""
        call: Any = self.bound.get(variable)
        name = operator_of(call)
        if name == "relax.nn.conv2d" and _is_conv(call) and _is_depthwise(call):
            return call.args[0]
        if name not in ("relax.add", "relax.maximum", "relax.minimum"):
            return None
        found = constant_operand(call)
        return found[0] if found and len(call.ty.shape) == 4 and shape_of(found[0]) == shape_of(call) else None


def _is_conv(call: Any) -> bool:
    """Return whether a call is a convolution with constant weights, NHWC and HWIO."""
    if operator_of(call) != "relax.nn.conv2d" or not isinstance(call.args[1], tvm.ir.GenericConst):
        return False
    return bool(call.attrs.data_layout == "NHWC" and call.attrs.kernel_layout == "HWIO" and call.attrs.out_layout == "NHWC")


def _is_depthwise(call: Any) -> bool:
    groups = int(call.attrs.groups)
    return groups == int(call.args[0].ty.shape[3]) == int(call.ty.shape[3])


def _edits(graph: _Graph, family: _ChannelGroup) -> dict[Any, _Edit]:
    """Return the edits that make the family's channel moves unnecessary; none if that is impossible."""
    readers = graph.readers(family)
    if not readers:
        return {}
    edits: dict[Any, _Edit] = defaultdict(_Edit)
    positions: dict[int, Order] = {}
    for number in family.numbers:
        makers = graph.makers(number)
        order = _order(graph, number, readers, makers)
        positions[number] = np.argsort(order)
        for maker in makers:
            edits[maker].add(_Edit(outputs=order))
    for reader in readers:
        inputs = _by_place(reader, positions)
        places = [(number, int(positions[number][channel])) for number, channel in reader.origins[inputs].tolist()]
        pieces = tuple((graph.trace.tensors[number], first, count) for number, first, count in _runs(places))
        if len(pieces) > MOST_PIECES:
            return {}
        channelwise = _is_depthwise(graph.bound[reader.variable])
        edits[reader.variable].add(_Edit(pieces, outputs=inputs) if channelwise else _Edit(pieces, inputs))
        for follower in reader.followers:
            edits[follower].add(_Edit(outputs=inputs))
        for last in reader.last:
            edits[last].add(_Edit(inputs=inputs))
    return edits


def _order(graph: _Graph, number: int, readers: Sequence[_Reader], makers: Sequence[Any]) -> Order:
    """Return a new order of a tensor's channels that groups channels read by the same convolutions, those of the first reader first."""
    channels = int(graph.trace.tensors[number].ty.shape[3])
    if not makers:
        return np.arange(channels)
    read: list[list[tuple[int, int]]] = [[] for _ in range(channels)]
    for place, reader in enumerate(readers):
        depth = len(reader.origins) // reader.groups
        for index in np.flatnonzero(reader.origins[:, 0] == number):
            read[reader.origins[index, 1]].append((place, int(index) // depth))
    own_group = channels // int(graph.bound[makers[-1]].attrs.groups)
    return np.array(sorted(range(channels), key=lambda channel: (channel // own_group, read[channel], channel)))


def _by_place(reader: _Reader, positions: dict[int, Order]) -> Order:
    """Return a reader's input channels, sorted within each group by tensor and place."""
    depth = len(reader.origins) // reader.groups

    def place(index: int) -> tuple[int, int, int]:
        number, channel = reader.origins[index].tolist()
        return index // depth, number, int(positions[number][channel])

    return np.array(sorted(range(len(reader.origins)), key=place))


def _runs(places: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return (tensor, first channel, channels) of consecutive channels."""
    found: list[tuple[int, int, int]] = []
    for number, channel in places:
        if found and found[-1][0] == number and found[-1][1] + found[-1][2] == channel:
            found[-1] = (number, found[-1][1], found[-1][2] + 1)
        else:
            found.append((number, channel, 1))
    return found


def _edited(call: Any, edit: _Edit) -> Any:
    arguments = list(call.args)
    if edit.pieces:
        arguments[0] = _put_together(edit.pieces)
    for place, argument in enumerate(arguments):
        if isinstance(argument, tvm.ir.GenericConst):
            values = argument.value.numpy()
            if edit.inputs is not None:
                values = _with_inputs(values, edit.inputs, int(call.attrs.groups))
            if edit.outputs is not None and values.shape[-1:] == (len(edit.outputs),):
                values = values[..., edit.outputs]
            arguments[place] = relax.const(np.ascontiguousarray(values))
    return relax.Call(call.op, arguments, call.attrs, call.ty_args)


def _with_inputs(weight: npt.NDArray[np.float32], inputs: Order, groups: int) -> npt.NDArray[np.float32]:
    """Return HWIO weights for reordered input channels; channels stay within their group."""
    depth, channels = weight.shape[2], weight.shape[3] // groups
    parts = []
    for group in range(groups):
        order = inputs[group * depth : (group + 1) * depth] - group * depth
        parts.append(weight[:, :, order, group * channels : (group + 1) * channels])
    return np.concatenate(parts, -1)


def _put_together(pieces: Sequence[tuple[Any, int, int]]) -> Any:
    """Return the concatenation of the pieces."""
    found = []
    for tensor, first, count in pieces:
        whole = count == int(tensor.ty.shape[3])
        found.append(tensor if whole else relax.op.strided_slice(tensor, [NHWC], [first], [first + count]))
    return found[0] if len(found) == 1 else relax.op.concat(found, NHWC)
