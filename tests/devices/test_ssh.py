"""Boards behind SSH, with real OpenSSH servers on this machine."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import psutil
import pytest
from ssh_server import USER, Home, Server, free_port, new_key, public_key, require_sshd, ssh_agent, wait_until

from tvmmobile.devices.board.registered import SshAddress
from tvmmobile.devices.board.remote import LinkLost
from tvmmobile.devices.ssh.config import route_to
from tvmmobile.devices.ssh.keys import fingerprint_of, host_key_of
from tvmmobile.devices.ssh.remote import SshRemote, connect_ssh
from tvmmobile.system.errors import DeviceUnavailable, ExitCode

NASTY = 'it\'s "$(touch pwned)" `id` ; & * \\ \t.bin'


@pytest.fixture(scope="module")
def first_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    require_sshd()
    home = Home(tmp_path_factory.mktemp("home"))
    new_key(home.key)
    return home


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, first_home: Home) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("sshd"), first_home, key_types=("ed25519", "ecdsa", "rsa"))
    yield server
    server.stop()


@pytest.fixture
def home(tmp_path: Path, first_home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A new home with the key that servers let in, and no agent."""
    mine = Home(tmp_path / "home")
    mine.ssh.mkdir(parents=True, mode=0o700)
    for path in first_home.ssh.glob("id_ed25519*"):
        (mine.ssh / path.name).write_bytes(path.read_bytes())
    mine.key.chmod(0o600)
    monkeypatch.setenv("HOME", str(mine.path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return mine


@pytest.fixture
def remote(shared: Server, home: Home) -> Iterator[SshRemote]:
    opened = connect_ssh(shared.address)
    yield opened
    opened.close()


@pytest.fixture
def own(tmp_path: Path, home: Home) -> Iterator[Callable[..., Server]]:
    """Makes servers that a test may harm."""
    with contextlib.ExitStack() as stack:

        def make(*options: str, key_types: tuple[str, ...] = ("ed25519",)) -> Server:
            server = Server(tmp_path / f"sshd{len(list(tmp_path.iterdir()))}", home, *options, key_types=key_types)
            stack.callback(server.stop)
            return server

        yield make


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Whatever a test does: no thread, socket or process of a connection stays."""
    before = _state()
    yield
    wait_until(lambda: not (_state() - before), f"these to go away: {_state() - before}", 5)


def _state() -> set[object]:
    mine = psutil.Process()
    threads: set[object] = {thread for thread in threading.enumerate() if thread.name != "ssh-resolve"}
    sockets: set[object] = {(link.fd, link.laddr, link.raddr) for link in mine.net_connections("tcp")}
    return threads | sockets


def _echo(listener: socket.socket) -> None:
    """Serve one connection: receive to its end, then send all of it back."""
    peer, _ = listener.accept()
    with peer:
        received = bytearray()
        while chunk := peer.recv(1 << 20):
            received += chunk
        peer.sendall(received)


def _exactly(sock: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count and (chunk := sock.recv(count - len(received))):
        received += chunk
    return received


def _through(port: int, content: bytes) -> bytes:
    """Send all, then end, then receive to the end."""
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(content)
        sock.shutdown(socket.SHUT_WR)
        received = bytearray()
        while chunk := sock.recv(1 << 20):
            received += chunk
    return bytes(received)


@contextlib.contextmanager
def _echo_server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_echo, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


# --- programs


def test_a_program_leaves_its_status_and_what_it_wrote(remote: SshRemote) -> None:
    done = remote.run(["sh", "-c", "echo out; echo err >&2; cat; exit 7"], stdin=b"in\xff\n")
    assert (done.status, done.stdout, done.stderr) == (7, "out\nin�\n", "err\n")


def test_words_are_not_read_by_a_shell(remote: SshRemote) -> None:
    words = ["a b", "", "$(touch pwned)", "`id`", "'", '"', "*", "; exit 3", "-n", "\\", "new\nline", "é"]
    assert remote.run(["printf", "%s|", *words]).stdout == "|".join(words) + "|"


def test_both_outputs_are_drained_at_once(remote: SshRemote) -> None:
    """More than any window on standard error before the first byte of standard output, and input that nobody reads."""
    script = "head -c 24000000 /dev/zero >&2; head -c 24000000 /dev/zero"
    done = remote.run(["sh", "-c", script], stdin=b"x" * 5_000_000)
    assert (done.status, len(done.stdout), len(done.stderr)) == (0, 24_000_000, 24_000_000)


def test_long_input_arrives_whole(remote: SshRemote) -> None:
    assert remote.run(["wc", "-c"], stdin=b"x" * 8_000_000).stdout.strip() == "8000000"


def test_a_program_that_does_not_end_in_time(remote: SshRemote) -> None:
    started = time.monotonic()
    with pytest.raises(LinkLost, match=r"sleep on 127\.0\.0\.1 did not end within 0\.5 s"):
        remote.run(["sleep", "5"], timeout_s=0.5)
    assert time.monotonic() - started < 3
    assert remote.run(["true"]).status == 0


def test_a_program_ended_by_a_signal_is_no_lost_connection(remote: SshRemote) -> None:
    assert remote.run(["sh", "-c", "kill -9 $$"]).status > 127


def test_an_unknown_program(remote: SshRemote) -> None:
    done = remote.run(["no-such-program"])
    assert done.status == 127
    assert "no-such-program" in done.stderr


def test_many_programs_at_once(remote: SshRemote) -> None:
    """More than OpenSSH's ten sessions a connection."""
    results: list[str] = []
    threads = [threading.Thread(target=lambda i=i: results.append(remote.run(["echo", str(i)]).stdout)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(map(int, results)) == list(range(16))


def test_a_program_that_ends_before_the_end_of_its_input_is_sent(remote: SshRemote, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message about a channel that was closed meanwhile would make OpenSSH end the connection."""
    transport = remote._transport
    send, end_of_input = transport._send_user_message, 96  # SSH_MSG_CHANNEL_EOF (RFC 4254, section 9)

    def send_late(message: Any) -> None:
        if message.asbytes()[0] == end_of_input:
            time.sleep(0.5)
        send(message)

    with monkeypatch.context() as patch:
        patch.setattr(transport, "_send_user_message", send_late)
        assert remote.run(["true"]).status == 0
    assert remote.run(["echo", "still here"]).stdout == "still here\n"


def test_a_program_left_running(remote: SshRemote) -> None:
    process = remote.start(["sh", "-c", 'echo ready >&2; while read -r line; do echo "got $line"; done; echo bye; printf half; exit 4'])
    assert process.poll() is None
    process.write(b"one\ntwo\n")
    assert process.read_line(10) == "got one"
    assert process.read_line(10) == "got two"
    with pytest.raises(LinkLost, match=r"wrote no line within 0\.2 s"):
        process.read_line(0.2)
    process.write(b"three\n")  # a reader's limit does not harm the rest
    assert process.read_line(10) == "got three"
    assert process.last_words() == "ready\n"
    process.stop()


def test_the_end_of_a_program_left_running(remote: SshRemote) -> None:
    process = remote.start(["sh", "-c", "echo last; printf half; head -c 2000 /dev/zero | tr '\\0' e >&2; exit 4"])
    assert [process.read_line(10) for _ in range(3)] == ["last", "half", ""]
    wait_until(lambda: process.poll() is not None, "the exit status")
    assert process.poll() == 4
    assert process.last_words() == "e" * 600
    with pytest.raises(LinkLost, match="has ended"):
        process.write(b"x")


def test_no_input_is_sent_to_a_program_that_has_ended_while_another_holds_its_output(remote: SshRemote) -> None:
    process = remote.start(["sh", "-c", "sleep 3 & exit 4"])
    wait_until(lambda: process.poll() is not None, "the exit status")
    with pytest.raises(LinkLost, match="has ended"):
        process.write(b"x")
    process.stop()


def test_stop_ends_a_program_that_watches_its_input(remote: SshRemote, tmp_path: Path) -> None:
    mark = tmp_path / "ended"
    process = remote.start(["sh", "-c", 'echo up; cat > /dev/null; echo > "$1"', "sh", str(mark)])
    assert process.read_line(10) == "up"
    assert not mark.exists()
    process.stop()
    process.stop()
    wait_until(mark.exists, "the program to end")


# --- files


@pytest.mark.parametrize("sftp", [True, False], ids=["sftp", "no sftp"])
def test_files_there_and_back(own: Callable[..., Server], tmp_path: Path, sftp: bool) -> None:
    server = own() if sftp else own("Subsystem nothing /bin/false")
    source, folder = tmp_path / NASTY, tmp_path / "on the 'board'"
    folder.mkdir()
    source.write_bytes(os.urandom(3_000_001))
    source.chmod(0o750)
    target = folder / NASTY
    target.write_bytes(b"an older one")
    back = tmp_path / "back" / NASTY
    remote = connect_ssh(server.address)
    try:
        remote.push(source, str(target))
        assert target.read_bytes() == source.read_bytes()
        assert target.stat().st_mode & 0o777 == 0o750
        remote.pull(str(target), back)
        assert back.read_bytes() == source.read_bytes()
        assert [path.name for path in folder.iterdir()] == [NASTY]
        (tmp_path / "empty").touch()
        remote.push(tmp_path / "empty", str(target))
        remote.pull(str(target), back)
        assert back.read_bytes() == b""
    finally:
        remote.close()
    assert not (server.home / "pwned").exists()


def test_a_file_without_a_size_can_be_pulled(remote: SshRemote, tmp_path: Path) -> None:
    remote.pull("/proc/self/status", tmp_path / "status")
    assert (tmp_path / "status").read_text().startswith("Name:")


@pytest.mark.parametrize("sftp", [True, False], ids=["sftp", "no sftp"])
def test_files_that_cannot_be_copied(own: Callable[..., Server], tmp_path: Path, sftp: bool) -> None:
    server = own() if sftp else own("Subsystem nothing /bin/false")
    source = tmp_path / "source"
    source.write_bytes(b"content")
    remote = connect_ssh(server.address)
    try:
        with pytest.raises(OSError, match="No such file") as caught:
            remote.push(source, str(tmp_path / "nowhere" / "file"))
        assert caught.value.errno == errno.ENOENT
        with pytest.raises(FileNotFoundError):
            remote.push(tmp_path / "missing", str(tmp_path / "file"))
        back = tmp_path / "back"
        back.write_bytes(b"as it was")
        with pytest.raises(FileNotFoundError, match="No such file or directory on 127"):
            remote.pull(str(tmp_path / "missing"), back)
        with pytest.raises(IsADirectoryError):
            remote.pull(str(tmp_path), back)
        assert back.read_bytes() == b"as it was"
        with pytest.raises(OSError, match="file"):
            remote.pull(str(source), source / "below a file")
        assert remote.run(["true"]).status == 0
    finally:
        remote.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("sftp", [True, False], ids=["sftp", "no sftp"])
def test_a_full_disk(own: Callable[..., Server], small_disk: Path, tmp_path: Path, sftp: bool) -> None:
    server = own() if sftp else own("Subsystem nothing /bin/false")
    big, target = tmp_path / "big", small_disk / "file"
    big.write_bytes(bytes(1_500_000))  # few enough for SFTP to send all of it before it reads an answer
    target.write_bytes(b"as it was")
    remote = connect_ssh(server.address)
    try:
        with pytest.raises(OSError, match="No space left on device on 127") as caught:
            remote.push(big, str(target))
    finally:
        remote.close()
    assert caught.value.errno == errno.ENOSPC
    assert target.read_bytes() == b"as it was"
    assert [path.name for path in small_disk.iterdir()] == ["file"]


@pytest.mark.parametrize("sftp", [True, False], ids=["sftp", "no sftp"])
def test_a_connection_that_breaks_while_a_file_is_copied(own: Callable[..., Server], tmp_path: Path, sftp: bool) -> None:
    server = own() if sftp else own("Subsystem nothing /bin/false")
    big, target, part = tmp_path / "big", tmp_path / "target", tmp_path / "target.part"
    with big.open("wb") as stream:
        stream.truncate(1 << 30)
    target.write_bytes(b"as it was")
    remote = connect_ssh(server.address)

    def cut() -> None:
        wait_until(lambda: part.exists() and part.stat().st_size > 0, "the copy to begin")
        server.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        with pytest.raises(LinkLost, match="was lost"):
            remote.push(big, str(target))
    finally:
        cutter.join()
        remote.close()
    wait_until(lambda: sftp or not part.exists(), "the rest to be removed")
    assert target.read_bytes() == b"as it was"


def test_ctrl_c_while_a_file_is_copied(own: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a packet."""
    put, moved = paramiko.SFTPClient._async_request, list[int]()

    def interrupted(*arguments: Any) -> Any:
        moved.append(1)
        if len(moved) == 20:
            signal.raise_signal(signal.SIGINT)
        return put(*arguments)

    server = own()
    (tmp_path / "big").write_bytes(bytes(4 << 20))
    remote = connect_ssh(server.address)
    monkeypatch.setattr(paramiko.SFTPClient, "_async_request", interrupted)
    begun = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            remote.push(tmp_path / "big", str(tmp_path / "target"))
        assert time.monotonic() - begun < 5
        assert remote.run(["true"]).status == 0, "the connection is as good as before"
    finally:
        remote.close()
    assert sorted(path.name for path in tmp_path.glob("target*")) == []


# --- ports


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_ports_carry_data_both_ways(remote: SshRemote, direction: str) -> None:
    content = os.urandom(8 << 20)
    with _echo_server() as port:
        assert _through(getattr(remote, direction)(port), content) == content


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_ports_lead_each_where_they_should(remote: SshRemote, direction: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        listeners = [one, two]
        ports = [getattr(remote, direction)(listener.getsockname()[1]) for listener in listeners]
        assert len({*ports, *(listener.getsockname()[1] for listener in listeners)}) == 4
        for number, listener in reversed(list(enumerate(listeners))):
            listener.settimeout(10)
            with socket.create_connection(("127.0.0.1", ports[number]), 10) as sock:
                peer, _ = listener.accept()
                with peer:
                    peer.sendall(b"%d" % number)
                    assert sock.recv(10) == b"%d" % number


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_port_where_nobody_listens_ends_the_connection(remote: SshRemote, direction: str) -> None:
    port = getattr(remote, direction)(free_port())
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        assert sock.recv(1) == b""
    assert remote.alive()


def test_small_messages_are_not_held_back(remote: SshRemote) -> None:
    """Each way; Nagle's algorithm would make 40 ms of each, 8 s in all."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", remote.forward(listener.getsockname()[1])), 10))
        peer = stack.enter_context(listener.accept()[0])
        for end in (sock, peer):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        started = time.monotonic()
        for _ in range(100):
            sock.sendall(b"a")
            sock.sendall(b"b")
            assert _exactly(peer, 2) == b"ab"
            peer.sendall(b"c")
            peer.sendall(b"d")
            assert _exactly(sock, 2) == b"cd"
        assert time.monotonic() - started < 6


def test_a_reset_connection_ends_the_other_side(remote: SshRemote) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        sock = socket.create_connection(("127.0.0.1", remote.forward(listener.getsockname()[1])), 10)
        peer, _ = listener.accept()
        with peer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
            peer.settimeout(10)
            assert peer.recv(1) == b""


def test_a_server_that_forwards_nothing(own: Callable[..., Server]) -> None:
    remote = connect_ssh(own("AllowTcpForwarding no").address)
    try:
        with pytest.raises(LinkLost, match="refuses to forward ports"):
            remote.reverse(9)
        assert remote.run(["true"]).status == 0
    finally:
        remote.close()


def test_nothing_is_left_after_closing(shared: Server, home: Home) -> None:
    """In the middle of everything; the autouse fixture looks for what is left of it."""
    remote = connect_ssh(shared.address)
    process = remote.start(["cat"])
    failures: list[BaseException] = []

    def work() -> None:
        try:
            remote.run(["sh", "-c", "echo; read -r line"], stdin=b"")
            remote.run(["sleep", "20"])
        except BaseException as error:
            failures.append(error)

    busy = threading.Thread(target=work)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        port, there = remote.forward(listener.getsockname()[1]), remote.reverse(listener.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port), 10) as one, socket.create_connection(("127.0.0.1", there), 10) as two:
            peers = [listener.accept()[0], listener.accept()[0]]
            busy.start()
            wait_until(lambda: any("sleep" in child.cmdline() for child in shared.sessions()), "the long program")
            started = time.monotonic()
            remote.close()
            remote.close()
            assert time.monotonic() - started < 3
            for sock in (one, two, *peers):
                sock.settimeout(10)
                assert sock.recv(1) == b""
                sock.close()
    busy.join(5)
    assert [type(error) for error in failures] == [LinkLost]
    assert process.poll() == -1
    assert not remote.alive()
    for use in (lambda: remote.run(["true"]), lambda: remote.start(["true"]), lambda: remote.forward(1), lambda: remote.reverse(1)):
        with pytest.raises(LinkLost, match="was lost"):
            use()
    with pytest.raises(LinkLost):
        remote.push(home.key, "/nowhere/file")
    with pytest.raises(LinkLost):
        process.read_line(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)
    shared.signal_sessions(signal.SIGKILL)


# --- lost connections


def test_a_server_killed_during_a_program(own: Callable[..., Server]) -> None:
    server = own()
    remote = connect_ssh(server.address)
    try:
        process = remote.start(["sh", "-c", "echo up; cat"])
        assert process.read_line(10) == "up"
        killer = threading.Timer(0.5, server.signal_sessions, (signal.SIGKILL,))
        killer.start()
        started = time.monotonic()
        with pytest.raises(LinkLost, match=r"connection to 127\.0\.0\.1 was lost"):
            remote.run(["sleep", "30"])
        assert time.monotonic() - started < 5
        killer.join()
        with pytest.raises(LinkLost):
            process.read_line(5)
        assert process.poll() == -1
        assert not remote.alive()
    finally:
        remote.close()


def test_a_silent_server_is_noticed(own: Callable[..., Server]) -> None:
    server = own()
    remote = connect_ssh(server.address)
    try:
        assert remote.alive()
        server.signal_sessions(signal.SIGSTOP)
        started = time.monotonic()
        assert not remote.alive()
        with pytest.raises(LinkLost, match="did not answer"):
            remote.run(["true"], timeout_s=1)
        assert time.monotonic() - started < 6
        server.signal_sessions(signal.SIGCONT)
        wait_until(remote.alive, "the server to answer again")
        assert remote.run(["echo", "again"]).stdout == "again\n"
    finally:
        remote.close()


# --- who is there


def test_only_the_agreed_host_key_is_accepted(own: Callable[..., Server], home: Home, tmp_path: Path) -> None:
    server = own()
    other = public_key(new_key(tmp_path / "other"))
    with pytest.raises(DeviceUnavailable) as caught:
        connect_ssh(server.address.model_copy(update={"host_key": other}))
    now = public_key(server.host_keys["ed25519"])
    assert caught.value.exit_code == ExitCode.DEVICE_UNAVAILABLE
    assert "127.0.0.1" in caught.value.message and caught.value.message.count("\n") == 0
    assert caught.value.message.index(fingerprint_of(other)) < caught.value.message.index(fingerprint_of(now))
    assert "tvmmobile device remove" in caught.value.remedy
    assert "Accepted" not in server.log


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_the_agreed_type_of_host_key_is_asked_for(shared: Server, home: Home, kind: str) -> None:
    address = shared.address.model_copy(update={"host_key": public_key(shared.host_keys[kind])})
    connect_ssh(address).close()
    home.know(f"[127.0.0.1]:{shared.port} {public_key(shared.host_keys[kind])}")
    found = host_key_of("127.0.0.1", shared.port)
    assert (found.text, found.known) == (public_key(shared.host_keys[kind]), "known")


def test_a_host_key_is_described_as_openssh_does(shared: Server, home: Home) -> None:
    found = host_key_of("nobody@127.0.0.1", shared.port)
    listed = subprocess.run(["ssh-keygen", "-l", "-f", f"{shared.host_keys['ed25519']}.pub"], capture_output=True, text=True, check=True)
    assert found.text == public_key(shared.host_keys["ed25519"])
    assert found.fingerprint == listed.stdout.split()[1]
    assert found.known == "unknown"


def test_what_known_hosts_says(shared: Server, home: Home, tmp_path: Path) -> None:
    key, other = public_key(shared.host_keys["ed25519"]), public_key(new_key(tmp_path / "other"))
    where = f"[127.0.0.1]:{shared.port}"
    cases = {
        "known": [f"{where} {key} comment"],
        "known with others": ["# a comment", "", "nonsense", f"somewhere {other}", f"somewhere,{where} {key}"],
        "known with patterns": [f"[127.*.1]:{shared.port} {key}"],
        "known without the port": [f"127.0.0.1 {key}"],
        "known by one of two": [f"{where} {other}", f"{where} {key}"],
        "unknown": [f"somewhere {key}"],
        "unknown for other ports": [f"[127.0.0.1]:1 {other}"],
        "unknown when negated": [f"!{where},!127.0.0.1,* {key}"],
        "unknown as an authority": [f"@cert-authority {where} {other}"],
        "changed": [f"{where} {other}"],
        "changed for the port": [f"127.0.0.1 {key}", f"{where} {other}"],
        "changed as revoked": [f"{where} {key}", f"@revoked * {key}"],
    }
    for expected, lines in cases.items():
        home.know(*lines)
        assert host_key_of("127.0.0.1", shared.port).known == expected.split()[0], expected


def test_hashed_names_in_known_hosts(shared: Server, home: Home, tmp_path: Path) -> None:
    for key, expected in ((public_key(shared.host_keys["ed25519"]), "known"), (public_key(new_key(tmp_path / "other")), "changed")):
        home.know(f"[127.0.0.1]:{shared.port} {key}")
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(home.ssh / "known_hosts")], check=True, capture_output=True)
        assert "127.0.0.1" not in (home.ssh / "known_hosts").read_text()
        assert host_key_of("127.0.0.1", shared.port).known == expected


# --- who may come in


def test_a_refused_key(shared: Server, home: Home) -> None:
    home.key.unlink()
    Path(f"{home.key}.pub").unlink()
    new_key(home.key)
    with pytest.raises(DeviceUnavailable, match=rf"refuses user {USER}: tried ~/\.ssh/id_ed25519\.") as caught:
        connect_ssh(shared.address)
    assert caught.value.remedy.startswith(f"Run: ssh-copy-id -p {shared.port} {USER}@127.0.0.1")


def test_no_key_at_all(shared: Server, home: Home) -> None:
    home.key.unlink()
    with pytest.raises(DeviceUnavailable, match="there is no key to try") as caught:
        connect_ssh(shared.address)
    assert "ssh-keygen" in caught.value.remedy


def test_a_key_with_a_passphrase_and_without_an_agent(shared: Server, home: Home) -> None:
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(home.key)], check=True, capture_output=True)
    with pytest.raises(DeviceUnavailable, match=r"~/\.ssh/id_ed25519 needs a passphrase") as caught:
        connect_ssh(shared.address)
    assert caught.value.remedy == f"Run: ssh-add {home.key}"


def test_a_damaged_key_is_named(shared: Server, home: Home) -> None:
    home.key.write_text("no key\n")
    with pytest.raises(DeviceUnavailable, match=r"~/\.ssh/id_ed25519 cannot be read"):
        connect_ssh(shared.address)


def test_a_server_that_takes_no_keys(own: Callable[..., Server]) -> None:
    server = own("PubkeyAuthentication no", "PasswordAuthentication yes")
    with pytest.raises(DeviceUnavailable, match=f"does not let {USER} in with a key alone; it asks for password"):
        connect_ssh(server.address)


def test_a_key_of_the_agent(shared: Server, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = tmp_path / "away"
    home.key.rename(away)
    others = [new_key(tmp_path / f"other{number}") for number in range(7)]
    with ssh_agent(tmp_path / "agent"):
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        with pytest.raises(DeviceUnavailable, match="no key to try"):
            connect_ssh(shared.address)
        # The server ends a connection after six refused keys; the right one is the eighth.
        subprocess.run(["ssh-add", "-q", *map(str, others), str(away)], check=True, capture_output=True)
        connect_ssh(shared.address).close()
        home.config(f"IdentitiesOnly yes\nIdentityFile {others[0]}\n")
        with pytest.raises(DeviceUnavailable, match="tried 1 key of the ssh agent"):
            connect_ssh(shared.address)
        home.config(f"IdentitiesOnly yes\nIdentityFile {home.key}\n")  # whose public half is still there
        connect_ssh(shared.address).close()
        home.config("IdentityAgent none\n")
        with pytest.raises(DeviceUnavailable, match="no key to try"):
            connect_ssh(shared.address)


# --- ~/.ssh/config


def test_an_alias(shared: Server, home: Home) -> None:
    key = home.key.rename(home.ssh / "board key")
    home.config("Include conf.d/*\nHost *\n  IdentityFile ~/.ssh/nothing\n  HostKeyAlias the-board\nHost other\n  Port 1\n")
    (home.ssh / "conf.d").mkdir()
    (home.ssh / "conf.d" / "boards").write_text(
        f'Host board\n  HostName 127.0.0.1\n  Port {shared.port}\n  User {USER}\n  IdentityFile "{key}"\n  ConnectTimeout 7\n'
    )
    route = route_to("board", None)
    assert (route.host, route.port, route.user, route.timeout_s, route.known_as) == ("127.0.0.1", shared.port, USER, 7.0, "the-board")
    assert route.key_files == (key, home.ssh / "nothing")
    address = SshAddress(destination="board", host_key=public_key(shared.host_keys["ed25519"]))
    connect_ssh(address).close()
    home.know(f"the-board {public_key(shared.host_keys['ed25519'])}")
    assert host_key_of("board").known == "known"
    # What the user gives counts more than the configuration.
    assert (route_to("pi@board", 22).user, route_to("pi@board", 22).port) == ("pi", 22)


@pytest.mark.parametrize("destination", ["", "user@", "@host", "-oProxyCommand=id", "a b", "$(id)", "-l@host", "a;b@host", "host;id"])
def test_what_is_no_destination(home: Home, destination: str) -> None:
    with pytest.raises(DeviceUnavailable, match="not an SSH destination"):
        route_to(destination, None)


def test_a_configuration_that_cannot_be_understood(home: Home) -> None:
    home.config("Match nonsense\n")
    with pytest.raises(DeviceUnavailable, match="configuration of board cannot be parsed"):
        route_to("board", None)


def test_a_proxy_command(shared: Server, home: Home, tmp_path: Path) -> None:
    relay = tmp_path / "relay.py"
    relay.write_text(
        "import socket, sys, threading, os\n"
        "sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def back():\n"
        "    while chunk := sock.recv(65536):\n"
        "        os.write(1, chunk)\n"
        "    os._exit(0)\n"
        "threading.Thread(target=back).start()\n"
        "while chunk := os.read(0, 65536):\n"
        "    sock.sendall(chunk)\n"
        "os._exit(0)\n"
    )
    home.config(f"Host board\n  HostName 127.0.0.1\n  ProxyCommand python3 '{relay}' %h %p\n")
    remote = connect_ssh(shared.address.model_copy(update={"destination": "board"}))
    proxies = [child for child in psutil.Process().children() if str(relay) in " ".join(child.cmdline())]
    try:
        assert len(proxies) == 1
        assert remote.run(["cat"], stdin=b"x" * 1_000_000).stdout == "x" * 1_000_000
    finally:
        remote.close()
    assert not proxies[0].is_running()
    home.config("Host board\n  HostName 127.0.0.1\n  ProxyCommand echo no way >&2; false\n")
    with pytest.raises(DeviceUnavailable, match="cannot be reached through its proxy: no way"):
        host_key_of("board", shared.port)


def test_jump_hosts_are_left_to_openssh(home: Home) -> None:
    home.config("Host board\n  HostName 10.0.0.7\n  ProxyJump one,me@two:2222\nHost direct\n  ProxyJump none\n")
    proxy = route_to("board", 2022).proxy
    assert proxy is not None
    assert proxy[0] == "ssh" and proxy[-5:] == ("-J", "one", "-W", "[10.0.0.7]:2022", "ssh://me@two:2222")
    assert route_to("direct", None).proxy is None


# --- nobody there


def test_a_closed_port(home: Home) -> None:
    port = free_port()
    with pytest.raises(DeviceUnavailable, match=f"127.0.0.1 port {port} refuses connections") as caught:
        host_key_of("127.0.0.1", port)
    assert caught.value.remedy


def test_a_name_that_does_not_resolve(home: Home) -> None:
    with pytest.raises(DeviceUnavailable, match=r"The name no-such-board\.invalid cannot be resolved"):
        host_key_of("no-such-board.invalid", timeout_s=5)


@pytest.mark.parametrize("banner", [b"", b"SSH-2.0-OpenSSH_9.2p1\r\n"], ids=["no banner", "a banner"])
def test_a_server_that_never_speaks(home: Home, banner: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        peers: list[socket.socket] = []

        def accept() -> None:
            peers.append(listener.accept()[0])
            peers[0].sendall(banner)

        thread = threading.Thread(target=accept)
        thread.start()
        address = SshAddress(destination="127.0.0.1", port=port, host_key="ssh-ed25519 AAAA")
        started = time.monotonic()
        with pytest.raises(DeviceUnavailable, match=f"127.0.0.1 port {port} did not answer within 1 s"):
            connect_ssh(address, timeout_s=1)
        assert time.monotonic() - started < 2
        thread.join()
        peers[0].close()


def test_a_server_of_another_kind(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(DeviceUnavailable, match="does not answer as an SSH server does"):
            host_key_of("127.0.0.1", listener.getsockname()[1], timeout_s=5)
        thread.join()


def _hang_up_amid_key_exchange(listener: socket.socket) -> None:
    peer, _ = listener.accept()
    with peer:
        peer.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
        peer.recv(8)


def test_a_server_that_hangs_up(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_hang_up_amid_key_exchange, args=(listener,))
        thread.start()
        with pytest.raises(DeviceUnavailable, match="broke off the key exchange"):
            host_key_of("127.0.0.1", listener.getsockname()[1], timeout_s=30)
        thread.join()


def test_failures_are_said_once(home: Home) -> None:
    """Not by tracebacks from paramiko's own thread as well. In a process without pytest's logging."""
    script = "import sys; from tvmmobile.devices.ssh.keys import host_key_of; host_key_of('127.0.0.1', int(sys.argv[1]), 30)"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        words = [sys.executable, "-c", script, str(listener.getsockname()[1])]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
        thread.join()
    assert "DeviceUnavailable" in done.stderr
    assert "paramiko" not in done.stderr
