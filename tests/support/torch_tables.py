"""PyTorch's tables of operators, made once a process instead of for each export.

Before PyTorch decomposes a program, it looks at every operator that is registered, and replaces 20 kernels of each of 500 of them. Both
take 0.14 s, a third of what a test needs to export and import a network of a few layers, and have the same result as long as nobody
registers an operator.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


def keep_torch_tables() -> None:
    """Keep the tables in this process from now on, if it has imported what makes them."""
    if "torch.export.exported_program" in sys.modules:
        _keep()


@cache
def _keep() -> None:
    from torch.export import decomp_utils, exported_program

    collect = _kept_operators(exported_program._collect_all_valid_cia_ops)
    exported_program._collect_all_valid_cia_ops = decomp_utils._collect_all_valid_cia_ops = collect
    exported_program._override_composite_implicit_decomp = _kept_kernels(exported_program._override_composite_implicit_decomp)


def _kept_operators(collect: Callable[[], set[Any]]) -> Callable[[], set[Any]]:
    """`collect`, called again only when an operator was registered."""
    import torch

    last: tuple[Any, set[Any]] = (None, set())

    def kept() -> set[Any]:
        nonlocal last
        registered = {name: len(getattr(space, "__dict__", ())) for name, space in vars(torch.ops).items()}
        if last[0] != registered:
            last = registered, collect()
        return last[1]

    return kept


def _kept_kernels(override: Callable[[dict[Any, Any]], Any]) -> Callable[[dict[Any, Any]], Any]:
    """`override`, whose kernels and rules are put in place again when it is called for the same decompositions of the same operators."""
    from torch._subclasses.fake_impls import op_implementations_dict as rules

    last: tuple[Any, ...] = (None, None, {}, {})

    @contextmanager
    def kept(decompositions: dict[Any, Any]) -> Iterator[None]:
        nonlocal last
        before = {operator: operator.py_kernels.copy() for operator in decompositions}
        if last[:2] != (decompositions, before):
            with override(decompositions):
                kernels = {operator: operator.py_kernels.copy() for operator in decompositions}
                last = decompositions.copy(), before, kernels, {operator: rules[operator] for operator in decompositions}
                yield
            return
        _, _, kernels, own = last
        _replace_kernels(kernels)
        rules.update(own)
        try:
            yield
        finally:
            _replace_kernels(before)
            for operator in own:
                rules.pop(operator, None)

    return kept


def _replace_kernels(kernels: dict[Any, dict[Any, Any]]) -> None:
    for operator, own in kernels.items():
        operator.py_kernels.clear()
        operator.py_kernels.update(own)
        operator._dispatch_cache.clear()
