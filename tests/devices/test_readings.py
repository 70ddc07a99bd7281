"""A board, adb or a configuration file may say anything: figures become unknown, connections end."""

from __future__ import annotations

import contextlib
import io
import json
import math
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tvmmobile.devices.adb.files import receive_file, send_file
from tvmmobile.devices.adb.server import Gone, receive
from tvmmobile.devices.agents import rpc
from tvmmobile.devices.board.lease import LEASE_S, BoardBusy, BoardLease
from tvmmobile.devices.board.probe import number_in, parse_cores, parse_memory, temperature_files, temperatures_in
from tvmmobile.devices.board.registered import load_device
from tvmmobile.devices.board.remote import Completed
from tvmmobile.devices.protocol import Endpoint
from tvmmobile.devices.ssh.config import route_to
from tvmmobile.devices.ssh.keys import fingerprint_of, known_state
from tvmmobile.system.environment import adb_server_port
from tvmmobile.system.errors import UserError

ENDLESS = "9" * 5000


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("1800000", 1_800_000), ("0xd08", 0xD08), ("007", 7), *((text, None) for text in ("", "-1", "²", "٣", "x", ENDLESS))],
)
def test_numbers_that_boards_tell(text: str, number: int | None) -> None:
    assert number_in(text) == number


def test_instructions_are_those_that_linux_reports() -> None:
    section = "processor\t: {0}\n{1}CPU implementer\t: 0x51\nCPU part\t: 0x802\n"
    texts = ("Features\t: fp asimd fphp asimdhp\n", "Features\t: asimddp i8mm bf16 sve\n", "Features\t: fp asimd\n", "")
    cores = parse_cores("\n".join(section.format(*row) for row in enumerate(texts)), [])
    assert [core.has for core in cores] == [("half",), ("dot", "matrix", "bfloat16"), (), None]


def test_a_core_without_a_part_is_none() -> None:
    section = "processor\t: {0}\nCPU implementer\t: {1}\nCPU part\t: {2}\n"
    text = "\n".join(section.format(*row) for row in ((0, "?", "0xd08"), (1, "0x41", "true"), ("²", "0x41", "0xd08"), (2, "0x41", "0xd0b")))
    assert [(core.implementer, core.part, core.max_hz) for core in parse_cores(text, ["²", "1", "1800000"])] == [
        (0, 0xD08, 0.0),
        (0x41, 0xD0B, 1.8e9),
    ]
    assert [core.max_hz for core in parse_cores(text, ["9" * 12, "1", "2"])] == [0.0, 2000.0]
    files = temperature_files("")
    temperatures = temperatures_in(dict(zip(files, ["kind", ENDLESS, "kind", "²", "kind", "45000", *[""] * len(files)], strict=False)), "")
    assert parse_memory(f"MemTotal: {ENDLESS} kB") == 0 and list(temperatures.values()) == [45.0]


