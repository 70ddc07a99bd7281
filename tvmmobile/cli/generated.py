"""Options of the command line, made of the objects in `pipeline.options`."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, get_args

import typer
from typer.models import OptionInfo

from tvmmobile.pipeline.options.option import Options, Place, Word, options_of


def word_of(kind: type[Options], field: str) -> OptionInfo:
    """The option for a field, for a verb that has no other of its object."""
    return _as_typer(dict(options_of(kind))[field].words[0])


def takes(*kinds: type[Options]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the options of some objects, each in its place; it gets them as `**chosen`, by the keywords that calls have."""
    options = [each for _, each in options_of(*kinds) if each.words]

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(verb, eval_str=True)
        own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        made = [_parameter(word, option.place) for option in options for word in option.words]
        signature = signature.replace(parameters=sorted([*own, *made], key=_place))

        @wraps(verb)
        def command(**given: Any) -> None:
            chosen = {each.keyword: each.join(*(given.pop(word.name) for word in each.words)) for each in options}
            verb(**given, **chosen)

        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
        return command

    return decorate


def _as_typer(word: Word) -> OptionInfo:
    found: OptionInfo = typer.Option(*word.flags, **word.settings)
    return found


def _parameter(word: Word, place: Place) -> inspect.Parameter:
    annotation: Any = operator.getitem(Annotated, (word.kind, _as_typer(word), place))
    return inspect.Parameter(word.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=word.default, annotation=annotation)


def _place(parameter: inspect.Parameter) -> Place:
    """Where its annotation says that it stands; without that, among the first."""
    return next((each for each in get_args(parameter.annotation) if isinstance(each, Place)), Place.NETWORK)
