"""The savings of a depthwise separable convolution, for any layer (arXiv 1704.04861, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from tvmmobile.system.errors import UserError


@dataclass(frozen=True)
class ConvShape:
    """A convolution with padding that keeps the side, once α and ρ are applied.

    Attributes:
        kernel: D_K, the kernel's side.
        inputs: M, input channels.
        outputs: N, output channels.
        side: D_F, the output's side.
        groups: G, of the standard and of the pointwise convolution.
    """

    kernel: int
    inputs: int
    outputs: int
    side: int
    groups: int = 1


@dataclass(frozen=True)
class Way:
    """One way to compute a layer.

    Attributes:
        name, formula: name and formula of its multiply-adds.
        macs: multiply-adds.
        weights: the kernel's weights, without bias.
        ratio: multiply-adds over those of a standard convolution.
    """

    name: str
    formula: str
    macs: int
    weights: int
    ratio: float


def scaled(kernel: int, inputs: int, outputs: int, side: int, alpha: float = 1.0, rho: float = 1.0, groups: int = 1) -> ConvShape:
    """Return the layer with the multipliers α and ρ applied, both rounded to the nearest integer.

    Raises `UserError` if a number is not positive, or the channels cannot be divided into the groups.
    """
    given = {"kernel": kernel, "in": inputs, "out": outputs, "side": side, "alpha": alpha, "rho": rho, "groups": groups}
    for option, value in given.items():
        if not 0 < value < float("inf"):
            raise UserError(f"--{option} {value} is not a positive number.", "See `tvmmobile models cost --help`.")
    shape = ConvShape(kernel, max(1, round(inputs * alpha)), max(1, round(outputs * alpha)), max(1, round(side * rho)), groups)
    if shape.inputs % groups or shape.outputs % groups:
        raise UserError(
            f"{shape.inputs} input and {shape.outputs} output channels cannot be divided into {groups} groups.",
            "Give --groups a number that divides both.",
        )
    return shape


def ways(shape: ConvShape) -> tuple[Way, ...]:
    """Return a standard convolution, a depthwise and a pointwise one, and those two together; and with groups those, if there are any."""
    area, pixels = shape.kernel**2, shape.side**2
    standard = area * shape.inputs * shape.outputs
    depthwise, pointwise = area * shape.inputs, shape.inputs * shape.outputs

    def way(name: str, formula: str, weights: int) -> Way:
        return Way(name, formula, weights * pixels, weights, weights / standard)

    found = [
        way("standard", "D_K²·M·N·D_F²", standard),
        way("depthwise", "D_K²·M·D_F²", depthwise),
        way("pointwise", "M·N·D_F²", pointwise),
        way("separable", "both", depthwise + pointwise),
    ]
    if shape.groups > 1:
        found += [
            way(f"standard, {shape.groups} groups", "D_K²·M·N·D_F²/G", standard // shape.groups),
            way(f"separable, {shape.groups} groups", "D_K²·M·D_F² + M·N·D_F²/G", depthwise + pointwise // shape.groups),
        ]
    return tuple(found)


def reduction(shape: ConvShape) -> float:
    """Return 1/N + 1/D_K²: the multiply-adds of a separable convolution over those of a standard one (section 3.1)."""
    return 1 / shape.outputs + 1 / shape.kernel**2
