"""Winograd's form of Strassen's algorithm: a product of 2×2 blocks as seven products of sums, in an order that saves sums and memory.

S. Winograd's variant of V. Strassen, "Gaussian elimination is not optimal", 1969: seven products, four sums of blocks of A, four of W (made
once, on the host), and sums of the products. These are formed where the products are: a product goes into the accumulators of the block
of C, its base, and what the base holds then is copied to the other blocks that need it.
"""

from __future__ import annotations

from dataclasses import dataclass

#: A block of a 2×2 partition: (row, column).
Block = tuple[int, int]
#: Blocks with their signs.
Terms = tuple[tuple[Block, int], ...]

_11, _12, _21, _22 = (0, 0), (0, 1), (1, 0), (1, 1)


@dataclass(frozen=True)
class SubProduct:
    """One product of a sum of blocks of A and a sum of blocks of W, and where it goes.

    Attributes:
        a: blocks of A to add.
        previous: sign of the sum of A that the step before used, which this one's begins with; 0 for none.
        w: blocks of W to add.
        base: the block of C to which the product is added. The first that is added to a block is stored instead.
        copies: blocks of C to which the base's value is added when it has all of the product.
    """

    a: Terms
    previous: int
    w: Terms
    base: Block
    copies: tuple[Block, ...] = ()


#: Steps of a group are done together for each block of K and pixels. No base in the second row depends on the first row's blocks of C, so
#: that rows of these need not be computed. The next use of a block is seldom far away, so that the second-level cache has it still.
GROUPS = (
    (SubProduct(((_11, 1),), 0, ((_11, 1),), _21, (_11,)),),
    (SubProduct(((_12, 1),), 0, ((_21, 1),), _11),),
    (
        SubProduct(((_21, 1), (_22, 1)), 0, ((_12, 1), (_11, -1)), _22, (_12,)),
        SubProduct(((_11, -1),), 1, ((_22, 1), (_12, -1), (_11, 1)), _21, (_12,)),
        SubProduct(((_12, 1),), -1, ((_22, 1),), _12),
    ),
    (SubProduct(((_11, 1), (_21, -1)), 0, ((_22, 1), (_12, -1)), _21, (_22,)),),
    (SubProduct(((_22, 1),), 0, ((_21, 1), (_22, -1), (_12, 1), (_11, -1)), _21),),
)
STEPS = tuple(step for group in GROUPS for step in group)


def finishes(step: SubProduct, block: Block) -> bool:
    """Whether a block of C is complete after this step."""
    return block in (step.base, *step.copies) and not any(block in (later.base, *later.copies) for later in STEPS[STEPS.index(step) + 1 :])
