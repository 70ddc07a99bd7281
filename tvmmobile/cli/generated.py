"""Options of the command line, made of the objects in `pipeline.options`."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any, get_args

import typer
from typer.models import OptionInfo

from tvmmobile.pipeline.options.option import HelpOrder, Option, Options, options_of


def word_of(kind: type[Options], field: str) -> OptionInfo:
    """Return the option for a field, for a verb that has no other of its object."""
    return _as_typer(dict(options_of(kind))[field])


def with_cli_options(*kinds: type[Options], **whole: type[Options]) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Give a verb the options of some objects, each in its position.

    Args:
        kinds: classes whose options the verb gets as `**chosen`, by the keywords that calls have.
        whole: those that it gets as objects.
    """

    def decorate(verb: Callable[..., int | None]) -> Callable[..., int | None]:
        signature = inspect.signature(verb, eval_str=True)
        own = [parameter for parameter in signature.parameters.values() if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        added = [_parameter(typed, each.order) for _, each in options_of(*kinds, *whole.values()) for typed in each.cli_options]
        signature = signature.replace(parameters=sorted([*own, *added], key=_order))

        @wraps(verb)
        def command(**given: Any) -> int | None:
            objects = {name: kind.of(_keywords(given, kind)) for name, kind in whole.items()}
            return verb(**{each.name: given[each.name] for each in own}, **objects, **_keywords(given, *kinds))

        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
        return command

    return decorate


def _keywords(given: Mapping[str, Any], *kinds: type[Options]) -> dict[str, Any]:
    """Return the keywords of a call that is equivalent to the command line."""
    options = [each for _, each in options_of(*kinds) if each.usage]
    return {option.keyword: option.from_cli(*(given[typed.cli_parameter] for typed in option.cli_options)) for option in options}


def _as_typer(option: Option) -> OptionInfo:
    found: OptionInfo = typer.Option(*option.flags, metavar=option.metavar, help=option.help, **option.typer_settings)
    return found


def _parameter(option: Option, order: HelpOrder) -> inspect.Parameter:
    annotation: Any = operator.getitem(Annotated, (option.cli_type, _as_typer(option), order))
    return inspect.Parameter(
        option.cli_parameter, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=option.cli_default, annotation=annotation
    )


def _order(parameter: inspect.Parameter) -> HelpOrder:
    """Return the position that an option's annotation names; without one, the first."""
    return next((argument for argument in get_args(parameter.annotation) if isinstance(argument, HelpOrder)), HelpOrder.NETWORK)
