"""Documents name only what exists: files, links, commands and options; and they are as short as they are meant to be."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_commands import readme_commands

from tvmmobile.cli import VERBS, load

REPOSITORY = Path(__file__).resolve().parents[2]
PATTERNS = ("*.md", "docs/**/*.md", "scripts/*.md", "studies/**/*.md")
DOCUMENTS = sorted(path.relative_to(REPOSITORY).as_posix() for pattern in PATTERNS for path in REPOSITORY.glob(pattern))
#: Words at most, without the glossary.
WORDS = {"README.md": 750, "ARCHITECTURE.md": 1650}
PAGE_WORDS = 2500
#: What documents name that a run, a board, another project or the reader makes.
ELSEWHERE = re.compile(
    r"^(~|/|out/|page/|old/|new/|baselines|val/|https?:|\.github|\.tvmmobile|\.ssh|\.venv|known_hosts|models/|runtime/)|[A-Z]{4}|"
    r"^(report[\w-]*|evaluation|gate|net|path|tiny|myboard|classify|config|weights|cortex-a53|benchmark/models|benchmark/README)\b"
)
FOLDERS = ("docs", "examples", "schedules", "scripts", "studies", "tests", "tuning_logs", "tvmmobile")
NAMED = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|cc|c|h|md|toml|jsonl|json|yml|sh))(?::\w+)?`")


@functools.cache
def text_of(document: str) -> str:
    return (REPOSITORY / document).read_text(encoding="utf-8")


def prose(document: str) -> str:
    """Return the text without code blocks."""
    return re.sub(r"```.*?```", "", text_of(document), flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if target.startswith(("http:", "https:")):
            continue
        file, _, anchor = target.partition("#")
        path = (REPOSITORY / document).parent / file if file else REPOSITORY / document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert not broken


@functools.cache
def files() -> tuple[str, ...]:
    """Every file and folder of the checkout, with a slash in front and, of a folder, behind."""
    found = [path for folder in FOLDERS for path in (REPOSITORY / folder, *(REPOSITORY / folder).rglob("*"))]
    found += [REPOSITORY / name for name in (".ci", ".ci/run", "pyproject.toml")]
    return tuple(f"/{path.relative_to(REPOSITORY).as_posix()}{'/' if path.is_dir() else ''}" for path in found)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_exist(document: str) -> None:
    """A path in backticks is the end of one in the checkout; a module is one."""
    text = re.sub(r"Create `.*?`", "", prose(document))
    named = {name.removeprefix("./") for name in NAMED.findall(text) if not ELSEWHERE.search(name)}
    missing = {name for name in named if not any(file.rstrip("/").endswith(f"/{name.rstrip('/')}") for file in files())}
    modules = {name.replace(".", "/") for name in re.findall(r"`(tvmmobile(?:\.[a-z_]+)+)`", text)}
    missing |= {name for name in modules if not any(file in (f"/{name}.py", f"/{name}/") for file in files())}
    assert not missing


def test_files_named_in_code_exist() -> None:
    """The names are paths with a folder, in backticks, in docstrings and comments."""
    missing = []
    for folder in ("tvmmobile", "schedules", "studies", "scripts"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            named = re.findall(r"`((?:[a-z_0-9]+/)+[a-z_0-9]+\.(?:py|c|h|cc|md|toml))`", path.read_text(encoding="utf-8"))
            missing += [
                f"{path.name}: {name}"
                for name in named
                if not name.startswith(("research/", "tvm/")) and not any(file.endswith(f"/{name}") for file in files())
            ]
    assert not missing


@functools.cache
def options_of(verb: str, action: str | None) -> frozenset[str] | None:
    """Return the options of a verb, or of an action of it; `None` for one that there is not."""
    found = next((load(one) for one in VERBS if one.name == verb), None)
    actions = getattr(found, "commands", None)
    if found is not None and actions and action in actions:
        found = actions[action]
    elif found is not None and actions and verb == "models":
        found = actions["list"]
    return None if found is None else frozenset(word for param in found.params for word in param.opts)


def commands_in(document: str) -> Iterator[list[str]]:
    """Yield the words of each tvmmobile command in code, comments left out."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", text_of(document), re.DOTALL)
    lines = [*"\n".join(blocks).replace("\\\n", " ").splitlines(), *re.findall(r"`([^`\n]+)`", prose(document))]
    for line in lines:
        for part in re.split(r"&&|\||;|\s#|\$ ", line):
            if found := re.match(r"\s*(?:\./scripts/)?tvmmobile ([a-z].*)", part):
                yield shlex.split(re.sub(r"[…\[\]']", "", found.group(1)))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_have_the_options_that_they_are_given(document: str) -> None:
    wrong = []
    for words in commands_in(document):
        own = words[: words.index("--")] if "--" in words else words
        options = options_of(own[0], own[1] if len(own) > 1 else None)
        given = {word for word in own if word.startswith("-")} - {"--help"}
        if options is None or not given <= options:
            wrong.append(" ".join(words))
    assert not wrong


def test_the_readme_begins_with_the_two_commands() -> None:
    commands = readme_commands()
    assert commands == ["./scripts/tvmmobile tune --target arm --device pi4", "./scripts/test"]
    assert all((REPOSITORY / shlex.split(command)[0]).stat().st_mode & 0o111 for command in commands)
    assert "Relay" in text_of("README.md")


@pytest.mark.parametrize("document", WORDS)
def test_length(document: str) -> None:
    assert len(text_of(document).split("## Glossary")[0].split()) <= WORDS[document]


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if not document.startswith("studies/results/")])
def test_no_page_is_long(document: str) -> None:
    """A study's results, which a command writes as tables, may be longer."""
    assert len(text_of(document).split()) <= PAGE_WORDS


def test_the_glossary_is_short() -> None:
    rows = re.findall(r"^\| .* \|$", text_of("ARCHITECTURE.md").split("## Glossary")[1], re.MULTILINE)
    assert 10 < len(rows) - 2 < 30


def test_documented_verbs_are_all_verbs() -> None:
    table = text_of("docs/commands.md")
    assert {verb.name for verb in VERBS} <= set(re.findall(r"`tvmmobile (\w+)", table))


def test_nothing_is_documented_twice_or_left_behind() -> None:
    """Every page is linked from another one."""
    linked = {
        ((REPOSITORY / document).parent / target.partition("#")[0]).resolve()
        for document in DOCUMENTS
        for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document))
    }
    assert not [document for document in DOCUMENTS if document != "README.md" and (REPOSITORY / document).resolve() not in linked]
