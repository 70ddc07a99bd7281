"""Options and commands that errors name: each option is a keyword of the call in question, and each command has the options it is given."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tvmmobile
from tvmmobile.cli import VERBS, load
from tvmmobile.system.errors import DeviceUnavailable, Disagreement, UserError
from tvmmobile.system.keywords import in_calls
from tvmmobile.system.lazy import places

PACKAGE = Path(tvmmobile.__file__).parent
ERRORS = {error.__name__ for error in (UserError, DeviceUnavailable, Disagreement)}
#: What Python calls do not reach: the command line, histories, and `models --kernel`.
COMMAND_LINE_ALONE = ("cli/", "history/", "networks/models/separable.py")
#: Keywords as `in_calls` writes them, and commands up to where one ends in a sentence.
KEYWORD, COMMAND = re.compile(r"`([a-z_]+)(?:=[^`]*)?`"), re.compile(r"tvmmobile ([a-z]+)(?: ([a-z-]+))?([^;,.(]*)")


def texts_of(file: Path) -> Iterator[tuple[str, str]]:
    """Where a module raises errors, and the sentences there; `X` stands for what is filled in."""
    for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ERRORS:
            for argument in call.args:
                yield from ((f"{file.relative_to(PACKAGE)}:{call.lineno}", text) for text in sentences(argument))


def sentences(node: ast.AST) -> Iterator[str]:
    """Yield the texts in an expression; those within a text's values count alone."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(value.value) if isinstance(value, ast.Constant) else "X" for value in node.values)
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                yield from sentences(value.value)
    else:
        for child in ast.iter_child_nodes(node):
            yield from sentences(child)


@functools.cache
def all_texts() -> list[tuple[str, str]]:
    """Return `texts_of` all modules; not while tests are collected, which every process does."""
    return [pair for file in sorted(PACKAGE.rglob("*.py")) for pair in texts_of(file)]


def keywords_of_calls() -> set[str]:
    """Return the keywords of the functions, types and methods that `import tvmmobile` offers."""
    found = [getattr(tvmmobile, name) for name in places("tvmmobile")]
    methods = [method for each in found if inspect.isclass(each) for _, method in inspect.getmembers(each, inspect.isfunction)]
    return {name for each in (*found, *methods) for name in inspect.signature(each).parameters}


def test_options_in_errors_are_keywords_of_calls() -> None:
    known, named = keywords_of_calls(), 0
    unknown = []
    for place, text in all_texts():
        if not place.startswith(COMMAND_LINE_ALONE):
            added = set(KEYWORD.findall(in_calls(text))) - set(KEYWORD.findall(text))
            named += len(added)
            unknown += [(place, name) for name in added - known]
    assert not unknown and named > 100


#: Options whose keyword depends on the call, or differs from the option in all calls that take it.
KEYWORDS_BY_CALL = [
    ("load", "--model", "network"),
    ("load", "--alpha", "alpha"),
    ("load", "--resolution", "resolution"),
    ("load", "--shape", "shapes"),
    ("load", "--value", "values"),
    ("variants", "--model", "network"),
    ("variants", "--alpha", "alphas"),
    ("variants", "--resolution", "resolutions"),
    ("tune", "--model", "models"),
    ("tune", "--device", "device"),
    ("tune_together", "--device", "devices"),
    ("compile", "--dtype", "dtype"),
    ("compile", "--device", "device"),
    ("compile", "--num-threads", "threads"),
    ("choose", "--model", "models"),
    ("choose", "--dtype", "dtypes"),
    ("choose", "--device", "devices"),
    ("evaluate", "--model", "model"),
    ("regress", "--baselines", "baselines"),
    ("save_baselines", "--baselines", "baselines"),
    ("add_device", "--clock", "clock_ghz"),
]


