"""Removes anything that identifies the board's owner from a validation to be shared."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from tvmmobile.results.validation import ValidatedBoard, Validation, ValidationPoint

#: A number of the kernel's version; what follows is chosen by whoever built it.
_KERNEL = re.compile(r"[0-9]{1,4}(\.[0-9]{1,6}){0,3}")
_PATH = re.compile(r"(?<!\S)~?/\S+")
_ADDRESS = re.compile(r"\S+@\S+|\b[0-9]{1,3}(\.[0-9]{1,3}){3}\b|\b([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b")
_LEFT_OUT = "(left out)"


def shareable(validation: Validation, private: Collection[str]) -> Validation:
    """Return a validation without private words, paths, addresses or build names, and with a date without the time.

    Args:
        private: names of users, hosts and devices, serial numbers, folders; one is left out as a whole word alone.
    """
    words = sorted(filter(None, private), key=len, reverse=True)
    names = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words)) if words else None

    def plain(text: str) -> str:
        for pattern in (_ADDRESS, _PATH, *([names] if names else [])):
            text = pattern.sub(_LEFT_OUT, text)
        return text

    def board(found: ValidatedBoard) -> ValidatedBoard:
        kernel = _KERNEL.match(found.kernel)
        return replace(
            found, board=plain(found.board), system=plain(found.system), kernel=kernel[0] if kernel else "", libc=plain(found.libc)
        )

    def point(found: ValidationPoint) -> ValidationPoint:
        return replace(found, invalid=plain(found.invalid))

    return replace(
        validation,
        measured=board(validation.measured),
        versions={name: plain(version) for name, version in validation.versions.items()},
        date=validation.date[:10],
        points=tuple(map(point, validation.points)),
    )
