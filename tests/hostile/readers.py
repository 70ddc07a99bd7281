"""The readers that are fuzzed: of files (`file_readers.py`), of networks (`network_readers.py`), of what boards say (`peer_readers.py`)."""

from __future__ import annotations

from hostile import file_readers, network_readers, peer_readers
from hostile.fuzzing import Reader

READERS: tuple[Reader, ...] = (*file_readers.READERS, *peer_readers.READERS, *network_readers.READERS)
