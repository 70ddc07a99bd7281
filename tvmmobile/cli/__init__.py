"""The command line. A verb is one line in `VERBS` and one module beside this file."""

from __future__ import annotations

import errno
import importlib
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tvmmobile import __version__
from tvmmobile.cli import streams
from tvmmobile.cli.paths import refuse_empty_paths
from tvmmobile.system.collector import collect_rarely
from tvmmobile.system.environment import debug_level
from tvmmobile.system.errors import ExitCode, UserError
from tvmmobile.system.interrupts import terminate
from tvmmobile.system.plugins import load_plugins

#: The exit code that a shell reports after SIGPIPE: the reader closed the pipe, and no message is needed.
BROKEN_PIPE = 141
#: Failures of the machine, not ours, and what to do about them.
_FIXABLE = {
    errno.ENOSPC: "Free some disk space and run it again.",
    errno.EDQUOT: "Free some of your disk quota and run it again.",
    errno.EACCES: "Give yourself access to it, or choose another place.",
    errno.EROFS: "Choose a place that can be written to.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EISDIR: "Move the folder of that name away, or choose another place.",
    errno.ENOTDIR: "A folder is needed there: move the file away, or choose another place.",
    errno.EEXIST: "A folder is needed there: move what has its name away, or choose another place.",
    errno.ELOOP: "Repair the symbolic link, or choose another place.",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f), and run it again.",
}
#: The wording of `tempfile`.
_NO_TMPDIR = "No usable temporary directory"
#: PyTorch's wording, in a `RuntimeError`.
_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
_NO_MEMORY_REMEDY = "Free some memory, or take a smaller network: fewer --classes, a smaller --alpha or --resolution."


@dataclass(frozen=True)
class Verb:
    """A verb of the command line, imported only when it is used.

    Attributes:
        name: the verb as typed.
        where: `module:attribute` of a function with Typer's annotations, or of a `typer.Typer` with verbs of its own. The function
            returns None or an `ExitCode`.
        summary: the line in `tvmmobile --help`.
    """

    name: str
    where: str
    summary: str


VERBS = (
    Verb("models", "tvmmobile.cli.models:models", "Compare networks: multiply-adds, parameters, accuracy, latency."),
    Verb("choose", "tvmmobile.cli.choose:choose", "Choose the best network within a latency, or above an accuracy."),
    Verb("tune", "tvmmobile.cli.tune:tune", "Tune what the logs lack; compile, verify, time and report."),
    Verb("compile", "tvmmobile.cli.compile:compile_libraries", "Compile libraries from the tuning logs; no device needed."),
    Verb("bench", "tvmmobile.cli.bench:bench", "Verify and time compiled libraries on a device."),
    Verb("report", "tvmmobile.cli.report:report", "Write tables, Markdown and an HTML page from result files."),
    Verb("compare", "tvmmobile.cli.compare:compare", "Find variants that became slower between two results."),
    Verb("baseline", "tvmmobile.cli.baseline:baseline", "Keep results to compare with: save, list, show."),
    Verb("regress", "tvmmobile.cli.compare:regress", "Time libraries and compare them with their baselines."),
    Verb("history", "tvmmobile.cli.history:history", "Keep results of all commits; find the steps, draw a page."),
    Verb("run", "tvmmobile.cli.run:run", "Run a library on a device with your own image."),
    Verb("evaluate", "tvmmobile.cli.evaluate:evaluate", "Measure top-1 and top-5 over labelled images, beside PyTorch's."),
    Verb("deploy", "tvmmobile.cli.deploy:deploy", "Copy libraries, with what they need there, to a device's boards."),
    Verb("package", "tvmmobile.cli.package:package", "Make a Python wheel or an Android archive of a library."),
    Verb("device", "tvmmobile.cli.device:device", "Manage boards and phones: add, list, check, validate, remove."),
    Verb("virtual", "tvmmobile.cli.virtual:virtual", "Model any AArch64 program on a virtual board."),
    Verb("logs", "tvmmobile.cli.logs:logs", "Manage tuning logs: show, verify, merge, compact, rescore."),
    Verb("doctor", "tvmmobile.cli.doctor:doctor", "Check this machine; print the command that fixes it."),
)


