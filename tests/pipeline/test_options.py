"""Options: the command line, calls and the objects that the program uses agree on each one."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import tvmmobile as tm
from tvmmobile.cli.network import NetworkOptions
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.precision import FLOAT16, FLOAT32
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.options.option import Option, Options, as_given, options_of
from tvmmobile.pipeline.options.run import CompileArguments, CompileOptions, RunOptions
from tvmmobile.pipeline.options.search import SearchOptions, TuneArguments
from tvmmobile.system.errors import UserError

KINDS = (LibraryOptions, RunOptions, CompileOptions, SearchOptions)
EVERY = [(kind, name, option) for kind in KINDS for name, option in options_of(kind)]


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [(CompileArguments, (LibraryOptions, CompileOptions)), (TuneArguments, (LibraryOptions, RunOptions, SearchOptions))],
)
def test_type_checkers_see_the_keywords_that_there_are(arguments: type[Any], kinds: tuple[type[Options], ...]) -> None:
    typed, options = get_type_hints(arguments), [(get_type_hints(kind)[name], each) for kind in kinds for name, each in options_of(kind)]
    assert typed.keys() == {option.keyword for _, option in options}
    assert all(typed[option.keyword] == kind for kind, option in options if option.read is as_given)


@pytest.mark.parametrize(("kind", "name", "option"), EVERY, ids=lambda value: value if isinstance(value, str) else "")
def test_defaults_agree(kind: type[Options], name: str, option: Option) -> None:
    """Of the object, of calls, and of the command line, which alone has a folder for results."""
    assert kind.of({option.keyword: option.default}) == kind.of({}) == kind()
    typed = option.join(*(each.typed for each in option.on_command_line)) if option.words else option.default
    assert typed == (Path("out") if name == "out" else option.default)


def test_options_are_read_as_they_are_given() -> None:
    given = {"dtype": "float16", "keep": ["a", "b"], "calibrate": Path("photos"), "logs": "logs", "trials": 3}
    assert LibraryOptions.of(given) == LibraryOptions(precision=FLOAT16, io_precision=FLOAT32, keep=("a", "b"), calibrate="photos")
    assert RunOptions.of(given) == RunOptions(logs=Path("logs")) and SearchOptions.of(given) == SearchOptions(trials=3)
    assert pickle.loads(pickle.dumps(LibraryOptions.of(given))) == LibraryOptions.of(given)
    assert NetworkOptions.of(given) == NetworkOptions()


@pytest.mark.parametrize(("call", "arguments"), [(tm.compile, CompileArguments), (tm.tune, TuneArguments), (tm.plan_tuning, TuneArguments)])
def test_signatures_list_options_and_nothing_else_is_taken(call: Any, arguments: type[Any]) -> None:
    found = inspect.signature(call).parameters
    own = ("models", "device", "listener")
    assert {name: each.annotation for name, each in found.items() if name not in own} == get_type_hints(arguments)
    assert found["dtype"].default == "float32" and found["out"].default == ("out" if call is tm.plan_tuning else None)
    with pytest.raises(TypeError, match=f"^{call.__name__}\\(\\) got an unexpected keyword argument 'fast'$"):
        call(tm.load("mobilenet_v1"), fast=True)
    with pytest.raises(TypeError, match="models"):
        call()


def test_documentation_says_in_the_words_of_calls_what_options_do() -> None:
    said = inspect.getdoc(tm.tune) or ""
    assert "dump_ir: Write the Relax module after each graph pass to `dump_ir`." in said and "options:" not in said
    assert "fresh: Ignore all logs; start an empty one under `out`." in said
    assert all(f"    {option.keyword}: " in said for kind, _, option in EVERY if kind is not CompileOptions)


def test_a_single_layer_to_keep_is_not_its_letters() -> None:
    assert LibraryOptions.of({"keep": "conv*"}).keep == ("conv*",)


def test_a_library_has_a_thread() -> None:
    with pytest.raises(UserError, match="0 threads compute nothing"):
        LibraryOptions.of({"threads": 0}).check(find_device("pi4-virtual").profile)