@pytest.mark.parametrize(("call", "option", "keyword"), KEYWORDS_BY_CALL)
def test_an_option_is_the_keyword_of_the_call_in_question(call: str, option: str, keyword: str) -> None:
    parameters = inspect.signature(getattr(tvmmobile, call)).parameters
    assert keyword in parameters and in_calls(f"Give {option}.", parameters) == f"Give `{keyword}`."


#: Calls, and the modules that raise errors about their arguments alone.
MODULES_BY_CALL = [
    *((call, f"networks/{place}") for call in ("load", "variants") for place in ("own/", "models/spec.py", "models/registry.py")),
    *((call, "pipeline/options/library.py") for call in ("compile", "tune", "tune_together", "plan_tuning")),
    ("choose", "choosing/"),
    ("evaluate", "accuracy/original.py"),
    ("deploy", "pipeline/deploy.py"),
    ("tune_together", "pipeline/tune_together.py"),
    ("add_device", "pipeline/registration.py"),
    ("find_device", "devices/registry.py"),
    ("validate_device", "pipeline/validation/validate.py"),
    ("write_wheel", "packaging/wheel.py"),
    ("write_aar", "packaging/aar.py"),
    ("run_program", "virtual/program.py"),
]


@pytest.mark.parametrize(("call", "modules"), MODULES_BY_CALL)
def test_errors_of_a_call_name_its_own_keywords(call: str, modules: str) -> None:
    parameters, named = inspect.signature(getattr(tvmmobile, call)).parameters, set[str]()
    for place, text in all_texts():
        if place.startswith(modules) and not place.startswith(COMMAND_LINE_ALONE):
            named |= set(KEYWORD.findall(in_calls(text, parameters))) - set(KEYWORD.findall(text))
    assert named and named <= parameters.keys()


def test_a_call_that_fails_names_its_own_keywords() -> None:
    with pytest.raises(UserError) as caught:
        tvmmobile.load("net.bin")
    assert caught.value.message == "`network` net.bin is not a network file."
    with pytest.raises(UserError) as caught:
        tvmmobile.load("unknown")
    assert caught.value.remedy.startswith("Give `network` one of: mobilenet_v1")
    with pytest.raises(UserError) as caught:
        tvmmobile.variants("mobilenet_v1", 3)
    assert caught.value.remedy.startswith("Give `alphas` a value such as")
    with pytest.raises(UserError) as caught:
        tvmmobile.choose(tvmmobile.load("mobilenet_v1"), "pi4-virtual", calibrate="noise:1", dtypes="float32")
    assert caught.value.remedy == "Leave it out, or add `dtypes='int8'`."
    for call in (tvmmobile.choose, tvmmobile.tune_together):
        with pytest.raises(UserError) as caught:
            call([], ["pi5-virtual", "pi5-virtual"])
        assert caught.value.message == "`devices` names pi5-virtual twice."
    with pytest.raises(UserError) as caught:
        tvmmobile.compile(lambda: [tvmmobile.load("mobilenet_v1", alpha=3)], "pi4-virtual")
    assert caught.value.remedy.startswith("Give `alpha` a value such as")


def test_the_virtual_board_to_compare_with_has_its_options_name() -> None:
    assert in_calls("Give --board one with the same core.") == "Give `board` one with the same core."
    assert "board" in inspect.signature(tvmmobile.validate_device).parameters


def options_of(verb: str, action: str) -> set[str] | None:
    """Return the options of a verb or of an action of it; `None` where there is no such verb."""
    found = next((load(each) for each in VERBS if each.name == verb), None)
    command = getattr(found, "commands", {}).get(action, found)
    return command and {word for param in command.params for word in param.opts}


def test_commands_in_errors_have_the_options_that_they_are_given() -> None:
    wrong, named = [], 0
    for place, text in all_texts():
        for verb, action, rest in COMMAND.findall(text):
            options, given = options_of(verb, action), set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", rest)) - {"--help"}
            named += options is not None
            if not given <= (options or set()):
                wrong.append((place, verb, action, given))
    assert not wrong and named > 40
