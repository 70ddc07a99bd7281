"""Options: the command line, calls and the objects that the program uses agree on each one."""

from __future__ import annotations

import inspect
import pickle
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest

import tvmmobile as tm
from tvmmobile.choosing.options import ChooseArguments, ChooseOptions
from tvmmobile.cli.network import Variants
from tvmmobile.devices.registry import find_device
from tvmmobile.gate import DEFAULT_THRESHOLD
from tvmmobile.graph.precision import FLOAT16, FLOAT32
from tvmmobile.native.source import RUNTIME
from tvmmobile.pipeline.options.compiled import (
    BenchArguments,
    BenchOptions,
    ComparisonOptions,
    DeployArguments,
    DeployOptions,
    EvaluateArguments,
    EvaluateOptions,
    RegressArguments,
    TimingArguments,
    TimingOptions,
)
from tvmmobile.pipeline.options.device import DeviceArguments, DeviceOptions
from tvmmobile.pipeline.options.library import MOST_C_THREADS, LibraryOptions
from tvmmobile.pipeline.options.network import NetworkArguments, NetworkOptions
from tvmmobile.pipeline.options.option import Option, Options, identity, options_of
from tvmmobile.pipeline.options.run import CompileArguments, CompileOptions, RunOptions
from tvmmobile.pipeline.options.search import SearchOptions, TuneArguments
from tvmmobile.pipeline.tune import _by_count
from tvmmobile.system.errors import UserError

CALLS = (LibraryOptions, RunOptions, SearchOptions)
KINDS = (
    *CALLS,
    CompileOptions,
    BenchOptions,
    ComparisonOptions,
    EvaluateOptions,
    DeployOptions,
    NetworkOptions,
    ChooseOptions,
    DeviceOptions,
)
EVERY = [(kind, name, option) for kind in KINDS for name, option in options_of(kind)]


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        (CompileArguments, (LibraryOptions, CompileOptions)),
        (TuneArguments, (LibraryOptions, RunOptions, SearchOptions)),
        (BenchArguments, (BenchOptions,)),
        (RegressArguments, (ComparisonOptions, TimingOptions)),
        (EvaluateArguments, (EvaluateOptions,)),
        (DeployArguments, (DeployOptions,)),
        (DeviceArguments, (DeviceOptions,)),
        (NetworkArguments, (NetworkOptions,)),
        (ChooseArguments, (ChooseOptions,)),
    ],
)
def test_type_checkers_see_the_keywords_that_there_are(arguments: type[Any], kinds: tuple[type[Options], ...]) -> None:
    typed, options = get_type_hints(arguments), [(get_type_hints(kind)[name], each) for kind in kinds for name, each in options_of(kind)]
    assert typed.keys() == {option.keyword for _, option in options}
    assert all(typed[option.keyword] == kind for kind, option in options if option.parse is identity)


@pytest.mark.parametrize(("kind", "name", "option"), EVERY, ids=lambda value: value if isinstance(value, str) else "")
def test_defaults_agree(kind: type[Options], name: str, option: Option) -> None:
    """The object, calls and the command line agree; the command line alone has a folder for results, and `choose` prints its own."""
    assert kind.of({option.keyword: option.default}) == kind.of({}) == kind()
    typed = option.from_cli(*(each.cli_default for each in option.cli_options)) if option.usage else option.default
    assert typed == (Path("out") if name == "out" and kind is not ChooseOptions else option.default)


def test_options_are_read_as_they_are_given() -> None:
    given = {"dtype": "float16", "keep": ["a", "b"], "calibrate": Path("photos"), "logs": "logs", "trials": 3}
    assert LibraryOptions.of(given) == LibraryOptions(precision=FLOAT16, io_precision=FLOAT32, keep=("a", "b"), calibrate="photos")
    assert RunOptions.of(given) == RunOptions(logs=Path("logs")) and SearchOptions.of(given) == SearchOptions(trials=3)
    assert pickle.loads(pickle.dumps(LibraryOptions.of(given))) == LibraryOptions.of(given)
    assert NetworkOptions.of(given) == NetworkOptions() and Variants.of(given) == Variants()


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (tm.compile, CompileArguments),
        (tm.tune, TuneArguments),
        (tm.plan_tuning, TuneArguments),
        (tm.bench, BenchArguments),
        (tm.CompiledLibrary.bench, BenchArguments),
        (tm.run, TimingArguments),
        (tm.regress, RegressArguments),
        (tm.evaluate, EvaluateArguments),
        (tm.deploy, DeployArguments),
        (tm.add_device, DeviceArguments),
        (tm.load, NetworkArguments),
        (tm.variants, NetworkArguments),
    ],
)
def test_signatures_list_options_and_nothing_else_is_taken(call: Any, arguments: type[Any]) -> None:
    found, options = inspect.signature(call).parameters, get_type_hints(arguments)
    assert {name: found[name].annotation for name in options} == options and not {"options", "fast"} & found.keys()
    first = next(iter(found))
    with pytest.raises(TypeError, match=f"^{call.__name__}\\(\\) got an unexpected keyword argument 'fast'$"):
        call(**{name: None for name, each in found.items() if each.default is inspect.Parameter.empty}, fast=True)
    with pytest.raises(TypeError, match=first):
        call()


