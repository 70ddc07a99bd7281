"""Programs on a phone: words, input and output, the end."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from phones import PATTERN, Phone, switched_on
from waiting import wait_until

from tvmmobile.devices.adb.remote import AdbRemote, connect_adb, devices
from tvmmobile.devices.board.remote import LinkLost

AWKWARD = ["a b", "$(echo no)", "`echo no`", "'", '"', "\\", "*", "~", "a\nb", "", "ü€", "-n", "$HOME", ";", "&", "#x"]


def test_status_output_and_errors_stay_apart(remote: AdbRemote) -> None:
    done = remote.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.status, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert remote.run(["sh", "-c", "kill -9 $$"]).status == 128 + 9
    missing = remote.run(["no-such-program"])
    assert missing.status == 127 and "no-such-program" in missing.stderr and missing.stdout == ""
    assert remote.run(["printf", "\\377"]).stdout == "\ufffd"


def test_words_arrive_as_they_are(remote: AdbRemote) -> None:
    assert remote.run(["printf", "%s|", *AWKWARD]).stdout == "".join(f"{word}|" for word in AWKWARD)
    with pytest.raises(LinkLost, match="too long"):
        remote.run(["echo", "x" * 70000])


def test_standard_input(remote: AdbRemote) -> None:
    assert remote.run(["cat"]).stdout == ""
    assert (
        remote.run(["cat"], stdin=PATTERN[: 1 << 20].replace(b"\xff", b"x").replace(b"\x80", b"y")[:128] * 4096).stdout
        == PATTERN[:128].decode() * 4096
    )
    assert remote.run(["sha256sum"], stdin=PATTERN).stdout.split()[0] == hashlib.sha256(PATTERN).hexdigest()
    assert remote.run(["sh", "-c", "echo done; exit 3"], stdin=PATTERN).status == 3, "input that nobody reads"


def test_a_program_that_takes_too_long(remote: AdbRemote, phone: Phone) -> None:
    start = time.monotonic()
    with pytest.raises(LinkLost, match=r"did not end within 0\.5 s"):
        remote.run(["sleep", "600"], timeout_s=0.5)
    assert time.monotonic() - start < 2
    wait_until(lambda: not phone.commands())
    assert remote.alive()


def test_a_started_program(remote: AdbRemote, phone: Phone) -> None:
    process = remote.start(["sh", "-c", 'echo ready; while read line; do echo "<$line>"; echo "saw $line" >&2; done; exit 4'])
    assert process.read_line(10) == "ready"
    assert process.poll() is None
    process.write(b"one\ntwo\n")
    assert [process.read_line(10), process.read_line(10)] == ["<one>", "<two>"]
    wait_until(lambda: process.last_words() == "saw one\nsaw two")
    with pytest.raises(LinkLost, match="no line within"):
        process.read_line(0.05)
    process.end_input()
    assert process.read_line(10) == ""
    wait_until(lambda: process.poll() == 4)
    with pytest.raises(LinkLost, match="has ended"):
        process.write(b"more\n")
    process.stop()
    assert process.poll() == 4


def test_stopping_and_closing_end_programs(remote: AdbRemote, phone: Phone) -> None:
    stopped = remote.start(["sleep", "600"])
    remote.start(["cat"])
    remote.start(["sh", "-c", "trap '' HUP; cat; sleep 0.2"])
    wait_until(lambda: len(phone.commands()) == 4)
    stopped.stop()
    wait_until(lambda: len(phone.commands()) == 3)
    assert stopped.poll() == -1
    remote.close()
    wait_until(lambda: not phone.commands())
    with pytest.raises(LinkLost, match="closed"):
        remote.run(["true"])
    assert not remote.alive()


def test_several_threads(remote: AdbRemote) -> None:
    answers: list[str] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(remote.run(["echo", str(n)]).stdout)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, answers)) == list(range(12))


def test_a_process_that_dies_leaves_no_program_behind(phone: Phone, server: int, repository: Path) -> None:
    script = (
        "import os, sys; from tvmmobile.devices.adb.remote import connect_adb; from tvmmobile.devices.board.registered import AdbAddress\n"
        "remote = connect_adb(AdbAddress(serial=sys.argv[1])); process = remote.start(['sh', '-c', 'echo on; cat'])\n"
        "assert process.read_line(10) == 'on'; os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, phone.address.serial], cwd=repository, check=False)
    assert done.returncode == -9
    wait_until(lambda: not phone.commands())


def test_the_phone_takes_what_it_starts_along(server: int, tmp_path: Path) -> None:
    with switched_on(tmp_path / "phone") as phone:
        remote = connect_adb(phone.address)
        remote.start(["sh", "-c", "trap '' HUP; sleep 600"])
        wait_until(lambda: len(phone.commands()) == 2)
        left = phone.commands()
    assert psutil.wait_procs(left, timeout=5)[1] == []
    remote.close()
    assert phone.address.serial not in dict(devices())
