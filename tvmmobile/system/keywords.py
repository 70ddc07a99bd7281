"""Turns sentences about options of the command line into sentences about keywords of Python calls."""

from __future__ import annotations

import re
from collections.abc import Collection

#: A command, which stays as it is; or an option, with the number, path or pattern that follows it.
_WORDS = re.compile(
    r"(?:\b(?:tvmmobile|apt-get|dask|python|pip|systemctl) [a-z-]+ |\./scripts/)[^;`]*"
    r"|(?<![\w-])--([a-z]+(?:-[a-z]+)*)(?: ([^\s=(]*[\d/*][^\s=(]*?(?=[,;:.)]*(?:\s|$))|[^\s=]*[\d/*][^\s=]*?(?=[,;:.]*(?:\s|$))))?"
)
#: Keywords whose names differ from their options', in some calls or in all; a call has one of them.
_KEYWORDS = {
    "alpha": ("alpha", "alphas"),
    "clock": ("clock_ghz",),
    "device": ("device", "devices"),
    "dtype": ("dtype", "dtypes"),
    "model": ("model", "models", "network"),
    "no_check": ("check=False",),
    "no_resize": ("resize=False",),
    "num_threads": ("threads",),
    "resolution": ("resolution", "resolutions"),
    "shape": ("shapes",),
    "value": ("values",),
}


def in_calls(text: str, keywords: Collection[str] = ()) -> str:
    """Return a sentence in the words of calls: `threads=4` for --threads 4, `max_drop` for --max-drop.

    Args:
        text: the sentence, in the words of the command line.
        keywords: those of the call in question: `dtypes` for --dtype where it has `dtypes` and no `dtype`.
    """
    return _WORDS.sub(lambda found: _keyword(found, keywords), text)


def _keyword(found: re.Match[str], keywords: Collection[str]) -> str:
    option, value = found.groups()
    if option is None:
        return found[0]
    option = option.replace("-", "_")
    names = _KEYWORDS.get(option, (option,))
    name = next((each for each in names if each in keywords), names[0])
    if value is None:
        return f"`{name}`"
    return f"`{name}={value if re.fullmatch('-?[0-9.]+', value) else repr(value)}`"
