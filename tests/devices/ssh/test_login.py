"""Host keys, and keys that let a user in."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ssh_server import USER, Home, Server, new_key, public_key, ssh_agent

from tvmmobile.devices.ssh.keys import fingerprint_of, host_key_of
from tvmmobile.devices.ssh.remote import connect_ssh
from tvmmobile.system.errors import DeviceUnavailable, ExitCode


def test_only_the_agreed_host_key_is_accepted(own: Callable[..., Server], home: Home, tmp_path: Path) -> None:
    server = own()
    other = public_key(new_key(tmp_path / "other"))
    with pytest.raises(DeviceUnavailable) as caught:
        connect_ssh(server.address.model_copy(update={"host_key": other}))
    now = public_key(server.host_keys["ed25519"])
    assert caught.value.exit_code == ExitCode.DEVICE_UNAVAILABLE
    assert "127.0.0.1" in caught.value.message and caught.value.message.count("\n") == 0
    assert caught.value.message.index(fingerprint_of(other)) < caught.value.message.index(fingerprint_of(now))
    assert "tvmmobile device remove NAME --keep-files" in caught.value.remedy  # without it, the board would have to let us in
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
        monkeypatch.delenv("SSH_AUTH_SOCK")
        monkeypatch.setenv("OTHER_SOCK", str(tmp_path / "agent"))
        (home.path / "my agent").symlink_to(tmp_path / "agent")
        for name in ("$OTHER_SOCK", "${OTHER_SOCK}", '"~/my agent"', '"%d/my agent"  # 1Password'):
            home.config(f"IdentityAgent {name}\nIdentitiesOnly yes\nIdentityFile {home.key}\n")
            connect_ssh(shared.address).close()