def test_defaults_of_calls() -> None:
    found = inspect.signature(tm.tune).parameters
    assert found["dtype"].default == "float32" and found["out"].default is None
    assert inspect.signature(tm.plan_tuning).parameters == found
    assert (
        inspect.signature(tm.regress).parameters["threshold"].default
        == DEFAULT_THRESHOLD
        == inspect.signature(tm.compare).parameters["threshold"].default
    )


def test_documentation_says_in_the_words_of_calls_what_options_do() -> None:
    documentation = inspect.getdoc(tm.tune) or ""
    assert "dump_ir: Write the Relax module after each graph pass to `dump_ir`." in documentation and "options:" not in documentation
    assert "fresh: Ignore all logs; start an empty one under `out`." in documentation
    assert all(f"    {option.keyword}: " in documentation for _, option in options_of(*CALLS))


#: A value of each option that takes one or several.
ONE_OF_SEVERAL = {"dtypes": "float16", "threads": 4, "accuracy": "evaluation.json", "keep": "conv*", "stateful": "input=output"}


@pytest.mark.parametrize(("kind", "option"), [(kind, option) for kind, _, option in EVERY if isinstance(option.default, tuple)])
def test_one_value_is_a_list_of_that_value(kind: type[Options], option: Option) -> None:
    one = ONE_OF_SEVERAL[option.keyword]
    assert kind.of({option.keyword: one}) == kind.of({option.keyword: [one]}) != kind()
    assert kind.of({option.keyword: [one, one]}) != kind.of({option.keyword: one})


def test_a_library_has_a_thread() -> None:
    with pytest.raises(UserError, match="`threads=0` is not a number of threads"):
        LibraryOptions.of({"threads": 0})


@pytest.mark.parametrize("given", [{"repeat": 0}, {"warmup_runs": -1}])
def test_runs_to_time_are_counted_from_one(given: dict[str, Any]) -> None:
    """They are refused before the libraries are looked at, and in the words of the call."""
    ((name, value),) = given.items()
    for call in (tm.bench, tm.regress):
        with pytest.raises(UserError, match=f"^`{name}={value}` is too small") as caught:
            call([], "pi4-virtual", **given)
        assert caught.value.as_typed[0] == f"--{name.replace('_', '-')} {value} is too small."


def test_c_libraries_are_for_as_many_threads_as_their_runtime_takes() -> None:
    (most,) = re.findall(r"#define MOST_THREADS (\d+)", RUNTIME.read_text(encoding="utf-8"))
    assert int(most) == MOST_C_THREADS
    server = replace(find_device("pi4-virtual").profile, cores=64)
    for accepted in ({"threads": MOST_C_THREADS}, {"threads": 48, "format": "vm"}):
        LibraryOptions.of(accepted).check(server)
    with pytest.raises(UserError, match="at most 32 threads") as caught:
        LibraryOptions.of({"threads": 48}).check(server)
    assert caught.value.remedy == "Give `threads=32` or fewer."


@pytest.mark.parametrize(("form", "counts"), [("c", [1, 2, 4, 8, 16, 32]), ("vm", [1, 2, 4, 8, 16, 32, 64])])
def test_the_best_count_is_one_that_the_library_takes(form: str, counts: list[int]) -> None:
    @dataclass(frozen=True)
    class Job:
        options: LibraryOptions

    server: Any = SimpleNamespace(profile=replace(find_device("pi4-virtual").profile, cores=64))
    job: Any = Job(LibraryOptions.of({"threads": "best", "format": form}))
    assert [same[0].options.threads for same in _by_count([job], server)] == counts
