"""Commands whose standard streams are closed, full, or in an encoding without our characters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: A verb that prints, by both ways there are, and leaves a file; `say wrong` fails.
SAYING = """
import sys
from pathlib import Path
import typer
from tvmmobile import cli
from tvmmobile.system.console import output
from tvmmobile.system.errors import UserError

def say(word: str) -> None:
    if word == "wrong":
        raise UserError("α is wrong.", "Mend α.")
    typer.echo("α typed")
    output().print("α printed\\n" * 2000)
    Path("left").write_text(word)

if __name__ == "__main__":
    cli.VERBS = (cli.Verb("say", "saying:say", "Says."), cli.Verb("no", "saying:no", "No."))
    cli.main()
"""


def say(folder: Path, word: str, redirection: str, encoding: str = "utf-8", source: str = SAYING) -> subprocess.CompletedProcess[bytes]:
    """Run that verb from a shell."""
    (folder / "saying.py").write_text(source)
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = ["sh", "-c", f'exec "{sys.executable}" -m saying say {word} {redirection}']
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, check=False, timeout=60)


def test_an_encoding_without_our_characters(tmp_path: Path) -> None:
    done = say(tmp_path, "right", "", "latin-1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert say(tmp_path, "right", "", "ascii").stdout.endswith(b"? printed\n" * 2000 + b"\n")  # Click takes ASCII for UTF-8
    assert done.stdout == b"? typed\n" + b"? printed\n" * 2000 + b"\n"
    assert say(tmp_path, "right", "").stdout.decode() == done.stdout.decode().replace("?", "α")
    assert say(tmp_path, "wrong", "", "ascii").stderr == b"tvmmobile: error: \\u03b1 is wrong.\nMend \\u03b1.\n"


def test_a_locale_without_characters_of_ours(tmp_path: Path) -> None:
    """Python then keeps the bytes of file names, and would refuse other characters."""
    done = say(tmp_path, "right", "", "ascii:surrogateescape")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"? printed\n" * 2000 + b"\n")
    words = "print('\\u03b1\\udce9\\ud83d')"  # a letter, a byte of a name, half of a character
    program = f"from tvmmobile.cli import streams; streams.prepare(); {words}"
    for encoding, expected in (("ascii", b"?\xe9?\n"), ("utf-8", b"\xce\xb1\xe9?\n")):
        environment = {
            **os.environ,
            "PYTHONIOENCODING": f"{encoding}:surrogateescape",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False, timeout=60)
        assert (done.stdout, done.stderr) == (expected, b"")


@pytest.mark.parametrize("redirection", [">&-", "<&- >&- 2>&-", "1< saying.py 2< saying.py"])
def test_closed_streams(tmp_path: Path, redirection: str) -> None:
    done = say(tmp_path, "right", redirection)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "left").read_text() == "right"  # what was printed did not get into a file that was opened
    done = say(tmp_path, "wrong", redirection)
    assert done.returncode == 1 and (b"Mend" in done.stderr) == ("2" not in redirection)


def test_programs_started_without_streams_have_them(tmp_path: Path) -> None:
    """A worker's pipe must not become its stderr, to which libraries print."""
    start = "import os, subprocess, sys; from tvmmobile.cli import streams; streams.prepare(); "
    start += "child = 'import os; os.write(2, b\\'x\\'); print(os.readlink(\\'/proc/self/fd/2\\'))'; "
    start += "sys.exit(subprocess.run([sys.executable, '-c', child], stdout=open('left', 'w')).returncode)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, start]
    done = subprocess.run(words, cwd=tmp_path, env=environment, check=False, timeout=60)
    assert (done.returncode, (tmp_path / "left").read_text()) == (0, "/dev/null\n")


def test_full_disks(tmp_path: Path) -> None:
    done = say(tmp_path, "right", "> /dev/full")
    assert done.returncode == 1
    assert done.stderr == b"tvmmobile: error: No space left on device (standard output)\nFree some disk space and run it again.\n"
    assert say(tmp_path, "wrong", "2> /dev/full").returncode == 1


def test_what_does_not_fit_on_the_disk_of_stderr_is_left_out(tmp_path: Path) -> None:
    """The command goes on: its results are elsewhere."""
    source = SAYING.replace("    output().print", "    print('told', file=sys.stderr)\n    output().print")
    done = say(tmp_path, "right", "2> /dev/full", source=source)
    assert done.returncode == 0 and "α printed\n".encode() in done.stdout and (tmp_path / "left").read_text() == "right"
