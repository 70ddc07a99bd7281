"""Readers of what boards, their servers and other programs say, and of configuration that other programs share."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hostile.file_readers import Prepared, at, device_text
from hostile.fuzzing import Read, Reader

from tvmmobile.devices.adb.server import AdbRefused, AdbServer, Gone, NoAnswer
from tvmmobile.devices.board.lease import BoardBusy
from tvmmobile.devices.board.remote import Completed, LinkLost
from tvmmobile.system.errors import UserError
from tvmmobile.virtual.elf import NotElf

#: More would wait in a socket for a reader that has to come first.
_MOST_BYTES = 1 << 16
#: Between what a board says of Linux and what it says of Android.
_ANDROID = "\n==\n"
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAX0tNXqtQxRcKTNLGYZzVIeTBEGyZFx1nn4iCrGNwHP"


def read_from_peer(use: Callable[[socket.socket], object]) -> Read:
    """Reads an input as what the other end of a connection says before it closes that."""

    def read(content: bytes) -> object:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(1.0)
            theirs.sendall(content[:_MOST_BYTES])
            theirs.shutdown(socket.SHUT_WR)
            return use(ours)

    return read


@dataclass(frozen=True)
class _ConnectedServer(AdbServer):
    """adb's server with a connection that is there; what is asked goes nowhere."""

    connection: socket.socket = field(default_factory=socket.socket)

    def open(self, *requests: str, timeout_s: float) -> socket.socket:
        from tvmmobile.devices.adb import server

        server._check_okay(self.connection)
        return self.connection


def _adb_devices(_folder: Path) -> Prepared:
    rows = b"emulator-5554\tdevice\n192.168.1.7:5555\toffline\nR58\tno permissions; see [http://developer.android.com]\n"
    answer = b"OKAY%04x" % len(rows) + rows
    return [answer], read_from_peer(lambda connection: _ConnectedServer(5037, connection).devices())


def _adb_order(_folder: Path) -> Prepared:
    def use(connection: socket.socket) -> object:
        return _ConnectedServer(5037, connection).ask("host:connect:x", confirmed=True)

    return [b"OKAYOKAY0004done"], read_from_peer(use)


def _adb_pull(_folder: Path) -> Prepared:
    from tvmmobile.devices.adb.files import receive_file

    content = struct.pack("<4sI", b"DATA", 300) + bytes(300) + struct.pack("<4sI", b"DATA", 5) + b"hello" + struct.pack("<4sI", b"DONE", 0)
    return [content], read_from_peer(lambda connection: receive_file(connection, "/sdcard/x", io.BytesIO()))


def _adb_push(_folder: Path) -> Prepared:
    from tvmmobile.devices.adb.files import send_file

    def use(connection: socket.socket) -> object:
        try:
            return send_file(connection, io.BytesIO(b"content"), "/sdcard/x", 0o644)
        except OSError as error:
            return str(error)

    failed = b"couldn't create file: No space left on device"
    return [struct.pack("<4sI", b"OKAY", 0), struct.pack("<4sI", b"FAIL", len(failed)) + failed], read_from_peer(use)


def _adb_shell(_folder: Path) -> Prepared:
    from tvmmobile.devices.adb.shell import AdbProcess

    def use(connection: socket.socket) -> object:
        process = AdbProcess(connection, "phone", lambda _process, _over: None)
        try:
            first = process.read_line(1.0)
            return first, process.last_words(), process.poll()
        finally:
            process.stop()

    packets = [(1, b"a line\nanother "), (2, b"warning\n"), (1, b"one\n"), (3, b"\0")]
    return [b"".join(struct.pack("<BI", kind, len(text)) + text for kind, text in packets)], read_from_peer(use)


@dataclass
class _Board:
    """A board that answers every command with the same text, but those about Android with what follows `_ANDROID` in it (`Remote`)."""

    text: str

    def run(self, words: Sequence[str], stdin: bytes = b"", timeout_s: float = 1.0) -> Completed:
        linux, _, android = self.text.partition(_ANDROID)
        if any("getprop" in word for word in words):
            return Completed(0 if android else 1, android, "")
        return Completed(0, linux, "")


def _decoded(use: Callable[[_Board], object]) -> Read:
    return lambda content: use(_Board(content.decode(errors="replace")))


