"""Messages: one printable line, however long or strange what they quote is."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tvmmobile.system.errors import DeviceUnavailable, Disagreement, ExitCode, UserError, one_line, shown

ROOT = Path(__file__).resolve().parents[2]
ERRORS = {error.__name__ for error in (UserError, DeviceUnavailable, Disagreement)}
#: A name that has capitals within a sentence too.
_NAME = re.compile(r"Dask|Debian|\w[a-z]*[A-Z_]")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("a.json is empty.", "a.json is empty."),
        ("two  blanks stay, größer and µs too", "two  blanks stay, größer and µs too"),
        ("its line\r\n  ends\there", "its line ends here"),
        ("a \x1b[2Jscreen, \x00, \x7f, \u202e", "a \\x1b[2Jscreen, \\x00, \\x7f, \\u202e"),
        ("half a character \udcff", "half a character \\udcff"),
    ],
)
def test_a_message_is_one_printable_line(message: str, expected: str) -> None:
    assert UserError(message).message == str(UserError(message)) == expected
    again = pickle.loads(pickle.dumps(DeviceUnavailable(message, "Run: it")))
    assert type(again) is DeviceUnavailable and str(again) == f"{expected}\nRun: it"


@pytest.mark.parametrize(
    ("typed", "called"),
    [
        ("Give --threads 1 or more.", "Give `threads=1` or more."),
        ("--keep conv* fits no layer; --max-drop 30dB.", "`keep='conv*'` fits no layer; `max_drop='30dB'`."),
        ("Leave out --io-dtype, or give --dtype float16.", "Leave out `io_dtype`, or give `dtype='float16'`."),
        ("--out /tmp/a.b/c cannot be written: no.", "`out='/tmp/a.b/c'` cannot be written: no."),
        (
            "with --no-check it is written, such as --shape audio=1x16000.",
            "with `check=False` it is written, such as `shapes` audio=1x16000.",
        ),
        ("Run: apt-get install -y --reinstall g++", "Run: apt-get install -y --reinstall g++"),
        (
            "Start one: dask scheduler --host ADDRESS; or leave out --dask.",
            "Start one: dask scheduler --host ADDRESS; or leave out `dask`.",
        ),
        ("Compile it: tvmmobile compile --threads 4", "Compile it: tvmmobile compile --threads 4"),
        ("Run it with tvmmobile run, without --labels.", "Run it with tvmmobile run, without `labels`."),
        ("Give it: --clock 1.8", "Give it: `clock_ghz=1.8`"),
        ("Leave out --no-resize.", "Leave out `resize=False`."),
        (
            "Start it on the board (sudo systemctl enable --now ssh), or give its port.",
            "Start it on the board (sudo systemctl enable --now ssh), or give its port.",
        ),
    ],
)
def test_calls_read_of_keywords_and_the_command_line_of_options(typed: str, called: str) -> None:
    error = pickle.loads(pickle.dumps(UserError(typed, typed)))
    assert str(error) == f"{called}\n{called}" and (error.message, error.remedy) == (called, called)
    assert error.as_typed == (typed, typed)


@pytest.mark.parametrize(
    "error",
    [
        UserError("a", "b", ExitCode.TOO_NOISY, again=True),
        DeviceUnavailable("a", "b", again=True),
        DeviceUnavailable("a", "b"),
        Disagreement("a", "b", "c.so"),
    ],
)
def test_an_error_reaches_another_process_whole(error: UserError) -> None:
    error.keywords = frozenset({"dtypes"})
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error) and vars(arrived) == vars(error)


def test_a_long_message_is_cut() -> None:
    assert UserError("x" * 100_000).message == "x" * 1200 + "..."


def test_values_from_elsewhere_are_short() -> None:
    assert shown("a\x1b") == "'a\\x1b'" and shown(10**5000) == "a huge number" and len(shown("x" * 500)) < 70
    assert one_line(ValueError("why.\nand where.")) == "why. and where" and one_line(KeyError()) == "KeyError"


def _beginnings(text: ast.expr, scope: ast.AST) -> Iterator[str]:
    """Yield the words that a message may begin with, as far as the source has them; of a value, what stands for a missing one."""
    match text:
        case ast.Constant(value=str(words)):
            yield words
        case ast.JoinedStr(values=[first, *_]):
            yield from _beginnings(first, scope)
        case ast.FormattedValue(value=value) | ast.BinOp(left=value) | ast.Call(func=ast.Attribute(value=value)):
            yield from _beginnings(value, scope)
        case ast.BoolOp(values=values):
            yield from (words for value in values for words in _beginnings(value, scope))
        case ast.IfExp(body=body, orelse=other):
            yield from (words for value in (body, other) for words in _beginnings(value, scope))
        case ast.Name(id=name):
            for node in ast.walk(scope):
                if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == name for target in node.targets):
                    yield from _beginnings(node.value, ast.Module([], []))


def _messages_of(source: str) -> Iterator[tuple[int, str]]:
    """Line and beginning of each message of an error in a module's source."""
    tree = ast.parse(source)
    for scope in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for call in ast.walk(scope):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ERRORS and call.args:
                yield from ((call.lineno, words) for words in _beginnings(call.args[0], scope))


def test_messages_begin_with_a_small_letter_unless_with_a_name() -> None:
    """They follow "tvmmobile: error: ", and other messages quote them."""
    messages = {
        (path.relative_to(ROOT).as_posix(), line, words)
        for folder in ("tvmmobile", "schedules", "scripts", "studies")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, words in _messages_of(path.read_text(encoding="utf-8"))
    }
    capitals = [message for message in messages if re.match("[A-Z]", message[2]) and not _NAME.match(message[2])]
    assert not capitals and len(messages) > 150


def test_the_rule_of_capitals_sees_variables_and_substitutes() -> None:
    source = (
        "def f(name):\n    what = f'A {name} is missing.' if name else 'gone'\n"
        "    raise UserError(what)\n    raise UserError(f\"{name or 'The board'} is off.\")\n    raise DeviceUnavailable('It ' + name)\n"
    )
    assert set(_messages_of(source)) == {(3, "A "), (3, "gone"), (4, "The board"), (5, "It ")}
    assert all(_NAME.match(words) for words in ("LiteRT's converter", "ANDROID_PORT is", "Dask has"))
    assert not any(_NAME.match(words) for words in ("A board", "The SSH"))
