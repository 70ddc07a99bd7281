"""The table of all cores (`cores.toml`): their names, part numbers and kin, and what they offer kernels."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("cores.toml")


@dataclass(frozen=True)
class Core:
    """One row of the table; comments in `cores.toml` explain the keys.

    Attributes:
        place: rank among the cores, from small ones to large ones.
        group: number of the group of similar cores that it belongs to.
        in_order: starts instructions in the order of the program.
        names: names of the related cores that registered boards may have, by `implementer << 12 | part`.
        products: names of products with the core, by the same key.
        modelled_as: the core that virtual boards use for it, as in `Board.mcpu`, even if there is no such board.
        figures: fields of `Machine`; `None` where they are those of `mcpu`.
    """

    cpu: str
    place: int
    group: int
    in_order: bool
    parts: tuple[int, ...]
    kin: tuple[int, ...]
    names: Mapping[int, str]
    products: Mapping[int, str]
    mcpu: str
    modelled_as: str
    figures: Mapping[str, Any] | None


def llvm_name(cpu: str) -> str:
    """Return LLVM's name of a core, such as `cortex-a72` of `Cortex-A72`."""
    return cpu.lower().replace(" ", "-")


@functools.cache
def all_cores() -> tuple[Core, ...]:
    """Return all known cores, from small ones to large ones."""
    table = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    found: list[Core] = []
    for number, group in enumerate(table["group"]):
        in_order = group.get("in_order", False)
        for row in group["cores"]:
            found.append(_core(row, len(found), number, in_order, table["machine"]))
    return tuple(found)


def _core(row: dict[str, Any], place: int, group: int, in_order: bool, machines: Mapping[str, Any]) -> Core:
    own, machine = llvm_name(row["cpu"]), row.pop("machine", None)
    names = {name: row.pop(name, own) for name in ("mcpu", "modelled_as")}
    parts, kin = (tuple(row.pop(key, ())) for key in ("parts", "kin"))
    named, products = ({int(part, 16): name for part, name in row.pop(key, {}).items()} for key in ("names", "products"))
    cpu = row.pop("cpu")
    figures = None if machine is None else _figures(machine, machines) | row | {"in_order": in_order}
    return Core(cpu, place, group, in_order, parts, kin, named, products, **names, figures=figures)


def _figures(machine: str, machines: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table's figures, with defaults from the table that it names as `like`."""
    own = dict(machines[machine])
    like = own.pop("like", None)
    return own if like is None else _figures(like, machines) | own
