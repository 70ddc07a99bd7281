"""A line on an attribute or argument begins with a noun phrase: `path: path of the library.`, not `path: of the library.`"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("tvmmobile", "schedules", "scripts", "studies", "examples", "tests")
_SECTION = re.compile(r"( *)(?:Attributes|Args|Knobs):")
#: Words that begin no noun phrase.
_NO_NOUN = "of|at|by|in|on|to|for|from|with|without|such|how|what|when|where|which|who|whose|why"
_ENTRY = re.compile(rf"[a-z_0-9]+(?:, [a-z_0-9]+)*: (?:{_NO_NOUN})\b")


def without_a_noun(lines: list[str]) -> Iterator[int]:
    """Yield the numbers of lines in sections on attributes and arguments that begin their text without a noun."""
    indent = -1
    for number, line in enumerate(lines, 1):
        text = line.lstrip()
        depth = len(line) - len(text)
        if section := _SECTION.fullmatch(line):
            indent = len(section[1]) + 4
        elif not text or depth < indent:
            indent = -1
        elif depth == indent and _ENTRY.match(text):
            yield number


def test_attributes_and_arguments_begin_with_a_noun() -> None:
    found = []
    for folder in FOLDERS:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [f"{path.relative_to(REPOSITORY).as_posix()}:{number}" for number in without_a_noun(lines)]
    assert found == []


def test_lines_without_a_noun_are_found() -> None:
    section = ["Attributes:", "    path: of the library.", "    width, height: in pixels.", "    name: the file's name,"]
    others = ["        without: a continued line counts for nothing.", "", "mode: of another section."]
    assert list(without_a_noun([*section, *others])) == [2, 3]
