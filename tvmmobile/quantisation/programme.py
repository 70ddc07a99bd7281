"""Poses the choice of the layers that stay in float32 as an integer programme, from their latencies and the noise that each adds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from tvmmobile.quantisation.assignment import KernelSpan, Programme, StepOutput
from tvmmobile.quantisation.integers import IntegerNetwork
from tvmmobile.quantisation.moves import only_moves
from tvmmobile.quantisation.noise import AddedNoise


@dataclass(frozen=True, eq=False)
class Costs:
    """Latencies of layers in int8 and in float32; tensors have the numbers of the steps that write them.

    Attributes:
        pieces: the kernels that can compute each step, in each of its possible precisions; see `Programme`.
        quantise_us, dequantise_us: latencies of converting each tensor to int8 and to float32; 0 for missing tensors.
    """

    pieces: tuple[KernelSpan, ...]
    quantise_us: Mapping[int, float] = field(default_factory=dict)
    dequantise_us: Mapping[int, float] = field(default_factory=dict)


def programme_of(network: IntegerNetwork, costs: Costs, noise: AddedNoise, free: Collection[int]) -> Programme:
    """Return the integer programme of a network that has all possible layers in integers; those in `free` may be in float32 too."""
    flow = network.flow
    count = len(flow.steps)
    moving = {step.number for step in flow.steps if step.number not in network.steps and only_moves(step)}

    def readers(number: int) -> Iterator[int]:
        """Yield the steps that read a tensor, directly or after moves, which keep its precision, and `count` if the caller reads it."""
        for reader in dict.fromkeys(flow.readers.get(number, ())):
            yield from readers(reader) if reader in moving else (reader,)
        if any(isinstance(result, int) and result == number for result in flow.results):
            yield count

    def allowed(piece: KernelSpan) -> bool:
        steps = range(piece.first, piece.last + 1)
        return all(step in network.steps if piece.integer else step in free or step not in network.steps for step in steps)

    pieces = list(filter(allowed, costs.pieces))
    absorbed = {piece.last for piece in pieces if piece.stores}
    tensors = [
        StepOutput(
            number,
            tuple(dict.fromkeys(readers(number))),
            costs.quantise_us.get(number, 0.0),
            costs.dequantise_us.get(number, 0.0),
            noise.tensors.get(number, 0.0),
            number in absorbed,
            noise.biases.get(number, 0.0),
        )
        for number in (*flow.inputs, *(step.number for step in flow.steps if step.number not in moving))
    ]
    covered = {step for piece in pieces for step in range(piece.first, piece.last + 1)}
    pieces += [KernelSpan(number, number, number in network.steps, 0.0) for number in range(count) if number not in covered]
    return Programme(count, tuple(pieces), tuple(tensors), noise.steps)