def _tree(folder: Path) -> dict[str, str]:
    """The files that describe a board, by their paths on it."""
    from pi4_tree import write_pi4_tree

    root = write_pi4_tree(folder / "board")
    paths = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    texts = {f"/{path.relative_to(root)}": path.read_text(encoding="utf-8") for path in paths}
    return texts | {"/proc/cpuinfo": texts["/proc/cpuinfo"][:900], "/proc/sys/kernel/random/boot_id": "0a1b2c"}


def _listing(files: dict[str, str]) -> bytes:
    return "".join(f"\n@@ {path}\n{text}" for path, text in files.items()).encode()


def _probe(folder: Path) -> Prepared:
    from tvmmobile.devices.board.probe import probe

    files = _listing(_tree(folder))
    phone = _ANDROID.encode() + b"34\n14\nGoogle\nPixel 8\nTensor G3\narm64-v8a,armeabi-v7a\n"
    return [files, files + phone], _decoded(lambda board: probe(board))  # type: ignore[arg-type]


def _health(folder: Path) -> Prepared:
    from tvmmobile.devices.board.health import disturbances, read_health
    from tvmmobile.devices.board.registered import DeviceFile

    registered = DeviceFile.model_validate_json(device_text()).boards[0]

    def use(board: _Board) -> object:
        return disturbances(read_health(board, registered), registered)  # type: ignore[arg-type]

    return [_listing(_tree(folder) | {"/none": "throttled=0x50005"})], _decoded(use)


def _lease(_folder: Path) -> Prepared:
    from tvmmobile.devices.board.lease import BoardLease, Lease

    held = Lease("me@desk", "run.0", "boot", 100.0).to_bytes().decode()

    def use(board: _Board) -> object:
        lease = BoardLease("/tmp/lease", "/", "me@desk", "run")
        return lease.take(board), lease.release(board)  # type: ignore[arg-type,func-returns-value]

    return [f"{held}\nboot\n50.25\n".encode(), b"\nboot\n50.25\n"], _decoded(use)


def _at_home(folder: Path, name: str) -> Path:
    os.environ["HOME"] = str(folder)
    (folder / ".ssh").mkdir()
    return folder / ".ssh" / name


def _ssh_config(folder: Path) -> Prepared:
    from tvmmobile.devices.ssh.config import route_to
    from tvmmobile.devices.ssh.keys import known_state

    path = _at_home(folder, "config")
    (folder / ".ssh" / "more").write_text("Port 2022\n", encoding="utf-8")
    text = """Include more
Host desk bench-*
    HostName 192.168.1.7
    User pi
    Port 2222
    IdentityFile ~/.ssh/%h_key
    IdentitiesOnly yes
    ConnectTimeout 5
    ProxyJump me@gate:22,other
    UserKnownHostsFile ~/.ssh/known_hosts "/etc/other hosts"
Match host desk
    HostKeyAlias bench
    ProxyCommand ssh -W %h:%p gate
"""

    def use() -> object:
        route = route_to("pi@desk", None)
        return route.where, route.ssh_arguments, known_state(route, _KEY)

    return [text.encode(), text.replace("    ProxyCommand", "    #").encode()], at(path, use)


