"""Reads OpenSSH's configuration files as lines for paramiko, which knows neither Include nor comments after values nor every Match."""

from __future__ import annotations

import glob
import re
import shlex
from pathlib import Path

from tvmmobile.system.errors import DeviceUnavailable

SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
#: The value in place of ProxyCommand's none, which paramiko forgets: it comes before a later ProxyJump.
DIRECT = "(none)"
_DEEPEST_INCLUDE = 16
#: A line up to the word that begins with #, outside of quotes.
_BEFORE_COMMENT = re.compile(r"""(?:"[^"]*"?|'[^']*'?|(?<!\s)#|[^"'#])*""")
_LINE = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(.+)")
_COMMANDS = ("proxycommand", "localcommand", "remotecommand", "knownhostscommand")
#: Criteria with a value that paramiko evaluates. It treats all others as met.
_EVALUATED = ("host", "originalhost", "user", "localuser", "exec")
_NEVER = "Match host !*"


def user_and_system_lines() -> list[str]:
    """Return the lines of the user's configuration file, then the system's; raise `DeviceUnavailable` if one cannot be read."""
    return [*_lines_of(Path.home() / ".ssh" / "config", 0, "Host *"), *_lines_of(SYSTEM_CONFIG, 0, "Host *")]


def words_of(text: str) -> list[str]:
    """Return the words of a value, without quotes."""
    try:
        return shlex.split(text)
    except ValueError:  # a quote that is never closed
        return text.split()


def expanded(name: str) -> Path:
    """Return a path with `~` replaced; unchanged if it names an unknown user or cannot be a path."""
    try:
        return Path(name).expanduser()
    except (RuntimeError, ValueError):
        return Path(name)


def _lines_of(path: Path, depth: int, section: str) -> list[str]:
    """Return a configuration file's lines, with those of the files it includes. `section` is the one it is read in."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DeviceUnavailable(f"{path} cannot be read: {error.strerror}.", "Make it readable, or remove it.") from error
    lines = [section]
    for line in map(_without_comment, text.splitlines()):
        keyword, value = _keyword_and_value(line)
        if keyword == "include" and depth < _DEEPEST_INCLUDE:
            for pattern in words_of(value):
                for included in sorted(glob.glob(str(_folder(path) / expanded(pattern)))):
                    lines += _lines_of(Path(included), depth + 1, section)
            lines.append(section)  # an included file's last section ends with that file
            continue
        if keyword in ("host", "match"):
            section = line = _match(value) if keyword == "match" else line
        elif keyword == "proxycommand" and value.strip().lower() == "none":
            line = f"ProxyCommand {DIRECT}"
        lines.append(line)
    return lines


def _keyword_and_value(line: str) -> tuple[str, str]:
    found = _LINE.match(line)
    return (found[1].lower(), found[2]) if found else ("", "")


def _without_comment(line: str) -> str:
    """Return a line without the comment at its end; commands are for a shell, which knows comments."""
    found = None if _keyword_and_value(line)[0] in _COMMANDS else _BEFORE_COMMENT.match(line)
    return found[0].rstrip() if found else line


def _match(values: str) -> str:
    """Return a Match line with the same meaning for paramiko; a section with criteria that paramiko does not evaluate never applies."""
    words, criteria = words_of(values), []
    while words:
        name, has_value, value = words.pop(0).partition("=")
        name = name.lower()
        if name in ("canonical", "final", "!canonical", "!final"):
            criteria.append(name)
        elif name != "all":  # which adds nothing, and which paramiko accepts alone
            if not has_value and not words:
                return f"Match {values}"  # it cannot be parsed
            if name.lstrip("!") not in _EVALUATED:
                return _NEVER
            criteria += [name, value if has_value else words.pop(0)]
    return f"Match {shlex.join(criteria) or 'all'}"


def _folder(path: Path) -> Path:
    """Return the folder for relative names of included files."""
    return SYSTEM_CONFIG.parent if path.is_relative_to(SYSTEM_CONFIG.parent) else Path.home() / ".ssh"
