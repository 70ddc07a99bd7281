"""What happens to boards, on a board that boots: nothing measured is lost, nothing stays there, and the user learns what to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from booted_machine import BOOT_S, Machine
from commands import Command, records
from debian import debian_folder

from tvmmobile.system.errors import ExitCode

pytestmark = pytest.mark.long
#: How often each fault strikes.
TIMES = 3
#: A run under emulation, with an outage as long as a boot.
RUN_S = 1800.0
again = pytest.mark.parametrize("time_", range(TIMES))


class User:
    """Somebody at the other end, with commands of their own."""

    def __init__(self, machine: Machine, folder: Path, network: list[str]) -> None:
        self.machine, self.folder, self.network = machine, folder, network
        self.logs = folder / "logs"

    def command(self, *words: str) -> Command:
        """Start one."""
        return Command(self.folder, *words)

    def done(self, *words: str) -> tuple[int, str, str]:
        """Run one to its end: exit code, output, errors; it never ends with a traceback."""
        return self.ended(self.command(*words))

    def ended(self, command: Command) -> tuple[int, str, str]:
        """The same of one that runs."""
        code, out = command.wait(RUN_S)
        assert "Traceback" not in command.errors and "internal error" not in command.errors, command.errors
        return code, out, command.errors

    def add(self, name: str = "booted", user: str = "plain", *more: str) -> tuple[int, str, str]:
        """Register the machine."""
        return self.done(*self.machine.add_words(name, user, *more))

    def tune(self) -> Command:
        """Start to tune, and return once some candidates are measured."""
        command = self.command(*self.tuning)
        command.wait_until(lambda: len(self.found()) >= 2, RUN_S)
        return command

    @property
    def tuning(self) -> tuple[str, ...]:
        """The command line that tunes."""
        return ("tune", "--device", "booted", *self.network, "--trials", "6", "--logs", str(self.logs), "--out", str(self.folder / "out"))

    def found(self) -> list[dict[str, Any]]:
        """The records so far."""
        return [] if not self.logs.exists() else records(self.logs)

    def assert_ready(self, name: str = "booted") -> None:
        """The device is ready, and nothing of earlier runs is on it."""
        code, out, errors = self.done("device", "check", name)
        assert code == 0 and f"{name} is ready." in out, errors
        assert self.machine.leftovers() == []

    def assert_outlived(self, command: Command, before: int, known: tuple[str, ...] = ()) -> None:
        """The run either goes on after the outage, or ends with a sentence and goes on with the same command."""
        code, _, errors = self.ended(command)
        kept = self.found()
        assert len(kept) >= before and not any(record.get("error") for record in kept), kept
        if code != 0:
            assert code == ExitCode.DEVICE_UNAVAILABLE and any(words in errors for words in known), (code, errors)
            code, _, errors = self.done(*self.tuning)
            assert self.found()[: len(kept)] == kept
        assert code == 0, errors
        assert not any(record.get("error") for record in self.found())
        self.assert_ready()


@pytest.fixture
def user(booted: Machine, tmp_path: Path, network: list[str]) -> Iterator[User]:
    someone = User(booted, tmp_path, network)
    yield someone
    booted.root("rm -rf /home/*/.tvmmobile /tmp/tvmmobile.lease")


def struck(user: User, fault: Callable[[], object], known: tuple[str, ...] = ()) -> None:
    """A tuning run is struck in its middle, and outlives it."""
    assert user.add()[0] == 0
    command = user.tune()
    before = len(user.found())
    fault()
    user.assert_outlived(command, before, known)


AWAY = ("does not answer", "stopped answering", "refuses connections", "cannot be reached")


@again
def test_reboot(user: User, time_: int) -> None:
    first = user.machine.boot()

    def reboot() -> None:
        user.machine.user("root", "systemctl reboot")
        deadline = time.monotonic() + BOOT_S
        while user.machine.user("root", "cat /proc/sys/kernel/random/boot_id").out in ("", first):
            assert time.monotonic() < deadline
            time.sleep(1)

    struck(user, reboot, AWAY)


@again
def test_power_cut(user: User, time_: int) -> None:
    def cut() -> None:
        user.machine.cut_power()
        user.machine.start()

    struck(user, cut, AWAY)


@again
def test_power_cut_after_the_installation(user: User, time_: int) -> None:
    """What the disk did not get is sent again."""
    assert user.add()[0] == 0
    user.machine.cut_power()
    user.machine.start()
    user.assert_ready()


@again
def test_full_disk(user: User, time_: int) -> None:
    fill = "cd /home/plain; fallocate -l $(($(df --output=avail -B1 . | tail -1) - 65536)) full; su plain -c 'cat /dev/zero >rest'; true"
    free = "rm -f /home/plain/full /home/plain/rest"
    user.machine.root(fill)
    try:
        code, _, errors = user.add()
        assert code == ExitCode.DEVICE_UNAVAILABLE and "full" in errors, errors
    finally:
        user.machine.root(free)
    assert user.add()[0] == 0
    command = user.tune()
    before = len(user.found())
    user.machine.root(fill)
    try:
        code, _, errors = user.ended(command)
    finally:
        user.machine.root(free)
    assert len(user.found()) >= before and not any(record.get("error") for record in user.found())
    assert code == ExitCode.DEVICE_UNAVAILABLE and "full" in errors, (code, errors)
    assert user.done(*user.tuning)[0] == 0
    user.assert_ready()


@again
def test_read_only_root(user: User, time_: int) -> None:
    assert user.add()[0] == 0
    command = user.tune()
    before = len(user.found())
    user.machine.root("echo u >/proc/sysrq-trigger; sleep 2; ! touch /home/plain/probe 2>/dev/null")
    try:
        code, _, errors = user.ended(command)
        kept = user.found()
        check_code, _, check_errors = user.done("device", "check", "booted")
        add_code, _, add_errors = user.add("other", "plain", "--directory", "/home/plain/other")
    finally:
        user.machine.root("mount -o remount,rw /")
    assert len(kept) >= before and not any(record.get("error") for record in kept)
    assert code == ExitCode.DEVICE_UNAVAILABLE and "ead-only" in errors, (code, errors)
    assert check_code == ExitCode.DEVICE_UNAVAILABLE and "ead-only" in check_errors, (check_code, check_errors)
    assert add_code == ExitCode.DEVICE_UNAVAILABLE and "ead-only" in add_errors, (add_code, add_errors)
    assert user.done(*user.tuning)[0] == 0
    user.assert_ready()


@again
def test_home_without_programs(user: User, time_: int) -> None:
    user.machine.root("mount --bind /home /home; mount -o remount,bind,noexec /home")
    try:
        code, _, errors = user.add()
        assert code == ExitCode.DEVICE_UNAVAILABLE and "noexec" in errors and "--directory" in errors, errors
        code, _, errors = user.add("booted", "plain", "--directory", "/var/tmp/tvmmobile")
        assert code == 0, errors
        user.assert_ready()
        assert user.done("device", "remove", "booted")[0] == 0
    finally:
        user.machine.root("umount /home")
    assert user.add()[0] == 0
    user.machine.root("mount --bind /home /home; mount -o remount,bind,noexec /home")
    try:
        code, _, errors = user.done("device", "check", "booted")
        assert code == ExitCode.DEVICE_UNAVAILABLE and "noexec" in errors, errors
    finally:
        user.machine.root("umount /home")
    user.assert_ready()


def test_no_sudo(user: User) -> None:
    assert user.machine.user("plain", "sudo -n true").code != 0
    assert user.add()[0] == 0
    code, out, errors = user.done(*user.tuning, "--pin")
    assert code == ExitCode.DEVICE_UNAVAILABLE and "governor" in errors, (code, out, errors)
    user.assert_ready()


@again
def test_clock_that_jumps(user: User, time_: int) -> None:
    way = ("+1 year", "-1 year")[time_ % 2]
    try:
        struck(user, lambda: user.machine.root(f"date -s '{way}'"))
    finally:
        user.machine.root(f"date -s '@{time.time():.0f}'")


@again
def test_memory_that_runs_out(user: User, time_: int) -> None:
    """A file in memory takes all but a few megabytes, for some seconds; the kernel kills what is largest."""
    fill = (
        "mkdir -p /mnt/full; mount -t tmpfs -o size=100% full /mnt/full; timeout 60 dd if=/dev/zero of=/mnt/full/it bs=1M 2>/dev/null; true"
    )

    def exhaust() -> None:
        user.machine.user("root", fill)
        user.machine.wait_until_up()
        user.machine.root("umount -l /mnt/full")

    struck(user, exhaust, (*AWAY, "emory"))


@again
def test_core_that_is_taken_away(user: User, time_: int) -> None:
    core = "/sys/devices/system/cpu/cpu3/online"
    try:
        struck(user, lambda: user.machine.root(f"echo 0 >{core}"))
    finally:
        user.machine.root(f"echo 1 >{core}")


@again
def test_ssh_server_that_is_started_again(user: User, time_: int) -> None:
    """Its connections end, too."""
    struck(user, lambda: user.machine.user("root", "systemctl restart ssh; pkill -KILL -u plain sshd; true"), AWAY)


def test_32_bit_programs_on_a_64_bit_kernel(user: User, old_shell: Path) -> None:
    """The user's shell and its commands are for 32-bit Arm; the agent brings all that it needs."""
    where = "/srv/old"
    make = f"mkdir -p {where}/bin {where}/home/old {where}/tmp {where}/proc {where}/sys {where}/dev; cat >{where}/bin/busybox"
    user.machine.send(old_shell, "root", make)
    more = (
        f"cd {where}; chmod 755 bin/busybox; chroot . /bin/busybox --install -s /bin; ln -sf busybox bin/bash; chmod 1777 tmp;"
        f"chown old:old home/old; for place in proc sys dev; do mount --rbind /$place $place; done"
    )
    user.machine.root(more)
    try:
        assert user.machine.user("old", "dd if=/bin/busybox bs=1 skip=4 count=1 2>/dev/null | od -An -tu1").out.split() == [
            "1"
        ]  # ELFCLASS32
        code, _, errors = user.add("old", "old")
        assert code == 0, errors
        user.assert_ready("old")
        assert user.done("device", "remove", "old")[0] == 0
    finally:
        user.machine.root(f"for place in proc sys dev; do umount -l {where}/$place; done; rm -rf {where}")


@pytest.fixture(scope="session")
def old_shell() -> Path:
    """BusyBox for 32-bit Arm, in one file."""
    return debian_folder(("busybox-static",), "armhf", "bookworm") / "bin/busybox"
