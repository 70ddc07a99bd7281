"""Messages: one printable line, however long or strange what they quote is."""

from __future__ import annotations

import pickle

import pytest

from tvmmobile.system.errors import DeviceUnavailable, Disagreement, ExitCode, UserError, one_line, shown


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("a.json is empty.", "a.json is empty."),
        ("two  blanks stay, größer and µs too", "two  blanks stay, größer and µs too"),
        ("its line\r\n  ends\there", "its line ends here"),
        ("a \x1b[2Jscreen, \x00, \x7f, \u202e", "a \\x1b[2Jscreen, \\x00, \\x7f, \\u202e"),
        ("half a character \udcff", "half a character \\udcff"),
    ],
)
def test_a_message_is_one_printable_line(message: str, said: str) -> None:
    assert UserError(message).message == str(UserError(message)) == said
    again = pickle.loads(pickle.dumps(DeviceUnavailable(message, "Run: it")))
    assert type(again) is DeviceUnavailable and str(again) == f"{said}\nRun: it"


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
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error) and vars(arrived) == vars(error)


def test_a_long_message_is_cut() -> None:
    assert UserError("x" * 100_000).message == "x" * 1200 + "..."


def test_values_from_elsewhere_are_short() -> None:
    assert shown("a\x1b") == "'a\\x1b'" and shown(10**5000) == "a huge number" and len(shown("x" * 500)) < 70
    assert one_line(ValueError("why.\nand where.")) == "why. and where" and one_line(KeyError()) == "KeyError"
