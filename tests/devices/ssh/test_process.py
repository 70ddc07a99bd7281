"""Programs on a board behind SSH: words, input and output, the end."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from paramiko import Channel
from waiting import wait_until

from tvmmobile.devices.board.remote import LinkLost
from tvmmobile.devices.ssh.remote import SshRemote


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


@pytest.mark.parametrize("opening", [False, True])
def test_a_program_that_ends_before_the_end_of_its_input_is_sent(remote: SshRemote, monkeypatch: pytest.MonkeyPatch, opening: bool) -> None:
    """A message about a channel that was closed meanwhile would make OpenSSH end the connection.

    While another channel is being opened, paramiko has 0 for its number, which is that of the connection's first program.
    """
    transport = remote._transport
    if opening:
        another = Channel(1_000_000)
        transport._channels.put(1_000_000, another)
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
    assert process.last_words() == "ready"
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
