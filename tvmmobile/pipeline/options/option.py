"""An option: what the keyword of a Python call, the words of the command line, and the documentation of both are made from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, Self, get_type_hints


class Place(IntEnum):
    """Where an option stands in `--help`; those of one place keep the order in which they are declared."""

    NETWORK, TRIALS, NUMBERS, OUT, WEIGHTS, LOGS, DEVICE, RUN, FILES, SEARCH = range(10)


@dataclass(frozen=True)
class Word:
    """An option of the command line.

    Attributes:
        flags: as they are typed, such as `--threads`.
        kind: its type, as Typer reads it.
        settings: `help`, `metavar` and others of `typer.Option`.
    """

    flags: tuple[str, ...]
    kind: Any
    default: Any
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name as a parameter."""
        return self.flags[-1].lstrip("-").replace("-", "_")


def word(*flags: str, kind: Any, default: Any = None, **settings: Any) -> Word:
    """A word that an option has besides the first; see `Word`."""
    return Word(flags, kind, default, settings)


@dataclass(frozen=True)
class Option:
    """A choice of the user.

    Attributes:
        keyword: its name in calls.
        default: in calls.
        place: in `--help`.
        words: on the command line; none for an option of calls alone.
        join: makes the keyword's value of the words' values.
        read: makes the program's value of the keyword's; raises `UserError` for one that is not known.
        about: documentation in calls.
    """

    keyword: str
    default: Any
    place: Place
    words: tuple[Word, ...]
    join: Callable[..., Any]
    read: Callable[[Any], Any]
    about: str


def as_given(value: Any) -> Any:
    """The value itself."""
    return value


def option(
    default: Any,
    place: Place,
    *flags: str,
    keyword: str = "",
    kind: Any = None,
    typed: Any = ...,
    more: tuple[Word, ...] = (),
    join: Callable[..., Any] = as_given,
    read: Callable[[Any], Any] = as_given,
    about: str = "",
    **settings: Any,
) -> Any:
    """A field of `Options`, whose default is what `read` makes of the user's.

    Args:
        default, place, join, read: see `Option`.
        flags, settings: of its first word, see `Word`.
        keyword: in calls, if it is not the field's name.
        kind: of the first word, if it is neither the default's nor the field's.
        typed: the default of the first word, if it is not that of calls.
        more: its other words.
        about: documentation in calls, if it is not the first word's help.
    """
    words = (Word(flags, kind, default if typed is ... else typed, settings), *more) if flags else ()
    return field(default=read(default), metadata={"option": Option(keyword, default, place, words, join, read, about)})


@dataclass(frozen=True)
class Options:
    """Options that belong together, as the program has them; `options_of` lists them as users write them."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Read a call's keywords, and leave others alone; raises `UserError` for a value that is not known."""
        return cls(**{name: each.read(given[each.keyword]) for name, each in options_of(cls) if each.keyword in given})


def options_of(*kinds: type[Options]) -> Iterator[tuple[str, Option]]:
    """The options of some objects as users write them, each with the name of its field."""
    for kind in kinds:
        types = get_type_hints(kind)
        for each in fields(kind):
            found: Option = each.metadata["option"]
            own = types[each.name] if found.default is None else type(found.default)
            words = tuple(replace(one, kind=one.kind or own) for one in found.words)
            keyword = found.keyword or each.name
            yield each.name, replace(found, keyword=keyword, words=words, about=found.about or _in_calls(words[0], keyword))


def _in_calls(word: Word, keyword: str) -> str:
    """The help of the command line in the words of a call: `dump_ir` for --dump-ir, and for DIR."""
    text = re.sub(r"--([a-z]+(?:-[a-z]+)*)", lambda found: f"`{found[1].replace('-', '_')}`", word.settings["help"])
    return re.sub(r"\bDIR\b", f"`{keyword}`", text)
