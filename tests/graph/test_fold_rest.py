"""Tests of what Relax folds where `fold_constants` does not know an operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tvmmobile.graph.bindings import bindings_of
from tvmmobile.graph.passes.fold_rest import fold_rest


def module_of(values: Callable[[Any, Any], list[Any]]) -> Any:
    """Return a module whose `main` binds these values of its input; `values` gets the block builder, too."""
    from tvm import relax

    builder, image = relax.BlockBuilder(), relax.Var("image", relax.TensorType((2,), "float32"))
    with builder.function("main", [image]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.add(*values(builder, image)))
        builder.emit_func_output(result)
    return builder.get()


def test_nothing_is_done_without_constant_expressions() -> None:
    from tvm import relax

    module = module_of(lambda builder, image: [builder.emit(relax.op.exp(image)), relax.const(np.ones(2, np.float32))])
    assert fold_rest(module).same_as(module)


@pytest.mark.parametrize("depth", [1, 2])
def test_constant_expressions_are_folded(depth: int) -> None:
    from tvm import relax

    def values(builder: Any, image: Any) -> list[Any]:
        computed = relax.const(np.ones(2, np.float32))
        for _ in range(depth):
            computed = builder.emit(relax.op.exp(computed))
        return [image, computed]

    (binding,) = bindings_of(fold_rest(module_of(values))["main"])
    expected = np.exp(1) if depth == 1 else np.exp(np.exp(1))
    assert binding.value.args[1].value.numpy() == pytest.approx(expected, rel=1e-6)


def test_an_expression_without_operands_is_constant() -> None:
    from tvm import relax

    module = module_of(lambda builder, image: [image, builder.emit(relax.op.zeros((2,), "float32"))])
    (binding,) = bindings_of(fold_rest(module)["main"])
    assert not binding.value.args[1].value.numpy().any()


def test_shapes_of_tensors_are_constant() -> None:
    """Exporters compute with them; what is not folded is a kernel without inputs."""
    from tvm import relax

    def values(builder: Any, image: Any) -> list[Any]:
        shape = builder.emit(relax.op.shape_of(image))
        return [relax.const(1, "int64"), builder.emit(relax.op.shape_to_tensor(shape))]

    assert not list(bindings_of(fold_rest(module_of(values))["main"]))
