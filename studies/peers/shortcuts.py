"""Reads the shortcuts of our integer kernels by type of layer from a library's manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tvmmobile.system.markdown import markdown_table

#: Shares of output channels, 0 to 1, by type of layer and shortcut.
Shortcuts = Mapping[str, Mapping[str, float]]
#: Types of layers, in the table's order; the first layer is none of the others.
_FIRST, _POINTWISE, _DEPTHWISE, _DENSE, _OTHERS = "first", "1×1", "depthwise", "dense", "other convolutions"
_TYPES = (_POINTWISE, _DEPTHWISE, _FIRST, _DENSE, _OTHERS)
#: What the manifest calls them, and what the table does.
_TITLES = {
    "four_products": "four products added in 16 bits",
    "three_taps": "three taps added in 16 bits",
    "narrow": "smaller weights, for more of these",
    "unconverted": "sums not converted to floats",
    "scaled_at_once": "sums scaled by one instruction",
}
_IN_16_BITS = frozenset({"four_products", "three_taps"})
_SAID = """\
What a kernel can leave out depends on the weights. The table has the share of output channels that take each shortcut, in layers of one
type; "–" where kernels do not have it. Products are added by fours, or taps of a depthwise layer by threes, where the magnitudes of their
weights add up to at most 255; a channel with some such products counts by their share. Layers get *smaller weights* where few of their own
fit: 7 bits, or a coarser scale in depthwise ones. Sums below 2^22 whose results fit in 16 bits are *not converted*; in layers with more
than 256 products a sum, all are. *One instruction* scales, rounds and adds the zero point if sums are not converted, there is neither
residual nor curve, and integers are written.
"""


def shortcuts_of(manifest: Mapping[str, Any]) -> Shortcuts:
    """Return the shares in a library, weighted by channels; empty for one without integers, or older than these entries."""
    layers = [entry for entry in manifest.get("quantisation", {}).get("layers", ()) if "shortcuts" in entry]
    first = min((entry["number"] for entry in layers), default=0)
    members: dict[str, list[Mapping[str, Any]]] = {}
    for entry in layers:
        kind = _type_of(entry["kind"]) if entry["number"] != first else _FIRST
        if kind:
            members.setdefault(kind, []).append(entry)
    return {kind: _shares(members[kind]) for kind in _TYPES if kind in members}


def _type_of(kind: str) -> str:
    """Return the type of a layer by its manifest's kind; empty for one without weights."""
    if kind.startswith("conv "):
        return _POINTWISE if kind == "conv 1x1" else _OTHERS
    return _DEPTHWISE if kind.startswith("depthwise ") else _DENSE if kind == "fully connected" else ""


def _shares(entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Average over the channels of some layers, for each shortcut over those that have it at all."""
    found = {}
    for name in _TITLES:
        shares = [(entry["channels"], by_name[name]) for entry in entries if name in (by_name := _shares_of(entry))]
        if shares:
            found[name] = sum(count * share for count, share in shares) / sum(count for count, _ in shares)
    return found


def _shares_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the shares of a layer; smaller weights are a shortcut of kernels that add products in 16 bits."""
    found: dict[str, float] = entry["shortcuts"]
    return {**found, "narrow": float(entry.get("narrow", False))} if found.keys() & _IN_16_BITS else found


def section(found: Mapping[str, Shortcuts]) -> Iterator[str]:
    """Yield the section on shortcuts of a board's page, from shortcuts by variant; nothing if there are none."""
    found = {variant: shortcuts for variant, shortcuts in found.items() if shortcuts}
    if not found:
        return
    types = [kind for kind in _TYPES if any(kind in shortcuts for shortcuts in found.values())]
    lines = []
    for variant, shortcuts in found.items():
        for name, title in _TITLES.items():
            shares = [shortcuts.get(kind, {}).get(name) for kind in types]
            if any(share is not None for share in shares):
                lines.append([variant, title, *("–" if share is None else f"{100 * share:.0f} %" for share in shares)])
    yield from ("## Shortcuts of our integer kernels", "", _SAID)
    yield from markdown_table(("variant", "shortcut", *types), lines, 2)
    yield ""
