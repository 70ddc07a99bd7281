"""Gives calls options as keywords, with the right types, `inspect.signature` and `help`."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast, get_args, get_type_hints

from tvmmobile.pipeline.listener import QUIET, check_listener
from tvmmobile.pipeline.options.option import Option, Options, options_of
from tvmmobile.system.errors import UserError
from tvmmobile.system.plugins import load_plugins

Call = TypeVar("Call", bound=Callable[..., Any])


def with_options(*kinds: type[Options], name: str = "") -> Callable[[Call], Call]:
    """Accept the options of some objects, and no others, in a function with typed `**options`.

    Its signature lists them, and so does its documentation in place of a line `options: …`. Errors name the keywords.

    Args:
        kinds: the objects.
        name: the users' name of the function, if it is another one.
    """

    def decorate(function: Call) -> Call:
        options = [each for _, each in options_of(*kinds)]
        signature = inspect.signature(function)  # not evaluated: PyTorch's types are not imported
        *own, arguments = signature.parameters.values()
        types = get_type_hints(*get_args(eval(arguments.annotation, function.__globals__)))
        added = [_parameter(option, types[option.keyword]) for option in options]
        # A function's own keywords, such as a listener, come last.
        signature = signature.replace(parameters=sorted([*added, *own], key=lambda each: (each.kind, each in own)))

        @wraps(function)
        def call(*given: Any, **named: Any) -> Any:
            try:
                signature.bind(*given, **named)
            except TypeError as error:
                raise TypeError(f"{call.__name__}() {error}") from None
            load_plugins()
            try:
                check_listener(named.get("listener", QUIET))
                return function(*given, **named)
            except UserError as error:
                error.keywords = error.keywords or frozenset(signature.parameters)
                raise

        call.__name__ = name or function.__name__
        call.__doc__ = re.sub(r"^( *)options: .*\n", lambda line: _documented(options, line[1]), function.__doc__ or "", flags=re.MULTILINE)
        call.__signature__ = signature  # type: ignore[attr-defined]
        return cast(Call, call)

    return decorate


def _parameter(option: Option, kind: Any) -> inspect.Parameter:
    return inspect.Parameter(option.keyword, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=kind)


def _documented(options: Sequence[Option], indent: str) -> str:
    """Return lines of a docstring's arguments."""
    texts = [f"{option.keyword}: {option.api_doc}" for option in options]
    return "".join(f"{textwrap.fill(text, 140, initial_indent=indent, subsequent_indent=f'{indent}    ')}\n" for text in texts)
