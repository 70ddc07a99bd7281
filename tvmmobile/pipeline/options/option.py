"""An option: what the keyword of a Python call, the words of the command line, and the documentation of both are made from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, Self, get_type_hints

from tvmmobile.system.errors import UserError
from tvmmobile.system.keywords import in_calls


class HelpOrder(IntEnum):
    """Position of an option in `--help`; options of one group keep the order in which they are declared."""

    NETWORK, TRIALS, NUMBERS, OUT, WEIGHTS, LOGS, DEVICE, RUN, FILES, SEARCH = range(10)


def as_given(value: Any) -> Any:
    """Return the value itself."""
    return value


@dataclass(frozen=True)
class Option:
    """A choice of the user.

    Attributes:
        default: default in calls.
        words: flags on the command line, and a name for the value, such as `--threads, --num-threads N`; "" for calls alone.
        help: help text of the command line.
        order: position in `--help`, if it does not follow the field before.
        keyword: keyword in calls, if it is not the field's name.
        kind: type of the command line's value, if it is neither the default's nor the field's.
        typed: the default of the command line, if it is not that of calls.
        more: further options of the command line that belong to it.
        settings: others that `typer.Option` takes.
        join: makes the keyword's value of those of the command line.
        read: makes the field's value of the keyword's; raises `UserError` for one that is not known.
        about: documentation in calls, if it is not `help`.
    """

    default: Any
    words: str = ""
    help: str = ""
    order: HelpOrder = HelpOrder.NETWORK
    keyword: str = ""
    kind: Any = None
    typed: Any = ...
    more: tuple[Option, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    join: Callable[..., Any] = as_given
    read: Callable[[Any], Any] = as_given
    about: str = ""

    @property
    def flags(self) -> list[str]:
        """The flags as they are typed."""
        return [word for word in self.words.replace(",", "").split() if word.startswith("-")]

    @property
    def metavar(self) -> str | None:
        """The placeholder for its value in `--help`."""
        return next((word for word in self.words.split() if not word.startswith("-")), None)

    @property
    def parameter(self) -> str:
        """The name of the command line's value."""
        return self.flags[-1].lstrip("-").replace("-", "_")

    @property
    def on_command_line(self) -> tuple[Option, ...]:
        """The option and its `more`, if the command line has them."""
        return (self, *self.more) if self.words else ()

    def checked(self, value: Any) -> Any:
        """Return a call's value; raise `UserError` where it is outside the limits that `settings` have."""
        least, most = self.settings.get("min"), self.settings.get("max")
        if least is not None and value is not None and not value >= least:
            raise UserError(f"{self.flags[0]} {value} is too small.", f"Give {self.flags[0]} {least} or more.")
        if most is not None and value is not None and not value <= most:
            raise UserError(f"{self.flags[0]} {value} is too large.", f"Give {self.flags[0]} {most} or less.")
        return value


def option(default: Any, words: str = "", help: str = "", **others: Any) -> Any:  # noqa: A002
    """Declare a field of `Options`; see `Option`."""
    made = Option(default, words, help, **others)
    return field(default=made.read(default), metadata={"option": made})


def option_of(kind: type[Options], name: str, **others: Any) -> Any:
    """Declare a field as another object has it, but for `others`."""
    made = replace(kind.__dataclass_fields__[name].metadata["option"], **others)
    return field(default=made.read(made.default), metadata={"option": made})


@dataclass(frozen=True)
class Options:
    """Options that belong together, as the program has them; `options_of` lists them as users write them."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Read a call's keywords, and leave others alone; raise `UserError` for a value that is not known, or too small."""
        return cls(**{name: each.read(each.checked(given[each.keyword])) for name, each in options_of(cls) if each.keyword in given})


def options_of(*kinds: type[Options]) -> Iterator[tuple[str, Option]]:
    """Yield the options of some objects with everything filled in, each with the name of its field."""
    for kind in kinds:
        types, order = get_type_hints(kind), HelpOrder.NETWORK
        for each in fields(kind):
            found: Option = each.metadata["option"]
            order, keyword = max(order, found.order), found.keyword or each.name
            own = found.kind or (types[each.name] if found.default is None else type(found.default))
            typed = found.default if found.typed is ... else found.typed
            about = found.about or re.sub(r"\bDIR\b", f"`{keyword}`", in_calls(found.help))
            yield each.name, replace(found, order=order, keyword=keyword, kind=own, typed=typed, about=about)
