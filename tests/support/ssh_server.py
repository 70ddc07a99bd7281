"""OpenSSH servers, agents and homes of their own, for the tests of SSH: nothing of the machine's is read or changed."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from waiting import wait_until

from tvmmobile.devices.board.registered import SshAddress

_SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
SSHD = shutil.which("sshd", path=_SBIN)
USER = getpass.getuser()


def require_sshd() -> str:
    """Return the path of sshd; skips the test where there is none."""
    if SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("needs OpenSSH's sshd and ssh-keygen (apt-get install openssh-server openssh-client)")
    return SSHD


def new_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair `path` and `path.pub`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(path)], check=True)
    return path


def public_key(path: Path) -> str:
    """`<type> <base64>` of a key pair."""
    return " ".join(Path(f"{path}.pub").read_text().split()[:2])


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@dataclass(frozen=True)
class Home:
    """A home directory for this process: `~/.ssh` is in it."""

    path: Path

    @property
    def ssh(self) -> Path:
        """Its `.ssh`."""
        return self.path / ".ssh"

    @property
    def key(self) -> Path:
        """The user's own key, which servers of the tests let in."""
        return self.ssh / "id_ed25519"

    def config(self, text: str) -> None:
        """Write `~/.ssh/config`."""
        (self.ssh / "config").write_text(text)

    def know(self, *lines: str) -> None:
        """Write `~/.ssh/known_hosts`."""
        (self.ssh / "known_hosts").write_text("".join(f"{line}\n" for line in lines))


class Server:
    """A running sshd.

    Args:
        folder: folder for its files.
        home: home of the user whose key it lets in.
        options: further lines of sshd_config.
        key_types: types of its host keys.

    Attributes:
        port: its port on 127.0.0.1.
        host_keys: private files by type.
        home: HOME of what runs there.
    """

    def __init__(self, folder: Path, home: Home, *options: str, key_types: tuple[str, ...] = ("ed25519",)) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.home = folder / "home"
        self.home.mkdir(exist_ok=True)
        self.host_keys = {kind: new_key(folder / f"host_{kind}", kind) for kind in key_types}
        self.port = free_port()
        shutil.copyfile(f"{home.key}.pub", folder / "authorized_keys")
        lines = [
            *options,  # sshd takes the first value of each
            f"SetEnv HOME={self.home}",  # what the user's own shell reads at its start is none of the tests' business
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            *(f"HostKey {path}" for path in self.host_keys.values()),
            f"AuthorizedKeysFile {folder / 'authorized_keys'}",
            f"PidFile {folder / 'pid'}",
            "UsePAM no",
            "StrictModes no",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PerSourcePenalties no" if _knows_penalties() else "UseDNS no",
        ]
        (folder / "sshd_config").write_text("".join(f"{line}\n" for line in lines if line))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> SshAddress:
        """The address of this server, with its first host key."""
        return SshAddress(destination=f"{USER}@127.0.0.1", port=self.port, host_key=public_key(next(iter(self.host_keys.values()))))

    @property
    def log(self) -> str:
        """The log so far."""
        return (self._folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it again, on the same port."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it puts its unprivileged half
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [require_sshd(), "-D", "-e", "-f", str(self._folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
            )
        wait_until(self._listens, "sshd to listen")

    def sessions(self) -> list[psutil.Process]:
        """Return the processes that serve its connections, with what they run."""
        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            return list(psutil.Process(self._process.pid).children(recursive=True))
        return []

    def signal_sessions(self, number: int) -> None:
        """Send a signal to all of them."""
        for process in self.sessions():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def cut(self) -> None:
        """End its connections, and leave what runs there to find out."""
        for process in self.sessions():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith("sshd"):
                    process.kill()

    def stop(self) -> None:
        """Kill it with everything it started."""
        assert self._process is not None
        children = self.sessions()
        self._process.kill()
        self._process.wait()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)
        psutil.wait_procs(children, timeout=5)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as sock:
            return sock.recv(4) == b"SSH-"
        return False


@contextlib.contextmanager
def ssh_agent(socket_path: Path) -> Iterator[None]:
    """A real, empty ssh-agent that listens there."""
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket_path)], stdout=subprocess.DEVNULL)
    try:
        wait_until(socket_path.exists, "ssh-agent")
        yield
    finally:
        process.terminate()
        process.wait(10)


def _knows_penalties() -> bool:
    # Servers from 9.8 on shut out an address whose logins fail often.
    banner = subprocess.run([require_sshd(), "-V"], capture_output=True, text=True, check=False).stderr
    version = banner.partition("OpenSSH_")[2].partition("p")[0]
    numbers = version.split(".")
    return len(numbers) >= 2 and all(part.isdigit() for part in numbers[:2]) and (int(numbers[0]), int(numbers[1])) >= (9, 8)
