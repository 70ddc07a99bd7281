"""A disk with Debian for AArch64, as its own packages set it up, and what boots it: made once, in the cache.

The packages come from apt's own sources. They are unpacked here, and installed by dpkg inside the emulated machine on its first boot:
their scripts are AArch64 programs. Nothing is mounted here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from ssh_server import new_key, public_key

from tvmmobile.system.environment import cache_dir
from tvmmobile.system.files import filling_cache, made_once, sha256_of
from tvmmobile.system.programs import run_tool
from tvmmobile.virtual.debian_packages import DOWNLOAD_TIMEOUT_S, NO_MIRROR, apt_words, recipe_digest

QEMU = "qemu-system-aarch64"
CORES = 4
SETUP = Path(__file__).with_name("booted_setup.sh")
PACKAGES = (
    "?essential",
    "apt",
    "busybox-static",
    "ca-certificates",
    "dbus",
    "iproute2",
    "libgomp1",
    "libpam-systemd",
    "linux-image-cloud-arm64",
    "openssh-server",
    "procps",
    "python3",
    "python3-venv",
    "sudo",
    "systemd-sysv",
    "udev",
)
DISK_BYTES = 3 << 30
#: dpkg's work under emulation, on a busy machine.
SETUP_TIMEOUT_S = 3600.0
#: Kernel modules that find the disk and its file system; udev loads the rest.
MODULES = ("virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "crc32c_generic", "ext4")
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /dev /proc /root
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
for module in {modules}; do /bin/busybox insmod "/modules/$module.ko" 2>/dev/null; done
while ! [ -b /dev/vda ]; do /bin/busybox sleep 0.1; done
next=/sbin/init
for word in $(/bin/busybox cat /proc/cmdline); do case "$word" in init=*) next="${{word#init=}}" ;; esac; done
/bin/busybox mount -t ext4 /dev/vda /root
for place in dev proc; do /bin/busybox mount --move "/$place" "/root/$place"; done
exec /bin/busybox switch_root /root "$next"
"""
SSHD = "UseDNS no\nPasswordAuthentication no\nMatch User old\n  ChrootDirectory /srv/old\n"
NETWORK = "[Match]\nName=en* eth*\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"


@dataclass(frozen=True)
class Image:
    """The folder with the files of a machine that was set up."""

    folder: Path

    @property
    def disk(self) -> Path:
        """Its disk as it was then; copies of it are booted."""
        return self.folder / "disk"

    @property
    def key(self) -> Path:
        """The private key that its users let in."""
        return self.folder / "key"

    @property
    def host_key(self) -> str:
        """`<type> <base64>` of its SSH server."""
        return public_key(self.folder / "ssh_host_ed25519_key")

    def boot_words(
        self,
        disk: Path,
        kernel_words: Sequence[str] = (),
        options: Sequence[str] = (),
        memory: str = "2G",
        form: str = "qcow2",
        core: str = "cortex-a72",
    ) -> list[str]:
        """Return the command that boots `disk`; what is written to it and flushed there survives the end of this process."""
        drive = f"file={disk},if=none,id=disk,format={form},cache=writeback"
        words = [QEMU, "-M", "virt", "-cpu", core, "-smp", str(CORES), "-m", memory, "-accel", "tcg,thread=multi"]
        words += ["-kernel", str(self.folder / "kernel"), "-initrd", str(self.folder / "initrd")]
        words += ["-append", " ".join(("console=ttyAMA0", "root=/dev/vda", "panic=-1", "quiet", *kernel_words))]
        words += ["-drive", drive, "-device", "virtio-blk-pci,drive=disk", "-display", "none", "-monitor", "none", "-serial", "stdio"]
        return [*words, *options]


def missing() -> list[str]:
    """Programs that the machine needs and that are not here."""
    return [name for name in (QEMU, "qemu-img", "apt-get", "dpkg-deb", "mke2fs", "cpio", "ssh", "ssh-keygen") if not _installed(name)]


def require_machine() -> None:
    """Skips the test where a machine cannot be emulated, or its image not be made."""
    if lacking := missing():
        pytest.skip(f"needs {', '.join(lacking)} (apt-get install qemu-system-arm qemu-utils e2fsprogs cpio openssh-client, on Debian)")


