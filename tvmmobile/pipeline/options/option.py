"""An option: the source of a Python call's keyword, the command line's words, and the documentation of both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from numbers import Integral, Real
from types import NoneType
from typing import Any, Self, get_args, get_type_hints

from tvmmobile.system.arguments import one_or_several
from tvmmobile.system.errors import UserError, shown
from tvmmobile.system.keywords import in_calls


class HelpOrder(IntEnum):
    """Position of an option in `--help`; options of one group keep the order in which they are declared."""

    NETWORK, TRIALS, NUMBERS, OUT, WEIGHTS, LOGS, DEVICE, RUN, FILES, SEARCH = range(10)


def identity(value: Any) -> Any:
    """Return the value itself."""
    return value


@dataclass(frozen=True)
class Option:
    """A choice of the user.

    Its value has up to three forms: the command line's, a call's keyword (`from_cli` converts the first to it), and the field's, which the
    program uses (`parse` converts the second to it).

    Attributes:
        default: default in calls.
        usage: flags on the command line, and a name for the value, such as `--threads, --num-threads N`; "" for calls alone.
        help: help text of the command line.
        order: position in `--help`, if it does not follow the field before.
        keyword: keyword in calls, if it is not the field's name.
        cli_type: type of the command line's value, if it is neither the default's nor the field's.
        cli_default: default of the command line, if it is not that of calls.
        extra_cli_options: further options of the command line, whose values `from_cli` takes as well.
        typer_settings: others that `typer.Option` takes; `min` and `max` hold for calls, too.
        from_cli: makes the keyword's value of those of the command line.
        parse: makes the field's value of the keyword's; raises `UserError` for one that is not known.
        api_doc: documentation in calls, if it is not `help`.
    """

    default: Any
    usage: str = ""
    help: str = ""
    order: HelpOrder = HelpOrder.NETWORK
    keyword: str = ""
    cli_type: Any = None
    cli_default: Any = ...
    extra_cli_options: tuple[Option, ...] = ()
    typer_settings: Mapping[str, Any] = field(default_factory=dict)
    from_cli: Callable[..., Any] = identity
    parse: Callable[[Any], Any] = identity
    api_doc: str = ""

    @property
    def flags(self) -> list[str]:
        """The flags as they are typed."""
        return [word for word in self.usage.replace(",", "").split() if word.startswith("-")]

    @property
    def metavar(self) -> str | None:
        """The placeholder for its value in `--help`."""
        return next((word for word in self.usage.split() if not word.startswith("-")), None)

    @property
    def cli_parameter(self) -> str:
        """The name of the command line's value."""
        return self.flags[-1].lstrip("-").replace("-", "_")

    @property
    def cli_options(self) -> tuple[Option, ...]:
        """The option and its extra ones, if the command line has them."""
        return (self, *self.extra_cli_options) if self.usage else ()

    @property
    def takes_numbers(self) -> type[Integral] | type[Real] | None:
        """The numbers that a call's value must be among; `None` for an option that takes others as well."""
        if self.parse is not identity:
            return None
        kinds = {kind for kind in get_args(self.cli_type) or (self.cli_type,) if kind is not NoneType}
        return {frozenset({int}): Integral, frozenset({float}): Real}.get(frozenset(kinds))

    def checked(self, value: Any) -> Any:
        """Return a call's value; raise `UserError` where it is not a number, or outside the limits in `typer_settings`."""
        if self.takes_numbers and value is not None and not isinstance(value, self.takes_numbers):
            named = f"--{self.keyword.replace('_', '-')}"
            wanted = "a whole number" if self.takes_numbers is Integral else "a number"
            raise UserError(f"{named} takes {wanted}, not {shown(value)}.", f"Give {named} {wanted}.")
        if self.takes_numbers is Integral and value is not None:
            value = int(value)  # NumPy's cannot be written to JSON
        least, most = self.typer_settings.get("min"), self.typer_settings.get("max")
        if least is not None and value is not None and not value >= least:
            raise UserError(f"{self.flags[0]} {value} is too small.", f"Give {self.flags[0]} {least} or more.")
        if most is not None and value is not None and not value <= most:
            raise UserError(f"{self.flags[0]} {value} is too large.", f"Give {self.flags[0]} {most} or less.")
        return value


def option(default: Any, usage: str = "", help: str = "", **others: Any) -> Any:  # noqa: A002
    """Declare a field of `Options`; see `Option`."""
    declared = Option(default, usage, help, **others)
    return field(default=declared.parse(default), metadata={"option": declared})


def option_of_several(default: tuple[Any, ...], usage: str, help: str, of: type = str, **others: Any) -> Any:  # noqa: A002
    """Declare a field of one value or several, as calls have them; the command line gives its flag for each."""
    own = {"cli_type": list[of] | None, "cli_default": None, "from_cli": lambda given: given or default, "parse": one_or_several}  # type: ignore[valid-type]
    return option(default, usage, help, **{**own, **others})


def option_of(kind: type[Options], name: str, **others: Any) -> Any:
    """Declare a field like one of another object, except for `others`."""
    declared = replace(kind.__dataclass_fields__[name].metadata["option"], **others)
    return field(default=declared.parse(declared.default), metadata={"option": declared})


@dataclass(frozen=True)
class Options:
    """A group of options in the form that the program uses; `options_of` lists them in the form that users write."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Read a call's keywords, ignoring others; raise `UserError` for an unknown value or one that is too small."""
        return cls(**{name: each.parse(each.checked(given[each.keyword])) for name, each in options_of(cls) if each.keyword in given})


def options_of(*kinds: type[Options]) -> Iterator[tuple[str, Option]]:
    """Yield the options of some objects with everything filled in, each with the name of its field."""
    for kind in kinds:
        types, order = get_type_hints(kind), HelpOrder.NETWORK
        for each in fields(kind):
            found: Option = each.metadata["option"]
            order, keyword = max(order, found.order), found.keyword or each.name
            cli_type = found.cli_type or (types[each.name] if found.default is None else type(found.default))
            cli_default = found.default if found.cli_default is ... else found.cli_default
            api_doc = found.api_doc or re.sub(r"\bDIR\b", f"`{keyword}`", in_calls(found.help))
            filled_in = {"order": order, "keyword": keyword, "cli_type": cli_type, "cli_default": cli_default, "api_doc": api_doc}
            yield each.name, replace(found, **filled_in)