def _known_hosts(folder: Path) -> Prepared:
    from tvmmobile.devices.ssh.config import route_to
    from tvmmobile.devices.ssh.keys import fingerprint_of, known_state

    path = _at_home(folder, "known_hosts")
    route = route_to("pi@desk", 2222)
    hashed = "|1|ZGVzawAAAAAAAAAAAAAAAAAAAAA=|ZGVzawAAAAAAAAAAAAAAAAAAAAA="
    hosts = "[desk]:2222,192.168.1.7", "@revoked *.example", "@cert-authority desk", hashed, "!bench,b?n*"
    text = "# ours\n" + "".join(f"{host} {_KEY}\n" for host in hosts)

    def use() -> object:
        return known_state(route, _KEY), [fingerprint_of(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]

    return [text.encode()], at(path, use)


def _elf(folder: Path) -> Prepared:
    from tvmmobile.virtual.elf import read_elf

    path = folder / "program"

    def use() -> object:
        elf = read_elf.__wrapped__(path)
        return [elf.place(offset) for offset in (0, 64, 4096, 1 << 40)]

    return [_small_elf()], at(path, use)


def _small_elf() -> bytes:
    """A program for AArch64 with an interpreter, one mapped piece and two functions; nothing else is in it."""
    names, loader = b"\0main\0helper\0", b"/lib/ld-linux-aarch64.so.1\0"
    text_at, names_at, symbols_at = 0x200, 0x240, 0x280
    sections_at = 0x300
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, text_at, 64, sections_at, 0, 64, 56, 2, 64, 3, 2)
    segments = struct.pack("<IIQQQQQQ", 3, 4, 0x1C0, 0x1C0, 0x1C0, len(loader), len(loader), 1)
    segments += struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 0x400, 0x400, 0x1000)
    symbols = struct.pack("<IBBHQQ", 1, 18, 0, 1, text_at, 16) + struct.pack("<IBBHQQ", 6, 2, 0, 1, text_at + 16, 16)
    sections = bytes(64) + struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, symbols_at, len(symbols), 2, 0, 8, 24)
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    image = bytearray(sections_at + len(sections))
    for place, part in ((0, header), (64, segments), (0x1C0, loader), (names_at, names), (symbols_at, symbols), (sections_at, sections)):
        image[place : place + len(part)] = part
    return bytes(image)


def _maps(_folder: Path) -> Prepared:
    from tvmmobile.virtual.elf import parse_maps, place_of

    def read(content: bytes) -> object:
        mappings = parse_maps(content.decode(errors="replace"), 0x10000)
        return [place_of(address, mappings) for address in (0, 0x5500000000, 1 << 70)]

    text = """5500000000-5500001000 r-xp 00000000 08:01 1234                           /nowhere/program
5500010000-5500012000 rw-p 00010000 08:01 1234                           /nowhere/a file with blanks (deleted)
7f0000000000-7f0000021000 rw-p 00000000 00:00 0
7ffff0000000-7ffff0021000 rw-p 00000000 00:00 0                          [stack]
"""
    return [text.encode()], read


def _program(folder: Path) -> Prepared:
    """The profile that a program left, and what it had mapped."""
    from tvmmobile.virtual.program import read_profile

    samples, _ = _profile(folder)
    (folder / "7.maps").write_bytes(b"\xff")
    return samples, at(folder / "7.profile", lambda: read_profile(folder, 7, "a.out"))


def _profile(_folder: Path) -> Prepared:
    from tvmmobile.virtual.profile import basic_blocks, parse_profile

    blocks = {"0": [4096, "1f2003d5c0035fd6"], "7": [4100, "c0035fd6"]}
    segments = [[1, 0, 0, [1, 2, 3, 4, 5, 6, 7], [0, 10, 7, 3]], [1, 1, 1, [0, 0, 0, 0, 0, 0, 0], [7, 3]]]
    value = {"problem": "", "regions": 1, "thread": 0, "guest_base": 65536, "segments": segments, "blocks": blocks}

    def read(content: bytes) -> object:
        profile = parse_profile(content)
        own = profile.of_thread(profile.thread)
        return own.misses().dram_bytes(64), profile.misses().l1d, basic_blocks(profile.executed())

    return [json.dumps(value).encode()], read


READERS = (
    Reader("adb-devices", "bytes", _adb_devices, (AdbRefused, NoAnswer, Gone)),
    Reader("adb-order", "bytes", _adb_order, (AdbRefused, NoAnswer, Gone)),
    Reader("adb-pull", "bytes", _adb_pull, (NoAnswer, Gone, OSError)),
    Reader("adb-push", "bytes", _adb_push, (NoAnswer, Gone)),
    Reader("adb-shell", "bytes", _adb_shell, (LinkLost,), cost=2),
    Reader("probe", "text", _probe, cost=3),
    Reader("health", "text", _health),
    Reader("lease", "text", _lease, (UserError, BoardBusy)),
    Reader("ssh-config", "text", _ssh_config, cost=5),
    Reader("known-hosts", "text", _known_hosts, cost=2),
    Reader("elf", "bytes", _elf, (NotElf,)),
    Reader("maps", "text", _maps),
    Reader("program", "json", _program),
    Reader("profile", "json", _profile, (ValueError,)),
)