def image() -> Image:
    """Return the image, made first if it is not in the cache, which takes minutes.

    Raises:
        UserError: apt-get or another program is missing or fails, or Debian could not be set up.
    """
    folder = cache_dir() / f"booted-{recipe_digest([PACKAGES, DISK_BYTES, INIT, SSHD, NETWORK, sha256_of(SETUP)])}"
    with filling_cache(), made_once(folder) as made:
        if made is not None:
            _make(made.parent, Image(made))
    return Image(folder)


def _make(scratch: Path, made: Image) -> None:
    root = scratch / "root"
    for name in ("bin", "lib", "sbin"):  # as Debian's installer does
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    packages = _packages(scratch)
    for package in packages:
        _unpack(package, root)
    _boot_files(root, made.folder)
    for name in ("key", "ssh_host_ed25519_key"):
        new_key(made.folder / name)
    _write_setup(root / "setup", made)
    archives = root / "var/cache/apt/archives"
    archives.mkdir(parents=True, exist_ok=True)
    for package in packages:
        if not package.name.startswith("linux-image-"):  # the kernel is started from outside
            shutil.copy2(package, archives)
    words = ["mke2fs", "-q", "-t", "ext4", "-d", str(root), "-E", "root_owner=0:0", str(made.disk), f"{DISK_BYTES >> 10}k"]
    run_tool([str(_installed(words[0])), *words[1:]], "Making the disk", "Free some gigabytes of disk.")
    log = scratch / "setup.log"
    with log.open("wb") as stream:
        words = made.boot_words(made.disk, ["init=/setup/setup.sh"], ["-no-reboot", "-nic", "none"], form="raw")
        subprocess.run(words, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, check=True, timeout=SETUP_TIMEOUT_S)
    text = log.read_text(errors="replace")
    assert "setup: done" in text, text[-4000:]
    shutil.copy2(log, made.folder / "setup.log")


def _packages(scratch: Path) -> list[Path]:
    """Debian's packages with what they depend on."""
    words = [*apt_words(scratch, ""), "install", "--download-only", "--no-install-recommends", *PACKAGES]
    run_tool(words, "Downloading Debian for AArch64", NO_MIRROR, DOWNLOAD_TIMEOUT_S)
    return sorted((scratch / "cache/archives").glob("*.deb"))


def _unpack(package: Path, root: Path) -> None:
    """Unpack a package as dpkg does: a folder does not replace a link to one."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as archive:
        words = ["tar", "--extract", "--keep-directory-symlink", "--same-permissions", "--directory", str(root)]
        subprocess.run(words, stdin=archive.stdout, check=True)


def _boot_files(root: Path, folder: Path) -> None:
    """The kernel, and a first root that loads what the disk needs."""
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    shutil.copy2(kernel, folder / "kernel")
    found = {path.name.removesuffix(".ko").replace("-", "_"): path for path in (root / "lib/modules").rglob("*.ko")}
    first = folder.parent / "first"
    for name in ("bin", "modules"):
        (first / name).mkdir(parents=True)
    names: list[str] = []

    def add(name: str) -> None:
        if name in names or name not in found:  # the kernel itself has those without a file
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", found[name].read_bytes())
        for other in depends[1].decode().split(",") if depends else ():
            add(other.replace("-", "_"))
        names.append(name)
        shutil.copy2(found[name], first / "modules" / f"{name}.ko")

    for name in MODULES:
        add(name)
    shutil.copy2(root / "bin/busybox", first / "bin")
    (first / "init").write_text(INIT.format(modules=" ".join(names)))
    (first / "init").chmod(0o755)
    listing = "\n".join(str(path.relative_to(first)) for path in sorted(first.rglob("*")))
    words = ["cpio", "--create", "--format=newc", "--quiet"]
    done = subprocess.run(words, input=listing.encode(), cwd=first, stdout=subprocess.PIPE, check=True)
    (folder / "initrd").write_bytes(done.stdout)


def _write_setup(folder: Path, made: Image) -> None:
    folder.mkdir(mode=0o700)
    shutil.copy2(SETUP, folder / "setup.sh")
    (folder / "setup.sh").chmod(0o755)
    for path in made.folder.glob("ssh_host_*"):
        shutil.copy2(path, folder)
    shutil.copy2(f"{made.key}.pub", folder / "authorized_keys")
    (folder / "sshd.conf").write_text(SSHD)
    (folder / "80-wired.network").write_text(NETWORK)


def _installed(name: str) -> str | None:
    return shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
