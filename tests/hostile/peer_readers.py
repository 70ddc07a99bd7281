"""Readers of what boards, their servers and other programs say."""

from __future__ import annotations

from hostile.fuzzing import Reader

READERS: tuple[Reader, ...] = ()
