"""Downloads and unpacks Debian's packages for AArch64, without root rights."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from pathlib import Path

from tvmmobile.system.errors import UserError
from tvmmobile.system.programs import run_tool

#: Debian's archive and signing key, for releases requested by name.
MIRROR, KEYRING = "http://deb.debian.org/debian", "/usr/share/keyrings/debian-archive-keyring.gpg"
#: Ubuntu's archive of the architectures that its usual mirrors lack, these, and its signing key.
_PORTS, _PORTS_KEYRING = "http://ports.ubuntu.com/ubuntu-ports", "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
_NO_PORTS = ("amd64", "i386")
DOWNLOAD_TIMEOUT_S = 1200
#: What to do where packages cannot be downloaded.
NO_MIRROR = "Check that this machine's apt-get reaches a Debian mirror that has arm64."


def recipe_digest(recipe: object) -> str:
    """Return a digest (16 hex digits) of what determines a folder in the cache: anything that JSON can hold."""
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]


def apt_words(scratch: Path, release: str, architecture: str = "arm64") -> list[str]:
    """Return an apt-get command for that architecture with no packages installed and its state in `scratch`; its lists are up to date."""
    for name in ("apt-get", "dpkg-deb"):
        if shutil.which(name) is None:
            raise UserError(f"{name} is missing; it is needed for Debian's AArch64 packages.", "Run this on Debian or Ubuntu.")
    for name in ("state/lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    apt = ["apt-get", "-q", "-y", "-o", f"Dir::State={scratch}/state", "-o", f"Dir::State::status={scratch}/status"]
    apt += ["-o", f"Dir::Cache={scratch}/cache", "-o", f"APT::Architecture={architecture}", "-o", f"APT::Architectures::={architecture}"]
    apt += ["-o", "APT::Sandbox::User=root"]  # apt's own user may not read this folder
    if sources := _sources(release, architecture):
        (scratch / "sources.list").write_text(sources, encoding="ascii")
        apt += ["-o", f"Dir::Etc::SourceList={scratch}/sources.list", "-o", "Dir::Etc::SourceParts=-"]
    run_tool([*apt, "update"], "Reading Debian's list of packages", NO_MIRROR, DOWNLOAD_TIMEOUT_S)
    return apt


def _sources(release: str, architecture: str) -> str:
    """Return the sources of a release of Debian's, or of this Ubuntu's ports; "" where this machine's own have the architecture."""
    if release:
        return f"deb [signed-by={KEYRING}] {MIRROR} {release} main\n"
    try:
        name = platform.freedesktop_os_release().get("UBUNTU_CODENAME", "")
    except OSError:
        name = ""
    if not name or architecture in _NO_PORTS or platform.machine() not in ("x86_64", "i686"):
        return ""
    suites = (name, f"{name}-updates", f"{name}-security")
    return "".join(f"deb [signed-by={_PORTS_KEYRING}] {_PORTS} {suite} main universe\n" for suite in suites)


def unpack_archives(archives: Path, root: Path) -> None:
    """Unpack all packages of a folder into `root`; where none has files in `/lib`, it is a link to `/usr/lib`, as on installed systems."""
    for package in sorted(archives.glob("*.deb")):
        run_tool(["dpkg-deb", "-x", str(package), str(root)], f"Unpacking {package.name}", "Run it again.")
    if (root / "usr/lib").is_dir() and not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")
