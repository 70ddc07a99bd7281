"""The table of operators: all exist in Relax, and each is in one line."""

from __future__ import annotations

import tvm
from tvm import relax

from tvmmobile.graph.operators import _TRAITS, _TRAITS_OF, Trait, has, operators_with


def test_every_operator_exists_and_is_named_once() -> None:
    assert len(_TRAITS_OF) == sum(len(names.split()) for names, _ in _TRAITS)
    known = set(tvm.ir.Op.list_op_names())
    assert set(_TRAITS_OF) <= known


def test_traits_of_calls() -> None:
    image = relax.Var("image", relax.TensorType((1, 3, 4, 4), "float32"))
    assert has(relax.op.add(image, image), Trait.ELEMENT_WISE | Trait.COMMUTATIVE)
    assert not has(relax.op.subtract(image, image), Trait.COMMUTATIVE)
    assert not has(image, Trait.ELEMENT_WISE)
    assert operators_with(Trait.MOVE) >= operators_with(Trait.RESHAPE)
