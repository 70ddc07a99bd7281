"""A clone of this checkout on a machine that boots, whose user has nothing but Debian, and who can reach what this machine reaches."""

from __future__ import annotations

import re
import shlex
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from booted_image import Image
from booted_machine import Machine, Said
from conftest import REPOSITORY
from workflows import SHELL, Done, Runner

from tvmmobile.system.files import filling_cache, made_once, sha256_of
from tvmmobile.virtual.debian_packages import MIRROR, recipe_digest

#: Installing and compiling under emulation, on a busy machine.
LONG_S = 3 * 3600.0
#: Where the set-up finds PyTorch's CPU build for AArch64.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu/torch/"
#: PyPI's newest build for AArch64 and Python 3.11 that needs no CUDA, for where that index cannot be reached.
TORCH, TORCH_SHA256 = "torch==2.10.0", "3282d9febd1e4e476630a099692b44fdc214ee9bf8ee5377732d9d9dfe5712e4"
_TRUST = "/etc/ssl/certs/ca-certificates.crt"


def clone_into(machine: Machine, folder: Path) -> None:
    """Clone what is committed here into `~/tvmmobile` of the machine's ordinary user; Debian's packages can be installed afterwards.

    Args:
        machine: one that is not restricted.
        folder: folder for files that are sent.
    """
    trusted = ssl.get_default_verify_paths().cafile
    if trusted:
        machine.send(Path(trusted), "root", f"cat >{_TRUST}")
    machine.root(f"printf '[global]\\ncert = {_TRUST}\\n' >/etc/pip.conf")
    machine.root(f'. /etc/os-release; echo "deb {MIRROR} $VERSION_CODENAME main" >/etc/apt/sources.list')
    install(machine, "apt-get update -q && apt-get install -q -y --no-install-recommends git e2fsprogs")
    machine.root("resize2fs /dev/vda")
    _send(machine, folder, "git clone --quiet bundle tvmmobile")


def update_clone(machine: Machine, folder: Path) -> None:
    """Make the machine's clone what is committed here now; what git ignores stays there."""
    _send(machine, folder, "cd tvmmobile && git fetch --quiet ../bundle HEAD && git checkout --quiet --force --detach FETCH_HEAD")


def _send(machine: Machine, folder: Path, script: str) -> None:
    """Have the user's script take what is committed here from `~/bundle`."""
    bundle = folder / "bundle"
    subprocess.run(["git", "bundle", "create", "--quiet", str(bundle), "HEAD"], cwd=REPOSITORY, check=True)
    machine.send(bundle, "plain", f"cat >bundle; {script}")
    if not _reachable(TORCH_INDEX):
        lock = f"sed -i -e 's/^torch==[^ ]*/{TORCH}/' -e '1a\\    --hash=sha256:{TORCH_SHA256} \\\\' tvmmobile/scripts/torch.lock"
        result = machine.user("plain", f"{lock}; head -n 2 tvmmobile/scripts/torch.lock")
        assert result.code == 0 and TORCH in result.out and TORCH_SHA256 in result.out, result


def set_up_disk(image: Image) -> Path:
    """Return where the disk of a machine is kept whose user has set up a clone: for as long as the set-up's steps and packages stay."""
    steps = [sha256_of(REPOSITORY / "scripts" / name) for name in ("requirements.lock", "torch.lock", "setup.sh")]
    return image.folder.with_name(f"{image.folder.name}-{recipe_digest(steps)}") / "disk"


def keep_set_up(machine: Machine) -> None:
    """Shut down a machine whose user has set up a clone; its disk becomes the one that is kept, unless there is one."""
    machine.shut_down()
    with filling_cache(), made_once(set_up_disk(machine.image).parent) as made:
        if made is not None:
            shutil.move(machine.disk, made / "disk")


def install(machine: Machine, command: str) -> None:
    """Run an apt-get command as root."""
    machine.root(f"export DEBIAN_FRONTEND=noninteractive; {command}", LONG_S)


def packages_asked_for(refused: Said) -> str:
    """Return the command that the set-up asks an ordinary user to have run as root."""
    asked = re.search(r"Run as root: (apt-get .*)", refused.err)
    assert refused.code == 1 and asked, refused
    return asked[1]


class MachineRunner(Runner):
    """Runs a workflow's steps in the clone, as the machine's ordinary user."""

    def __init__(self, machine: Machine, variables: Mapping[str, str], scratch: Path) -> None:
        super().__init__(Path("tvmmobile"), variables, scratch)
        self._machine = machine

    def execute(self, step: Mapping[str, Any]) -> Done:
        """Run one `run:` step there."""
        script = self.scratch / "step.sh"
        variables = {**self.variables, "CI": "true", "GITHUB_STEP_SUMMARY": "/home/plain/summary.md"}
        script.write_text("".join(f"export {name}='{value}'\n" for name, value in variables.items()) + step["run"])
        self._machine.send(script, "plain", "cat >step.sh")
        result = self._machine.user("plain", f"cd tvmmobile && {shlex.join(SHELL)} ../step.sh", LONG_S)
        return Done(step["name"], result.code, result.out, result.err)


def _reachable(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=20):
            return True
    except urllib.error.URLError:
        return False
