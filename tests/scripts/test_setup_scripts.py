"""./scripts/tvmmobile: the second call is quick and calls no pip; a failed set-up is reported in one line."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

NEEDED = ("bash", "env", "dirname", "readlink", "cat", "cut", "sha256sum", "flock", "mktemp", "rm", "tail")
TOOLS = ("qemu-aarch64", "aarch64-linux-gnu-g++", "llvm-mca-16", "gcc")


def _program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path, repository: Path) -> Path:
    """The set-up's own files, and `bin` with nothing but basic programs."""
    root = tmp_path / "with space" / "checkout"
    shutil.copytree(repository / "scripts", root / "scripts")
    shutil.copy(repository / "pyproject.toml", root)
    (root / "bin").mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        assert found, name
        (root / "bin" / name).symlink_to(found)
    # Found before any real Python; good enough to be chosen, and ends a set-up at its first step.
    _program(root / "bin" / "python3.11", '[ "$1" = -c ] || { echo "python $*" >&2; exit 9; }')
    return root


def _call(checkout: Path, *arguments: str, script: str = "tvmmobile") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "scripts" / script), *arguments],
        env={"PATH": str(checkout / "bin"), "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


def _set_up(checkout: Path) -> None:
    """A finished set-up, of stand-ins."""
    for name in TOOLS:
        _program(checkout / "bin" / name, "exit 99")
    _program(checkout / ".venv/bin/python", "echo python was called >&2; exit 99")
    _program(checkout / ".venv/bin/tvmmobile", 'printf "<%s>" "$@"; exit 5')
    command = f'source "{checkout}/scripts/setup.sh"; _setup_key'
    key = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout.strip()
    (checkout / ".venv" / f".set-up-{key}").touch()


def test_passes_arguments_and_exit_code_on(checkout: Path) -> None:
    _set_up(checkout)
    done = _call(checkout, "models", "a b", "--x=*", "")
    assert (done.returncode, done.stdout, done.stderr) == (5, "<models><a b><--x=*><>", "")


def test_works_through_a_symlink(checkout: Path) -> None:
    _set_up(checkout)
    (checkout / "bin" / "tm").symlink_to(checkout / "scripts" / "tvmmobile")
    done = subprocess.run([checkout / "bin" / "tm", "x"], env={"PATH": str(checkout / "bin")}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (5, "<x>")


def test_the_second_call_costs_little(checkout: Path) -> None:
    _set_up(checkout)

    def once() -> float:
        start = time.perf_counter()
        assert _call(checkout).returncode == 5
        return time.perf_counter() - start

    assert min(once() for _ in range(5)) < 0.1


@pytest.mark.parametrize("changed", ["pyproject.toml", "scripts/requirements.lock"])
def test_a_changed_pin_is_set_up_again(checkout: Path, changed: str) -> None:
    _set_up(checkout)
    (checkout / changed).write_text((checkout / changed).read_text() + "\n# changed\n")
    done = _call(checkout)
    assert done.returncode == 9 and f"python -m venv --clear {checkout}/.venv" in done.stderr


@pytest.mark.parametrize("known", [False, True])
def test_a_build_of_torch_is_installed_only_if_its_hash_is_known(checkout: Path, known: bool) -> None:
    built = b"a wheel"
    if known:
        with (checkout / "scripts/torch.lock").open("a") as lock:
            lock.write(f"    --hash=sha256:{hashlib.sha256(built).hexdigest()}\n")
    _program(
        checkout / ".venv/bin/python",
        f"""echo "$*" >>"{checkout}/pip.log"
while (( $# )); do [[ $1 = --dest ]] && {{ mkdir -p "$2"; printf '{built.decode()}' >"$2/torch-2-any.whl"; }}; shift; done""",
    )
    script = f'source "{checkout}/scripts/setup.sh"; _install_torch'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    installed = [line for line in (checkout / "pip.log").read_text().splitlines() if "pip install" in line]
    assert (done.returncode, len(installed)) == ((0, 1) if known else (1, 0))
    assert known or "torch-2-any.whl is not a build of PyTorch in scripts/torch.lock" in done.stderr + done.stdout


@pytest.mark.parametrize(("host", "asked"), [("aarch64", True), ("x86_64", False)])
def test_pytorchs_own_index_is_asked_on_aarch64(checkout: Path, host: str, asked: bool) -> None:
    """PyPI's build for it needs CUDA."""
    _program(checkout / ".venv/bin/python", f'echo "$*" >>"{checkout}/pip.log"')
    script = f'source "{checkout}/scripts/setup.sh"; HOSTTYPE={host} _install_torch'
    subprocess.run(["bash", "-c", script], capture_output=True, check=False)
    assert ("--extra-index-url https://download.pytorch.org/whl/cpu" in (checkout / "pip.log").read_text()) == asked


def test_without_root_the_missing_packages_are_named(checkout: Path) -> None:
    _program(checkout / "bin" / "id", "echo 1000")
    _program(checkout / "bin" / "apt-get", "echo apt-get was called >&2; exit 99")
    done = _call(checkout)
    assert done.returncode == 1 and done.stdout == ""
    line = "apt-get update && apt-get install -y qemu-user g++-aarch64-linux-gnu llvm-16 gcc libc6-dev"
    assert line in done.stderr and "was called" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("offered", "llvm"), [(("17", "19"), "llvm-17"), (("16", "17"), "llvm-16"), ((), "llvm-16")])
def test_the_llvm_that_this_release_has(checkout: Path, offered: tuple[str, ...], llvm: str) -> None:
    """Debian 13 has none of version 16."""
    names = "|".join(["none", *(f"llvm-{version}" for version in offered)])
    _program(checkout / "bin" / "apt-cache", f'case "$2" in {names}) ;; *) exit 100 ;; esac')
    _program(checkout / "bin" / "apt-get", f'echo "$*" >>"{checkout}/apt.log"')
    _program(checkout / "bin" / "id", "echo 1000")
    assert f" {llvm} gcc" in _call(checkout).stderr
    script = f'source "{checkout}/scripts/setup.sh"; PATH="{checkout}/bin:$PATH"; _apt_install qemu-user llvm-16 gcc'
    subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert (checkout / "apt.log").read_text().splitlines()[-1].endswith(f"--no-install-recommends qemu-user {llvm} gcc")


def test_on_aarch64_the_systems_own_compiler_suffices(checkout: Path) -> None:
    script = f'PATH="{checkout}/bin"; HOSTTYPE=aarch64; source "{checkout}/scripts/setup.sh"; _missing_packages'
    done = subprocess.run([shutil.which("bash") or "bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("qemu-user g++ llvm-16"), done.stderr


def test_root_gets_the_missing_packages_and_no_others(checkout: Path) -> None:
    _set_up(checkout)
    (checkout / "bin" / "gcc").unlink()
    (checkout / "bin" / "qemu-aarch64").unlink()
    _program(checkout / "bin" / "id", "echo 0")
    _program(checkout / "bin" / "apt-get", f'echo "$DEBIAN_FRONTEND $*" >>"{checkout}/apt.log"')
    assert _call(checkout).returncode == 5
    assert (checkout / "apt.log").read_text().splitlines() == [
        "noninteractive update -q",
        "noninteractive install -q -y --no-install-recommends qemu-user gcc libc6-dev",
    ]


def test_a_failing_apt_get_is_shown(checkout: Path) -> None:
    _program(checkout / "bin" / "id", "echo 0")
    _program(checkout / "bin" / "apt-get", "echo no network; exit 100")
    done = _call(checkout)
    assert done.returncode == 1 and done.stdout == ""
    assert "no network" in done.stderr and done.stderr.endswith("apt-get failed; the lines above say why\n")


def test_pins_satisfy_the_project(repository: Path) -> None:
    """Every dependency in pyproject.toml is pinned, within its range; both lists are exact."""
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lines = [line for name in ("", "-dev") for line in (repository / f"scripts/requirements{name}.txt").read_text().splitlines()]
    entries = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", entry) for entry in entries)
    pins = {canonicalize_name(name): version for name, version in (entry.split("==") for entry in entries)}
    assert len(pins) == len(entries)
    for line in project["dependencies"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), line


def test_the_pins_are_complete() -> None:
    """`pip install --no-deps` of the list is enough: nothing is left out but by intent."""
    from importlib import metadata

    from packaging.requirements import Requirement

    left_out = {"nvidia-nccl-cu12", "backports.strenum", "tqdm"}
    seen: set[str] = set()
    waiting = ["tvmmobile"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            assert name in left_out | {"tvmmobile"}, name
            continue
        found = [Requirement(line) for line in lines]
        waiting += [item.name for item in found if item.marker is None or item.marker.evaluate({"extra": ""})]
