"""The whole way on a board that boots: Debian's kernel, systemd, SSH server and users, on a disk, the processor translated by QEMU."""

from __future__ import annotations

from pathlib import Path

import pytest
from booted_machine import Machine
from commands import records
from conftest import CommandLine

from tvmmobile.results.file import read_results

pytestmark = pytest.mark.long


def test_journey(booted: Machine, cli: CommandLine, network: list[str], tmp_path: Path) -> None:
    booted.register(cli)
    assert "latencies are emulated" in cli("device", "list").out
    checked = cli("device", "check", "booted")
    assert checked.code == 0 and "booted is ready." in checked.out and "us emulated" in checked.out, checked.err
    logs, out = tmp_path / "logs", tmp_path / "out"
    words = ("tune", "--device", "booted", *network, "--trials", "2", "--logs", str(logs), "--out", str(out), "--require-hardware")
    tuned = cli(*words)
    assert tuned.code == 0, tuned.err
    found = records(logs)
    assert len(found) >= 6 and all(record.get("error") is None for record in found)
    assert "emulated on" in tuned.out and "measured on" not in tuned.out
    assert read_results(out / "report.json").context.kind == "emulated"
    again = cli(*words)
    assert again.code == 0 and ", 0 trials to run" in again.err and records(logs) == found
    benched = cli("bench", str(out), "--device", "booted", "--repeat", "5", "--out", str(out))
    assert benched.code == 0 and "emulated" in benched.out, benched.err
    deployed = cli("deploy", str(out), "--device", "booted", "--to", "/home/plain/network")
    assert deployed.code == 0, deployed.err
    assert ".so" in booted.root("ls -R /home/plain/network").out
    saved = cli("baseline", "save", str(out / "report.json"), "--dir", str(tmp_path / "baselines"))
    assert saved.code == 0, saved.err
    compared = cli("regress", str(out), "--device", "booted", "--dir", str(tmp_path / "baselines"), "--repeat", "5", "--threshold", "60")
    assert compared.code in (0, 4), compared.err  # latencies under emulation vary
    assert booted.leftovers() == []
    assert cli("device", "remove", "booted").code == 0
    assert booted.root("ls -A /home/plain").out.count("tvmmobile") == 0