class _Board:
    """Answers every command with the same text; keeps what was written to it last."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.written = b""

    def run(self, words: object, stdin: bytes = b"", timeout_s: float = 1.0) -> Completed:
        self.written = stdin or self.written
        return Completed(0, self.text, "")


def _take(text: str) -> Any:
    """Return the lease that is written to a board that says this."""
    board = _Board(text)
    BoardLease("/tmp/lease", "/", "me@desk", "mine").take(board)  # type: ignore[arg-type]
    return json.loads(board.written)


@pytest.mark.parametrize("until", ["1e999", "NaN", f"1{'0' * 400}", '"soon"', "[" * 2000])
def test_a_lease_that_ends_at_no_moment_is_none(until: str) -> None:
    owner = json.dumps("ann@lab")
    _take(f'{{"owner": {owner}, "run": "hers", "boot": "b", "until_s": {until}}}\nb\n50.0\n')
    with pytest.raises(BoardBusy, match="ann@lab uses the board, for 10 s more"):
        _take(f'{{"owner": {owner}, "run": "hers", "boot": "b", "until_s": 60}}\nb\n50.0\n')


@pytest.mark.parametrize("uptime", ["", "soon", "nan", "\x0050.0"])
def test_an_unreadable_uptime_counts_as_zero(uptime: str) -> None:
    assert _take(f"\nb\n{uptime}\n")["until_s"] == LEASE_S


@contextmanager
def _peer_sending(content: bytes) -> Iterator[socket.socket]:
    """A connection whose other end says this and no more."""
    ours, theirs = socket.socketpair()
    ours.settimeout(2.0)
    with ours, theirs:
        theirs.sendall(content)
        theirs.shutdown(socket.SHUT_WR)
        yield ours


@pytest.mark.parametrize("kind", [b"DATA", b"FAIL"])
def test_adb_announces_more_than_it_may_send(kind: bytes) -> None:
    with _peer_sending(struct.pack("<4sI", kind, 0xFFFFFFF0)) as connection, pytest.raises(Gone, match="4294967280 bytes at once"):
        receive_file(connection, "/sdcard/x", io.BytesIO())
    with _peer_sending(struct.pack("<4sI", kind, 65537)) as connection, pytest.raises((Gone, OSError)):
        send_file(connection, io.BytesIO(b""), "/sdcard/x", 0o644)


def test_nothing_is_reserved_for_bytes_that_never_come() -> None:
    with _peer_sending(b"few") as connection, pytest.raises(Gone):
        receive(connection, 1 << 50)


@pytest.mark.parametrize(
    "answer",
    [
        5,
        [],
        {},
        [0],
        [0, 0.5],
        [0, [""]],
        [0, {"": {}}],
        [0, "aN"],
        [0, ["h", math.inf, "o"]],
        [0, ["h", 0, "o"]],
        [0, [None, 1, "o"]],
        [1, ""],
    ],
)
def test_a_tracker_that_answers_without_a_place(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    class Link(contextlib.nullcontext[None]):
        def __init__(self, *_: object) -> None:
            super().__init__()

        def __enter__(self) -> Any:
            return self

        def ask(self, _message: object) -> object:
            return answer

    monkeypatch.setattr(rpc, "TrackerLink", Link)
    with pytest.raises(rpc.LinkError, match="tracker"), rpc.open_relay(Endpoint("127.0.0.1", 1, "pi4", "0" * 64), 1.0):
        pass


@pytest.mark.parametrize("name", ["~nobody-here/keys", "~\0", "a\0b"])
def test_known_hosts_files_without_a_place(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(f"UserKnownHostsFile {name}\nIdentityFile {name}\nInclude {name}\n")
    assert known_state(route_to("desk", None), "ssh-ed25519 AAAA") == "unknown"


@pytest.mark.parametrize("text", ["", "ssh-rsa", "ssh-rsa \xff", "ssh-rsa ===="])
def test_what_has_no_fingerprint(text: str) -> None:
    assert fingerprint_of(text) in ("no key", fingerprint_of("ssh-rsa "))


@pytest.mark.parametrize("text", [ENDLESS, "0", "65536", "²", "5037\n"])
def test_what_is_no_port(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", text)
    with pytest.raises(UserError, match="which is not a port") as caught:
        adb_server_port()
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("change", [("adb", "a\nb"), ("desk", "d" * 5000), ("serial", "s\x1b[2J"), (3336, -1.5), (1.8e9, math.inf)])
def test_a_damaged_device_is_told_in_a_line(change: tuple[object, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVMMOBILE_DATA", str(tmp_path))
    (tmp_path / "devices").mkdir()
    core = {"implementer": 65, "part": 3336, "max_hz": 1.8e9}
    facts = {"architecture": "aarch64", "model": "", "cores": [core], "memory_bytes": 1, "system": "", "kernel": "", "libc": ""}
    board = {"address": {"kind": "adb", "serial": "x"}, "directory": "/d", "facts": facts, "added": ""}
    text = json.dumps({"name": "desk", "boards": [board]}).replace(json.dumps(change[0]), json.dumps(change[1]))
    (tmp_path / "devices" / "desk.json").write_text(text)
    with pytest.raises(UserError, match="describe") as caught:
        load_device("desk")
    assert caught.value.message.isprintable() and len(caught.value.message) < 600


def test_a_device_of_another_version_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVMMOBILE_DATA", str(tmp_path))
    core = {"implementer": 65, "part": 3336, "max_hz": 1.8e9}
    facts = {"architecture": "aarch64", "model": "", "cores": [core], "memory_bytes": 1, "system": "", "kernel": "", "libc": ""}
    board = {"address": {"kind": "adb", "serial": "x"}, "directory": "/d", "facts": facts, "added": ""}
    (tmp_path / "devices").mkdir()
    path = tmp_path / "devices" / "desk.json"
    path.write_text(json.dumps({"version": 1, "name": "desk", "boards": [board]}))
    assert load_device("desk") is not None
    path.write_text(json.dumps({"version": 2, "name": "desk", "boards": [board]}))
    with pytest.raises(UserError, match=r"desk\.json does not describe a device: version: ") as caught:
        load_device("desk")
    assert caught.value.remedy == "Run: tvmmobile device remove desk --keep-files (and add it again)."


def test_a_device_without_cores_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVMMOBILE_DATA", str(tmp_path))
    (tmp_path / "devices").mkdir()
    facts = {"architecture": "aarch64", "model": "", "cores": [], "memory_bytes": 1, "system": "", "kernel": "", "libc": ""}
    board = {"address": {"kind": "adb", "serial": "x"}, "directory": "/d", "facts": facts, "added": ""}
    (tmp_path / "devices" / "desk.json").write_text(json.dumps({"name": "desk", "boards": [board]}))
    with pytest.raises(UserError, match=r"boards\[0\]\.facts\.cores: Tuple should have at least 1 item"):
        load_device("desk")
