"""Messages: one printable line, however long or strange what they quote is."""

from __future__ import annotations

import pickle

import pytest

from tvmmobile.system.errors import DeviceUnavailable, UserError, one_line, shown


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


def test_a_long_message_is_cut() -> None:
    assert UserError("x" * 100_000).message == "x" * 1200 + "..."


def test_values_from_elsewhere_are_short() -> None:
    assert shown("a\x1b") == "'a\\x1b'" and shown(10**5000) == "a huge number" and len(shown("x" * 500)) < 70
    assert one_line(ValueError("why.\nand where.")) == "why. and where" and one_line(KeyError()) == "KeyError"