def load(verb: Verb) -> Any:
    """Return the Typer command (or group) of a verb; imports its module."""
    module, _, attribute = verb.where.partition(":")
    target = getattr(importlib.import_module(module), attribute)
    if not isinstance(target, typer.Typer):
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(verb.name)(target)
        target = single
    command = typer.main.get_command(target)
    command.name = verb.name
    refuse_empty_paths(command)
    return command


class _VerbGroup(TyperGroup):
    """Lists the verbs without importing them: `--help` must answer at once."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for verb in VERBS:
            self.add_command(TyperCommand(verb.name, help=verb.summary, rich_markup_mode=None))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        return name, load(next(verb for verb in VERBS if verb.name == name)), rest


app = typer.Typer(cls=_VerbGroup, add_completion=False, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tvmmobile {__version__}")
        raise typer.Exit


@app.callback(context_settings={"help_option_names": ["-h", "--help"]})
def _root(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")] = False,
) -> None:
    """tvmmobile is a compiler for vision networks on ARM CPUs, MobileNets first.

    It searches for a fast schedule for each layer on the board that will run it, and writes C libraries with a latency report.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code. Failures are reported on stderr; none is raised."""
    try:
        load_plugins()
        result = typer.main.get_command(app)(list(arguments) or ["--help"], prog_name="tvmmobile", standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        return _complain_of(error)
    except typer.TyperException as error:
        return _complain(f"error: {error.format_message()}", _usage_hint(error), ExitCode.USAGE)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        streams.silence(sys.stdout)
        return BROKEN_PIPE
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):  # which Typer would turn into 1
            raise
        streams.silence(sys.stdout)
        return BROKEN_PIPE
    except Exception as error:  # the process boundary: anything left is a bug of ours
        if isinstance(error, OSError) and error.errno in _FIXABLE:
            streams.fails(sys.stdout)
            failure = UserError(f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror), _FIXABLE[error.errno])
            return _complain_of(failure)
        if isinstance(error, FileNotFoundError) and _NO_TMPDIR in str(error):
            return _complain(f"error: {error.strerror}", "Set TMPDIR to a folder that can be written.", ExitCode.USAGE)
        if isinstance(error, MemoryError) or _NO_MEMORY in str(error):
            return _complain("error: there is not enough memory", _NO_MEMORY_REMEDY, ExitCode.USAGE)
        reason = " ".join(str(error).split())[:300]
        hint = "" if debug_level() else "Set TVMMOBILE_DEBUG=1 and run it again to see where."
        return _complain(f"internal error: {type(error).__name__}: {reason}", hint, ExitCode.INTERNAL)
    code = int(result) if isinstance(result, int) else ExitCode.DONE
    # Typer turns Ctrl-C inside a verb into this exit code.
    return _interrupted() if code == ExitCode.INTERRUPTED else code


def main() -> None:
    """Run the `tvmmobile` command."""
    collect_rarely()
    streams.prepare()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, terminate)
    try:
        if callable(signal.getsignal(signal.SIGINT)):
            signal.signal(signal.SIGINT, signal.default_int_handler)  # in place of the one for imports
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # between the handlers of `run`, or a second one within them
        code = _interrupted()
    sys.exit(code)


def _interrupted() -> int:
    # If Ctrl-C came during `exec`, as in dataclasses, `python -m` would end by SIGINT although the exception was caught, and whatever
    # the exit code: CPython remembers it (run_eval_code_obj in pythonrun.c) until the next `exec`.
    exec("")
    return _complain("interrupted", "", ExitCode.INTERRUPTED)


def _complain_of(error: UserError) -> int:
    message, remedy = error.as_typed
    return _complain(f"error: {message}", remedy, error.exit_code)


def _complain(message: str, remedy: str, code: ExitCode) -> int:
    if debug_level() and code not in (ExitCode.USAGE, ExitCode.INTERRUPTED):
        traceback.print_exc()
    streams.complain(message, remedy)
    return code


def _usage_hint(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"See `{context.command_path} --help`." if context else ""
