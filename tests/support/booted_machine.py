"""An emulated machine with a real Debian, reached by SSH as a board is; what happens to boards can happen to it."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from booted_image import Image
from conftest import CommandLine
from ssh_server import Home, free_port
from waiting import wait_until

from tvmmobile.devices.ssh.keys import fingerprint_of

#: Starting up under emulation, on a busy machine.
BOOT_S = 600.0
COMMAND_S = 300.0
_KEPT = "kept"
#: An ordinary network of few kernels; `tune` needs a minute or two on the machine.
NETWORK = """
from torch import nn

def small():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU6(), nn.Conv2d(8, 16, 1))
"""
#: What a run of ours may leave on a board until the next one, and must not after that.
_LEFT = r"""
ls -d /tmp/tvmmobile.lease /tmp/.tvm* /home/*/.tvmmobile/work-* /srv/old/home/old/.tvmmobile/work-* 2>/dev/null
grep -la '/agent-[0-9a-f]' /proc/[0-9]*/cmdline 2>/dev/null
exit 0
"""


@dataclass(frozen=True)
class Said:
    """Output of a program on the machine, and its exit code."""

    code: int
    out: str
    err: str


class Machine:
    """A machine with a disk of its own, a copy of the image's.

    Args:
        image: the image to boot.
        folder: folder for the disk and the console's log.
        restricted: nothing beyond this machine can be reached from there.
        memory: QEMU's notation of its size.
        disk: a disk to keep and to use again; by default one that is removed in the end.
        base: a machine's disk of before, to begin with a copy of; by default the image's.
        core: QEMU's name of its cores' model.
        disk_size: size of a new disk, in QEMU's notation, if the image's does not do; its file system is still the image's.
    """

    def __init__(
        self,
        image: Image,
        folder: Path,
        restricted: bool = True,
        memory: str = "2G",
        disk: Path | None = None,
        base: Path | None = None,
        core: str = "cortex-a72",
        disk_size: str | None = None,
    ) -> None:
        self.image, self.folder = image, folder
        self.port = free_port()
        self.disk, self._kept = disk or folder / "disk", disk is not None
        self._monitor = folder / "monitor"
        self._known = folder / "known_hosts"
        self._memory, self._restricted, self._core = memory, restricted, core
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if not self.disk.exists():
            origin = ["-F", "qcow2", "-b", str(base)] if base else ["-F", "raw", "-b", str(image.disk)]
            words = ["qemu-img", "create", "-q", "-f", "qcow2", *origin, str(self.disk)]
            subprocess.run([*words, *([disk_size] if disk_size else [])], check=True)
        self._known.write_text(f"{self.known_line}\n")

    @property
    def runs(self) -> bool:
        """True if it has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def known_line(self) -> str:
        """Its line in a file of known hosts."""
        return f"[127.0.0.1]:{self.port} {self.image.host_key}"

    def start(self, kept: bool = False) -> None:
        """Boot it, and wait until it is up, or resume it as it was `kept`."""
        network = f"user,id=net,restrict={'on' if self._restricted else 'off'},hostfwd=tcp:127.0.0.1:{self.port}-:22"
        options = ["-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile=", "-qmp", f"unix:{self._monitor},server=on,wait=off"]
        options += ["-loadvm", _KEPT] if kept else []
        with (self.folder / "console").open("ab") as log:
            words = self.image.boot_words(self.disk, (), options, self._memory, core=self._core)
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        script = "true" if kept else "systemctl is-system-running --wait >/dev/null; true"
        wait_until(lambda: self._answers(script), f"the machine to boot; its console: {self.folder / 'console'}", BOOT_S)

    def keep(self) -> None:
        """Keep its disk and memory as they are now, for `resume`."""
        self._order(f"savevm {_KEPT}")

    def resume(self) -> None:
        """Make it what it was when kept: a matter of seconds, even if it has ended."""
        if self.runs:
            self._order(f"loadvm {_KEPT}")
        else:
            self.start(kept=True)

    def boot(self) -> str:
        """Return an identifier of this start of the machine."""
        return self.root("cat /proc/sys/kernel/random/boot_id").out

    def cut_power(self) -> None:
        """End it at once: what it did not write to its disk is lost."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def shut_down(self) -> None:
        """Have it end as its kernel does, with all it wrote on its disk."""
        assert self._process is not None
        self.user("root", "systemctl poweroff")
        self._process.wait(BOOT_S)

    def stop(self) -> None:
        """Cut its power, at the end; its disk goes too."""
        if self._process is not None:
            self.cut_power()
        if not self._kept:
            self.disk.unlink(missing_ok=True)

    def root(self, script: str, timeout_s: float = COMMAND_S) -> Said:
        """Run a shell script there as root; fails if it fails."""
        done = self.user("root", script, timeout_s)
        assert done.code == 0, done
        return done

    def user(self, name: str, script: str, timeout_s: float = COMMAND_S) -> Said:
        """Run a shell script there as that user."""
        done = subprocess.run(
            [*self.ssh_words(name), script], stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
        return Said(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def send(self, file: Path, name: str, script: str) -> None:
        """Run a shell script there as that user, with a file's content as its input; fails if it fails."""
        with file.open("rb") as content:
            subprocess.run([*self.ssh_words(name), script], stdin=content, stdout=subprocess.DEVNULL, check=True, timeout=COMMAND_S)

    def ssh_words(self, name: str) -> list[str]:
        """Return the command that logs in; the key of the machine is checked."""
        options = [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={self._known}",
            "IdentitiesOnly=yes",
            "ConnectTimeout=20",
            "ServerAliveInterval=0",  # Debian's own is five minutes, which an emulated machine may well be silent
        ]
        words = ["ssh", "-F", "none", "-i", str(self.image.key), "-p", str(self.port)]
        return [*words, *(word for option in options for word in ("-o", option)), f"{name}@127.0.0.1"]

    def leftovers(self) -> list[str]:
        """Return what our runs left there."""
        return self.root(_LEFT).out.splitlines()

    def add_words(self, name: str, user: str = "plain", *more: str) -> list[str]:
        """Return the command line that registers it as a board."""
        fingerprint = fingerprint_of(self.image.host_key)
        return ["device", "add", name, "--ssh", f"{user}@127.0.0.1", "--port", str(self.port), "--fingerprint", fingerprint, *more]

    def register(self, cli: CommandLine, name: str = "booted", user: str = "plain", *more: str) -> None:
        """Add it by the command line."""
        outcome = cli(*self.add_words(name, user, *more))
        assert outcome.code == 0, outcome.err

    def _order(self, command: str) -> None:
        """Have QEMU's monitor do it."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._monitor))
            connection.settimeout(COMMAND_S)
            stream = connection.makefile("rw")
            monitor = {"execute": "human-monitor-command", "arguments": {"command-line": command}}
            for words in ({"execute": "qmp_capabilities"}, monitor):
                stream.write(json.dumps(words) + "\n")
                stream.flush()
                answer = next(value for value in map(json.loads, stream) if {"return", "error"} & value.keys())
            assert answer == {"return": ""}, answer

    def _answers(self, script: str) -> bool:
        assert self.runs, (self.folder / "console").read_text(errors="replace")[-3000:]
        time.sleep(0.5)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.user("root", script, 120).code == 0
        return False

    def __str__(self) -> str:
        return shlex.join(self.ssh_words("plain"))


@contextlib.contextmanager
def machine(image: Image, folder: Path, restricted: bool = True, **options: Any) -> Iterator[Machine]:
    """A machine that is up, until the context ends; for `options`, see `Machine`."""
    made = Machine(image, folder, restricted, **options)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def at_home(image: Image, folder: Path) -> Home:
    """Return a home directory for the user on this side, with the key."""
    home = Home(folder)
    home.ssh.mkdir(parents=True, mode=0o700)
    home.key.write_bytes(image.key.read_bytes())
    home.key.chmod(0o600)
    Path(f"{home.key}.pub").write_bytes(Path(f"{image.key}.pub").read_bytes())
    return home
