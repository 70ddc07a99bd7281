"""Turns sentences about options of the command line into sentences about keywords of Python calls."""

from __future__ import annotations

import re

#: A command, which stays as it is; or an option, with the number, path or pattern that follows it.
_WORDS = re.compile(
    r"(?:\b(?:tvmmobile|apt-get|dask|python|pip|systemctl) [a-z-]+ |\./scripts/)[^;`]*"
    r"|(?<![\w-])--([a-z]+(?:-[a-z]+)*)(?: ([^\s=]*[\d/*][^\s=]*?)(?=[,;:.]*(?:\s|$)))?"
)
#: Keywords whose names differ from their options'.
_KEYWORDS = {
    "clock": "clock_ghz",
    "dir": "baselines",
    "no_check": "check=False",
    "no_resize": "resize=False",
    "num_threads": "threads",
    "shape": "shapes",
    "value": "values",
}


def in_calls(text: str) -> str:
    """Return a sentence in the words of calls: `threads=4` for --threads 4, `max_drop` for --max-drop."""
    return _WORDS.sub(_keyword, text)


def _keyword(found: re.Match[str]) -> str:
    option, value = found.groups()
    if option is None:
        return found[0]
    name = _KEYWORDS.get(option.replace("-", "_"), option.replace("-", "_"))
    if value is None:
        return f"`{name}`"
    return f"`{name}={value if re.fullmatch('-?[0-9.]+', value) else repr(value)}`"
