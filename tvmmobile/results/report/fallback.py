"""Describes kernels without a template: their share of time and multiply-adds, and the reason."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tvmmobile.results.file import VariantResult
from tvmmobile.results.report.kernel_rows import kernel_us
from tvmmobile.results.report.wording import millions, percent, plural

#: Kernels that are explained.
_MOST = 10
#: The part of a name after its operator: shape, fingerprint, dtype and threads (`layers.Opaque.name`, `tasks.Task.name`).
_BEHIND_OPERATOR = re.compile(r"_\d+(x\d+)*_[0-9a-f]{12}.*")
_MOVES = {"transpose", "concatenate", "split", "strided", "dynamic", "slice", "take", "gather", "pad", "repeat", "tile", "flip", "squeeze"}
_MOVES |= {"broadcast", "to", "expand", "dims", "stack", "scatter", "elements", "nd", "permute", "reshape", "layout", "transform", "cast"}
#: Why no template takes a kernel with such an operator, the most expensive kind first.
_WHY = (
    (r"conv[123]d_transpose", "no template has this transposed convolution"),
    (r"conv", "no template has this combination of kernel, stride, groups and dilation"),
    (r"matmul", "templates multiply two activations in float32 alone"),
    (r"softmax|_norm", "no template normalises in this way"),
    (r"non_max_suppression|places_of_true", "it selects elements one after another, in plain loops without a choice of schedules"),
    (r"topk|order|sort|cumsum|argmax|argmin|nonzero|unique", "it compares or sums elements one after another"),
    (r"pool", "no template has a window of this shape"),
    (r"resize|grid_sample", "no template resizes in this way"),
    (r"mean|variance|std|sum|prod|max(?!imum)|min(?!imum)", "it reduces other axes than all pixels of an image"),
)


@dataclass(frozen=True)
class UsedKernel:
    """A kernel at one place in a network.

    Attributes:
        name: name of its task.
        fallback: no template takes it.
        macs: its multiply-adds.
        latency_us: the kernel's latency in microseconds; `None` where it is not known.
    """

    name: str
    fallback: bool
    macs: int
    latency_us: float | None


@dataclass(frozen=True)
class _Total:
    """The runs of one kernel: number, multiply-adds, and time in microseconds if it is known."""

    name: str
    calls: int
    macs: int
    latency_us: float | None


def used_kernels(variants: Iterable[VariantResult]) -> list[UsedKernel]:
    """Return the kernels of timed libraries."""
    return [
        UsedKernel(kernel.name, kernel.fallback, kernel.macs, kernel_us(variant, kernel))
        for variant in variants
        for kernel in variant.kernels
    ]


def fallback_lines(kernels: Sequence[UsedKernel]) -> list[str]:
    """Return sentences on kernels that no template takes: their number and cost, then the most expensive, each with a reason."""
    others = [kernel for kernel in kernels if kernel.fallback]
    if not others:
        return []
    time_us = _sum_us(kernels)
    macs = sum(kernel.macs for kernel in kernels)
    totals = sorted(
        map(_total, _by_name(others)), key=lambda total: (-(total.latency_us or 0.0) if time_us else 0.0, -total.macs, total.name)
    )
    names = len({kernel.name for kernel in kernels})
    whole = _cost(_sum_us(others), sum(kernel.macs for kernel in others), time_us, macs)
    first = f"No template takes {len(totals)} of {plural(names, 'kernel')}, which use MetaSchedule's schedules: {whole}."
    lines = [
        f"{total.name}{f' ({total.calls} times)' if total.calls > 1 else ''}: "
        f"{_cost(total.latency_us, total.macs, time_us, macs)}; {why_no_template(total.name)}."
        for total in totals[:_MOST]
    ]
    left = len(totals) - _MOST
    return [first, *lines, *([f"{plural(left, 'kernel')} without a template cost less."] if left > 0 else [])]


def why_no_template(name: str) -> str:
    """Return the reason why no template takes a kernel of this name, in words."""
    operators = _BEHIND_OPERATOR.sub("", name)
    for pattern, why in _WHY:
        if re.search(pattern, operators):
            return why
    if set(operators.split("_")) <= _MOVES:
        return "it only moves data"
    return "it works element by element, and no layer in front of it computes it as well"


def _cost(latency_us: float | None, macs: int, all_us: float | None, all_macs: int) -> str:
    share = f"{percent(latency_us / all_us)} % of the time and " if all_us and latency_us is not None else ""
    return f"{share}{millions(macs)} M multiply-adds" + (f" ({percent(macs / all_macs)} % of them)" if all_macs else "")


def _by_name(kernels: Iterable[UsedKernel]) -> list[list[UsedKernel]]:
    found: dict[str, list[UsedKernel]] = {}
    for kernel in kernels:
        found.setdefault(kernel.name, []).append(kernel)
    return list(found.values())


def _total(runs: Sequence[UsedKernel]) -> _Total:
    return _Total(runs[0].name, len(runs), sum(run.macs for run in runs), _sum_us(runs))


def _sum_us(kernels: Sequence[UsedKernel]) -> float | None:
    """Return the sum of kernels' times; `None` if one is not known."""
    known = [kernel.latency_us for kernel in kernels if kernel.latency_us is not None]
    return math.fsum(known) if len(known) == len(kernels) else None
