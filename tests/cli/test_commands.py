"""The command line itself: help, exit codes, failures said in one sentence."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import CommandLine

import tvmmobile.cli
from tvmmobile.cli import VERBS, Verb, run
from tvmmobile.system.errors import DeviceUnavailable, ExitCode

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = {"tvm", "torch", "numpy", "scipy", "xgboost", "matplotlib", "onnx", "paramiko", "jinja2"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["models", "--help"], ["models"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys; from tvmmobile.cli import run; run({arguments!r}); print('|'.join({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


def test_a_search_leaves_the_compiler_to_its_workers() -> None:
    """Importing TVM and PyTorch takes seconds, in every process."""
    names = "cli.tune", "pipeline.stages.timing", "tuning.search.tuner", "tuning.search.rounds", "tuning.search.twin", "results.report"
    needed = ", ".join(f"tvmmobile.{name}" for name in names)
    code = f"import sys, {needed}; print('|'.join({HEAVY - {'numpy', 'jinja2'}!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_answers_at_once(option: str) -> None:
    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "tvmmobile", option], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(3)) < 0.3  # of a processor: a busy machine takes longer


def test_no_arguments_is_help(cli: CommandLine) -> None:
    assert cli() == cli("--help")
    assert all(verb.name in cli("-h").out for verb in VERBS)


def test_version(cli: CommandLine) -> None:
    assert cli("--version").out == "tvmmobile 0.1.0\n"


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: str(verb.name))
def test_help_of_a_verb_begins_as_the_list_of_verbs_says(cli: CommandLine, verb: Verb) -> None:
    """`tvmmobile --help` has each sentence whole, without having imported the verb."""
    assert str(tvmmobile.cli.load(verb).help).partition("\n")[0] == verb.summary
    assert f"  {verb.name:<10}{verb.summary}" in cli("--help").out.splitlines()


def test_it_is_described_in_the_same_words_everywhere(cli: CommandLine) -> None:
    words = (REPOSITORY / "README.md").read_text(encoding="utf-8").partition("\n\n")[2].split()
    first = " ".join(words).partition(". ")[0]
    assert f"{first}." == (tvmmobile.__doc__ or "").partition("\n")[0] == cli("--help").out.splitlines()[2].strip()


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: str(verb.name))
def test_every_verb_has_help_that_fits_80_columns(cli: CommandLine, verb: Verb) -> None:
    outcome = cli(verb.name, "--help")
    assert outcome.code == 0 and outcome.out.startswith(f"Usage: tvmmobile {verb.name}")
    assert max(map(len, outcome.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["modles"], "Did you mean 'models'?"),
        (["models", "--nope"], "No such option: --nope"),
        (["models", "--alpha", "wide"], "Invalid value for '--alpha'"),
        (["models", "--alpha", "0"], "width multiplier 0.0 is outside (0, 1]"),
        (["models", "--alpha", "2"], "width multiplier 2.0 is outside (0, 1]"),
        (["models", "--alpha", "nan"], "width multiplier nan is outside (0, 1]"),
        (["models", "--resolution", "7"], "resolution 7 is outside 32 to 512"),
        (["models", "--model", "resnet"], "model 'resnet' is not known"),
        (["models", "surplus"], "surplus"),
        (["logs", "merge", "here", "--into", ""], "--into is empty"),
        (["logs", "merge", "here", "", "--into", "there"], "FROM is empty"),
        (["compile", "--out="], "--out is empty"),
        (["tune", "--logs", ""], "--logs is empty"),
        (["baseline", "save", ""], "RESULTS is empty"),
    ],
)
def test_a_wrong_command_line_ends_with_1(cli: CommandLine, arguments: list[str], complaint: str) -> None:
    outcome = cli(*arguments)
    assert outcome.code == 1 and outcome.out == ""
    assert outcome.err.startswith("tvmmobile: error: ") and complaint in outcome.err
    assert "Traceback" not in outcome.err and len(outcome.err.splitlines()) == 2


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Registers the verb `fail`; set `failing_verb.fail` to what it shall do."""
    module = ModuleType("failing_verb")
    monkeypatch.setitem(sys.modules, "failing_verb", module)
    monkeypatch.setattr(tvmmobile.cli, "VERBS", (Verb("fail", "failing_verb:fail", "Fails."),))
    return monkeypatch


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DeviceUnavailable("pi4 does not answer.", "Run: ping pi4"), 3, "tvmmobile: error: pi4 does not answer.\nRun: ping pi4\n"),
        (KeyboardInterrupt(), 130, "tvmmobile: interrupted\n"),
        (OSError(28, "No space left on device", "/x"), 1, "tvmmobile: error: No space left on device (/x)\n"),
        (OSError(36, "File name too long", "x" * 300), 1, f"tvmmobile: error: File name too long ({'x' * 300})\nChoose a shorter name.\n"),
        (OSError(27, "File too large", "a\nb"), 1, "tvmmobile: error: File too large (a b)\nRaise the limit on the size of files"),
        (
            FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"),
            1,
            "tvmmobile: error: No usable temporary directory found in",
        ),
        (MemoryError(), 1, "tvmmobile: error: there is not enough memory\nFree some memory"),
        (
            RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            1,
            "tvmmobile: error: there is not enough memory\n",
        ),
        (ValueError("two\nlines"), 70, "tvmmobile: internal error: ValueError: two lines\nSet TVMMOBILE_DEBUG=1"),
        (BrokenPipeError(), 141, ""),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
    ],
)
def test_exit_codes(failing: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: BaseException, code: int, message: str) -> None:
    def fail() -> None:
        raise error

    failing.setattr("failing_verb.fail", fail, raising=False)
    failing.setattr(tvmmobile.cli.streams, "silence", lambda stream: None)
    assert run(["fail"]) == code
    assert capfd.readouterr().err.startswith(message)


def test_a_verb_returns_its_exit_code(failing: pytest.MonkeyPatch) -> None:
    def fail() -> ExitCode:
        return ExitCode.REGRESSION

    failing.setattr("failing_verb.fail", fail, raising=False)
    assert run(["fail"]) == 2


def test_debugging_shows_where(failing: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError("here")

    failing.setattr("failing_verb.fail", fail, raising=False)
    failing.setenv("TVMMOBILE_DEBUG", "1")
    assert run(["fail"]) == 70
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize("words", [("models", "show", "mobilenet_v1"), ("device", "list"), ("--version",)])
def test_a_closed_pipe_is_quiet(words: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([sys.executable, "-m", "tvmmobile", *words], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_plugins_are_imported_by_every_command(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TVMMOBILE_PLUGINS", "float64, no_such_module")
    outcome = cli("models")
    assert (
        outcome.code == ExitCode.USAGE
        and "the module 'no_such_module' of TVMMOBILE_PLUGINS cannot be imported: ModuleNotFound" in outcome.err
    )
    monkeypatch.setenv("TVMMOBILE_PLUGINS", "float64")
    planned = cli("tune", "--dtype", "float64", "--alpha", "0.25", "--resolution", "128", "--dry-run", "-o", str(tmp_path))
    assert planned.code == ExitCode.DONE and "_float64_t1" in planned.out
