"""Tests of faults on a board that boots: nothing measured is lost, nothing stays there, and the user learns what to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from booted_image import Image
from booted_machine import BOOT_S, Machine, machine
from commands import count_records, records
from conftest import CommandLine, Outcome
from debian import debian_folder

from tvmmobile.devices.board.lease import LEASE_S
from tvmmobile.devices.board.registered import DeviceFile, load_device, save_device
from tvmmobile.system.errors import ExitCode

pytestmark = pytest.mark.long
again = pytest.mark.parametrize("time_", range(3))
#: A machine that starts up accepts connections of QEMU before its SSH server answers them.
AWAY = (
    "answer",
    "refuses connections",
    "cannot be reached",
    "broke off the key exchange",
    "did not log",
    "connection to 127.0.0.1 was lost",
)
#: Leaves the board's user no block of the disk, and two steps: the first takes what the second would need minutes for.
NEARLY_FULL = "cd /home/plain; fallocate -l $(($(df --output=avail -B1 . | tail -1) - 3000000)) most"
FULL = "cat /dev/zero >/home/plain/rest; true"
FREE = "rm -f /home/plain/most /home/plain/rest"
READ_ONLY = "echo u >/proc/sysrq-trigger; while touch /home/plain/probe; do sleep 1; done 2>/dev/null"
NO_PROGRAMS = "mount --bind /home /home; mount -o remount,bind,noexec /home"
#: The kernel kills a program of the user's as soon as it needs more.
NO_MEMORY, MEMORY = (f"systemctl set-property --runtime user-$(id -u plain).slice MemoryMax={most}" for most in ("4M", "infinity"))


class User:
    """Somebody with a registered board, `booted`."""

    def __init__(self, machine: Machine, cli: CommandLine, folder: Path, network: list[str]) -> None:
        self.machine, self._cli, self.logs = machine, cli, folder / "logs"
        self._tuning = (*network, "--logs", str(self.logs), "--out", str(folder / "out"))

    def __call__(self, *words: str) -> Outcome:
        """Run a command, which never ends with a traceback."""
        outcome = self._cli(*words)
        assert "Traceback" not in outcome.err and "internal error" not in outcome.err, outcome.err
        return outcome

    def add(self, name: str, user: str = "plain", *more: str) -> Outcome:
        """Register the machine under a further name."""
        return self(*self.machine.add_words(name, user, *more))

    def tune(self, *more: str, device: str = "booted") -> Outcome:
        """Tune to the end."""
        return self("tune", "--device", device, *self._tuning, "--trials", "3", *more)

    def found(self) -> list[dict[str, Any]]:
        """Return the records so far; none blames a candidate."""
        kept = records(self.logs, corrected=True)
        assert not any(record.get("error") for record in kept), kept
        return kept

    def struck(self, fault: Callable[[], object]) -> Outcome:
        """Tune, with a fault once some candidates are measured; nothing that was is lost."""
        ended = threading.Event()

        def strike() -> int:
            while (before := count_records(self.logs)) < 2 and not ended.is_set():
                time.sleep(0.05)
            if not ended.is_set():
                fault()
            return before

        with ThreadPoolExecutor(1) as pool:
            striking = pool.submit(strike)
            outcome = self.tune()
            ended.set()
            assert 2 <= striking.result() <= len(self.found()), outcome
        return outcome

    def assert_outlived(self, outcome: Outcome, *sentences: str) -> None:
        """The run went on, or ended with one of these sentences and goes on with the same command; nothing is left of it."""
        if outcome.code != 0:
            assert outcome.code == ExitCode.DEVICE_UNAVAILABLE and any(words in outcome.err for words in sentences), outcome.err
            kept = self.found()
            outcome = self.tune()
            assert self.found()[: len(kept)] == kept
        assert outcome.code == 0, outcome.err
        self.found()
        assert self.machine.leftovers() == []

    def assert_ready(self, name: str) -> None:
        """The device is ready, and nothing of earlier runs is on it."""
        outcome = self("device", "check", name)
        assert outcome.code == 0 and f"{name} is ready." in outcome.out, outcome.err
        assert self.machine.leftovers() == []

    def refused(self, outcome: Outcome, *words: str) -> None:
        """The board cannot be used, for the reason in these words."""
        assert outcome.code == ExitCode.DEVICE_UNAVAILABLE and all(word in outcome.err for word in words), outcome


@pytest.fixture(scope="module")
def board(debian: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, list[DeviceFile]]]:
    """The machine, and how it is registered once it is."""
    with machine(debian, tmp_path_factory.mktemp("machine")) as made:
        yield made, []


@pytest.fixture
def user(board: tuple[Machine, list[DeviceFile]], cli: CommandLine, tmp_path: Path, network: list[str]) -> User:
    """One whose machine just registered it."""
    made, registered = board
    someone = User(made, cli, tmp_path, network)
    if registered:
        made.resume()
        save_device(registered[0])
    else:
        outcome = someone.add("booted")
        device = load_device("booted")
        assert outcome.code == 0 and device is not None, outcome.err
        registered.append(device)
        made.keep()
    return someone


@again
def test_reboot(user: User, time_: int) -> None:
    first = user.machine.boot()

    def reboot() -> None:
        user.machine.user("root", "systemctl reboot")
        deadline = time.monotonic() + BOOT_S
        while user.machine.user("root", "cat /proc/sys/kernel/random/boot_id").out in ("", first):
            assert time.monotonic() < deadline
            time.sleep(1)

    user.assert_outlived(user.struck(reboot), *AWAY)


@again
def test_power_cut(user: User, time_: int) -> None:
    def cut() -> None:
        user.machine.cut_power()
        user.machine.start()

    user.assert_outlived(user.struck(cut), *AWAY)


@again
def test_power_cut_after_the_installation(user: User, time_: int) -> None:
    """Files that did not reach the disk are sent again."""
    assert user.add("other", "plain", "--directory", "/home/plain/other").code == 0
    user.machine.cut_power()
    user.machine.start()
    user.assert_ready("other")


@again
def test_full_disk(user: User, time_: int) -> None:
    user.machine.root(NEARLY_FULL)
    struck = user.struck(lambda: user.machine.user("plain", FULL))
    user.refused(struck, "its disk is full.", "Free some megabytes", "un the same command again")
    # Once the library is being timed, the link may be the one that notices; its sentence does not tell that measurements are kept.
    assert ("booted cannot store" in struck.err and "are kept" in struck.err) or "/work-" in struck.err, struck.err
    user.refused(user.add("other", "plain", "--directory", "/home/plain/other"), "disk is full", "Free some megabytes")
    user.machine.root(FREE)
    user.assert_outlived(user.tune())


@again
def test_read_only_root(user: User, time_: int) -> None:
    user.refused(user.struck(lambda: user.machine.root(READ_ONLY)), "its disk is read-only.", "dmesg", "un the same command again")
    time.sleep(LEASE_S)  # nobody can take the lease off a read-only disk
    user.refused(user("device", "check", "booted"), "its disk is read-only", "dmesg")
    user.refused(user.add("other", "plain", "--directory", "/home/plain/other"), "its disk is read-only", "dmesg")
    user.machine.root("mount -o remount,rw /")
    user.assert_outlived(user.tune())


@again
def test_home_without_programs(user: User, time_: int) -> None:
    user.machine.root(NO_PROGRAMS)
    user.refused(user("device", "check", "booted"), "noexec")
    user.refused(user.add("other", "plain", "--directory", "/home/plain/other"), "noexec", "--directory")
    assert user.add("other", "plain", "--directory", "/var/tmp/tvmmobile").code == 0
    user.assert_ready("other")


@again
def test_no_sudo(user: User, time_: int) -> None:
    """A governor that root alone may set, as the kernel's; QEMU's machine has none of its own."""
    tree, governor = "/srv/tree", "/srv/tree/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    user.machine.root(
        f"mkdir -p {tree}/proc $(dirname {governor}) && mount --bind /proc {tree}/proc && install -d -m 1777 {tree}/tmp && "
        f"echo ondemand >{governor} && echo 1500000 >$(dirname {governor})/cpuinfo_max_freq"
    )
    for name, words in (("plain", ("does not let its user set the governor", "Leave out --pin")), ("admin", ())):
        assert user.add("booted2" if words else "booted3", name, "--root", tree).code == 0
        outcome = user.tune("--pin", device="booted2" if words else "booted3")
        if words:
            user.refused(outcome, *words)
        else:
            assert outcome.code == 0, outcome.err
        assert user.machine.root(f"cat {governor}").out == "ondemand\n"


@again
def test_clock_that_jumps(user: User, time_: int) -> None:
    way = ("+1 year", "-1 year")[time_ % 2]
    user.assert_outlived(user.struck(lambda: user.machine.root(f"date -s '{way}'")))


@again
def test_memory_that_runs_out(user: User, time_: int) -> None:
    def exhaust() -> None:
        user.machine.root(NO_MEMORY)
        time.sleep(5)
        user.machine.root(MEMORY)

    user.assert_outlived(user.struck(exhaust), *AWAY)
    assert "out of memory: Killed process" in user.machine.root("dmesg").out


@again
def test_core_that_is_taken_away(user: User, time_: int) -> None:
    user.assert_outlived(user.struck(lambda: user.machine.root("echo 0 >/sys/devices/system/cpu/cpu3/online")))


@again
def test_ssh_server_that_is_started_again(user: User, time_: int) -> None:
    """Its connections end, too."""
    restart = "systemctl restart ssh; pkill -KILL -u plain sshd; true"
    user.assert_outlived(user.struck(lambda: user.machine.user("root", restart)), *AWAY)


@again
def test_32_bit_programs_on_a_64_bit_kernel(user: User, time_: int) -> None:
    """The user's shell and its commands are for 32-bit Arm; the agent brings all that it needs."""
    where = "/srv/old"
    busybox = debian_folder(("busybox-static",), "armhf", "bookworm") / "bin/busybox"
    folders = " ".join(f"{where}/{name}" for name in ("bin", "home/old", "tmp", "proc", "sys", "dev"))
    user.machine.send(busybox, "root", f"mkdir -p {folders}; cat >{where}/bin/busybox")
    user.machine.root(
        f"cd {where} && chmod 755 bin/busybox && chroot . /bin/busybox --install -s /bin && chmod 1777 tmp && chown old:old home/old && "
        "printf '#!/bin/sh\\nexec sh \"$@\"\\n' >bin/bash && chmod 755 bin/bash && "
        "for place in proc sys dev; do mount --rbind /$place $place; done"
    )
    elf_class = user.machine.user("old", "dd if=/bin/busybox bs=1 skip=4 count=1 2>/dev/null | od -An -tu1").out.split()
    assert elf_class == ["1"]  # ELFCLASS32
    outcome = user.add("old", "old")
    assert outcome.code == 0, outcome.err
    user.assert_ready("old")
    assert user("device", "remove", "old").code == 0
