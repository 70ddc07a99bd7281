"""The readers that are fuzzed: of files, of networks, and of what boards, adb, trackers and agents say."""

from __future__ import annotations

from hostile import agent_readers, command_readers, file_readers, folder_readers, network_readers, peer_readers
from hostile.fuzzing import Reader

#: What takes seconds to import, or tens of milliseconds an input.
SLOW: tuple[Reader, ...] = (*command_readers.READERS, *network_readers.READERS)
READERS: tuple[Reader, ...] = (*file_readers.READERS, *folder_readers.READERS, *peer_readers.READERS, *agent_readers.READERS, *SLOW)
