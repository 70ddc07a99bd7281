"""`~/.ssh/config`: aliases, proxies, jump hosts."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

import psutil
import pytest
from ssh_server import USER, Home, Server, public_key

from tvmmobile.devices.board.registered import SshAddress
from tvmmobile.devices.ssh.config import route_to
from tvmmobile.devices.ssh.keys import host_key_of
from tvmmobile.devices.ssh.remote import connect_ssh
from tvmmobile.system.errors import DeviceUnavailable, ExitCode, UserError


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


@pytest.mark.parametrize(
    "destination", ["", "user@", "@host", "-oProxyCommand=id", "a b", "$(id)", "-l@host", "a;b@host", "host;id", "pi@host:22", "[::1]"]
)
def test_what_is_no_destination(home: Home, destination: str) -> None:
    with pytest.raises(UserError, match="not an SSH destination") as caught:
        route_to(destination, None)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_user_without_a_name(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def getuser() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", getuser)
    with pytest.raises(DeviceUnavailable, match="has no name, which SSH needs") as caught:
        route_to("pi@board", None)
    assert "LOGNAME" in caught.value.remedy


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("1m30", 90.0), ("2M", 120.0), ("1h5s", 3605.0), ("0", None), ("none", None)])
def test_times_as_in_openssh(home: Home, text: str, seconds: float | None) -> None:
    home.config(f"Host board\n  ConnectTimeout {text}\n")
    assert route_to("board", None).timeout_s == seconds


@pytest.mark.parametrize("line", ["ConnectTimeout soon", "ConnectTimeout 5 s", "ConnectTimeout -1", "Port ssh", "Port 0", "Port 99999"])
def test_numbers_that_are_none(home: Home, line: str) -> None:
    home.config(f"Host board\n  {line}\n")
    keyword, _, value = line.partition(" ")
    with pytest.raises(DeviceUnavailable, match=f"(?i)the SSH configuration of board has '{value}' as (a )?{keyword}") as caught:
        route_to("board", None)
    assert "ssh -G board" in caught.value.remedy


def test_variables_in_paths(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB", str(home.path / "lab"))
    home.config("Host board\n  IdentityFile ${LAB}/key\n  UserKnownHostsFile ${LAB}/known\n  IdentityAgent ${LAB}/agent\n")
    route = route_to("board", None)
    assert (route.key_files, route.known_hosts[0], route.agent) == (
        (home.path / "lab/key",),
        home.path / "lab/known",
        home.path / "lab/agent",
    )


def test_a_configuration_that_cannot_be_understood(home: Home) -> None:
    home.config("Match nonsense\n")
    with pytest.raises(DeviceUnavailable, match="configuration of board cannot be parsed"):
        route_to("board", None)


@pytest.mark.parametrize(
    ("line", "applies"),
    [
        ("Match final all", True),  # in /etc/ssh/ssh_config.d/50-redhat.conf
        ("Match all", True),
        ("Match canonical all", False),
        ("Match Host board originalhost board", True),
        ("Match host=board # the lab's", True),
        ("Match host all", False),
        ("Match originalhost other", False),
        ("Match localnetwork 10.0.0.0/8", False),
        ("Match !tagged lab host board", False),
        ("Host board # the lab's", True),
        ("Host other # board", False),
    ],
)
def test_sections_apply_as_in_openssh(home: Home, line: str, applies: bool) -> None:
    home.config(f"{line}\n  ConnectTimeout 7\n  Include port\n  User pi\n")
    (home.ssh / "port").write_text("Port 2022\n")
    found = route_to("board", None)
    assert (found.port, found.timeout_s, found.user) == ((2022, 7.0, "pi") if applies else (22, None, USER))


def test_comments_behind_values(home: Home) -> None:
    home.config(
        "User pi  # the lab's\nPort=2022 # x\nHostName ten#7 #8\n"
        "IdentityFile \"~/a #1\" # 'two'\nInclude one # two\nProxyCommand nc -x a=b %h # z\n"
    )
    (home.ssh / "one").write_text("ConnectTimeout 7 # seconds\n")
    found = route_to("board", None)
    assert (found.user, found.port, found.host, found.timeout_s) == ("pi", 2022, "ten#7", 7.0)
    assert found.key_files == (home.ssh.parent / "a #1",)
    assert found.proxy == ("/bin/sh", "-c", "exec nc -x a=b ten#7 # z")


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


@pytest.mark.parametrize(
    ("first", "second", "beginning"),
    [
        ("ProxyCommand none", "ProxyJump bastion", None),
        ("ProxyCommand none", "ProxyCommand nc %h %p", None),
        ("ProxyJump none", "ProxyCommand nc %h %p", "/bin/sh"),
        ("ProxyJump bastion", "ProxyCommand nc %h %p", "ssh"),
        ("ProxyCommand nc %h %p", "ProxyJump bastion", "/bin/sh"),
    ],
)
def test_the_proxy_that_is_set_first_counts(home: Home, first: str, second: str, beginning: str | None) -> None:
    home.config(f"Host board\n  HostName 10.0.0.7\n  {first}\nHost *\n  {second}\n")
    proxy = route_to("board", None).proxy
    assert (proxy and proxy[0]) == beginning
    resolved = subprocess.run(["ssh", "-F", str(home.ssh / "config"), "-G", "board"], capture_output=True, text=True, check=True)
    said = [line.split(" ", 1)[0] for line in resolved.stdout.splitlines() if line.startswith(("proxyjump ", "proxycommand "))]
    assert said == {"ssh": ["proxyjump"], "/bin/sh": ["proxycommand"], None: []}[beginning]
