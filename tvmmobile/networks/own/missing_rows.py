"""Describes tensors with missing rows: those whose number of rows is known only at run time, such as selected boxes.

Such a tensor has its greatest number of rows. Valid rows come first, and an int64 tensor `[1]` counts them; the rows behind hold anything,
and only operators that work row by row read them. Before an operator that takes rows together, such as a maximum, they are replaced by a
number that changes nothing. Outputs are filled up, and each is followed by a second output with its number of valid rows.

Each format knows what its operators do to such rows: see `onnx/rows.py` and `pt2/missing_rows.py`.
"""

from __future__ import annotations

from tvmmobile.system.errors import UserError


def unsupported_rows(what: str) -> UserError:
    """Return the error for an operator that cannot handle missing rows."""
    return UserError(
        f"{what} reads boxes or places whose number is known only at run time, in a way that is not supported.",
        "Leave it out of the network, and what follows it.",
    )
