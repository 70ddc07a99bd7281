"""A C library under other loaders than glibc's: musl's, Android's, and none."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from bionic_rules import refusals
from conftest import REPOSITORY
from debian import musl_and_jni
from guest_libraries import STEM, THREADS, write_guest
from phone_loader import android_folder, android_link

HERE = Path(__file__).parent
COMPILER = "aarch64-linux-gnu-gcc"
FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")
ALONE = ("-ffreestanding", "-nostdlib")
REFUSED = "threads cannot be started: give the options create and join, or parallel\n"


@dataclass(frozen=True)
class Out:
    """A folder with a small network's library, archive and header, and `input.f32`."""

    folder: Path

    @property
    def expected(self) -> np.ndarray:
        """PyTorch's scores."""
        with np.load(self.folder / f"{STEM}.reference.npz") as arrays:
            return np.asarray(arrays["output"].reshape(-1))

    def build(self, name: str, *words: object) -> Path:
        """Return a program."""
        subprocess.run([COMPILER, *FLAGS, f"-I{self.folder}", *map(str, words), "-o", name], cwd=self.folder, check=True)
        return self.folder / name

    def output(self, *words: object) -> str:
        """Return the output of a command in the folder."""
        done = subprocess.run([*map(str, words)], cwd=self.folder, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout

    def check(self, line: str) -> None:
        """Asserts that a program printed the best class and its score."""
        best, score = line.removeprefix("class ").split(": ")
        assert int(best) == self.expected.argmax()
        assert float(score) == pytest.approx(self.expected.max(), rel=1e-5)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Out:
    folder = tmp_path_factory.mktemp("out")
    write_guest(folder)
    with np.load(folder / f"{STEM}.reference.npz") as arrays:
        arrays["input"].tofile(folder / "input.f32")
    return Out(folder)


@pytest.mark.virtual
@pytest.mark.parametrize("threads", [1, THREADS])
def test_glibc_opens_it(out: Out, threads: int) -> None:
    program = out.build("loaded", HERE / "loaded.c")
    out.check(out.output("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", program, f"./{STEM}.so", "input.f32", threads))


@pytest.fixture(scope="module")
def musl() -> Path:
    """Debian's musl for AArch64."""
    return musl_and_jni()


@pytest.mark.virtual
@pytest.mark.parametrize("kind", ["linked", "opened"])
def test_musl_loads_it(out: Out, musl: Path, kind: str) -> None:
    """The guide's program, and one that opens the library, with one thread and with four."""
    parts, loader = musl / "usr/lib/aarch64-linux-musl", musl / "lib/aarch64-linux-musl/libc.so"
    own = subprocess.run([COMPILER, "-print-file-name=include"], capture_output=True, text=True, check=True).stdout.strip()
    headers = ["-nostdinc", "-isystem", musl / "usr/include/aarch64-linux-musl", "-isystem", own]
    sources = [REPOSITORY / "examples/native/classify.c", f"./{STEM}.so"] if kind == "linked" else [HERE / "loaded.c"]
    begin, end = [parts / "crt1.o", parts / "crti.o"], [loader, parts / "crtn.o"]
    program = out.build(kind, *headers, "-nostdlib", *begin, *sources, *end, "-Wl,--dynamic-linker=/lib/ld-musl-aarch64.so.1")
    command = [
        "qemu-aarch64",
        "-L",
        musl,
        "-E",
        "LD_LIBRARY_PATH=.",
        program,
        *([] if kind == "linked" else [f"./{STEM}.so"]),
        "input.f32",
    ]
    lines = [out.output(*command, threads) for threads in (1, THREADS)]
    out.check(lines[0])
    assert lines[1] == lines[0]


@pytest.mark.virtual
def test_androids_loader_opens_it(out: Out, request: pytest.FixtureRequest) -> None:
    """It hides libc's symbols from the library, so that threads use the functions that the program passes."""
    root = android_folder(request)
    program = out.build("android", *ALONE, "-fPIE", *android_link(root), HERE / "loaded.c", "-lc", "-ldl")
    command = ["qemu-aarch64", "-L", root, program, out.folder / f"{STEM}.so", "input.f32"]
    line = out.output(*command, 1)
    out.check(line)
    assert out.output(*command, THREADS) == REFUSED
    assert out.output(*command, THREADS, "hand over") == line


@pytest.mark.virtual
@pytest.mark.parametrize("page_bytes", [4096, 16384, 65536])
def test_androids_loader_has_no_reason_to_refuse_it(out: Out, page_bytes: int) -> None:
    assert refusals((out.folder / f"{STEM}.so").read_bytes(), page_bytes) == []


def _put(form: str, place: int, value: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into(form, data, place, value)


def _entry(tag: int, other: int) -> Callable[[bytearray], None]:
    """Gives an entry of the dynamic section another tag."""

    def change(data: bytearray) -> None:
        begin, size = next((s[2], s[5]) for s in struct.iter_unpack("<IIQQQQQQ", data[64 : 64 + 56 * data[56]]) if s[0] == 2)
        place = next(begin + i for i in range(0, size, 16) if struct.unpack_from("<Q", data, begin + i)[0] == tag)
        struct.pack_into("<Q", data, place, other)

    return change


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ([_put("<H", 18, 62)], "not a 64-bit little-endian library for AArch64"),
        ([_put("<H", 56, 0)], "invalid e_phnum"),
        ([_put("<Q", 40, 0)], "no section headers"),
        ([_put("<Q", 64 + 48, 4096)], "a segment aligned to 4096, pages of 16384"),
        ([_put("<Q", 64 + 32, 1 << 40)], "a segment past the end of the file"),
        ([_put("<I", 64 + 4, 7)], "a segment both writable and executable"),
        ([_entry(4, 21), _entry(0x6FFFFEF5, 21)], "no DT_HASH or DT_GNU_HASH"),
        ([_entry(14, 21)], "no DT_SONAME"),
        ([_entry(14, 22)], "text relocations"),
        ([_entry(11, 17)], "tables of another architecture"),
    ],
)
def test_the_rules_find_what_is_wrong(out: Out, changes: Sequence[Callable[[bytearray], None]], complaint: str) -> None:
    data = bytearray((out.folder / f"{STEM}.so").read_bytes())
    for change in changes:
        change(data)
    assert any(complaint in found for found in refusals(bytes(data)))


@pytest.mark.virtual
def test_without_an_operating_system(out: Out) -> None:
    """Nothing is undefined, nothing calls the system, and the answer is that of the library under Linux."""
    program = out.build("bare", *ALONE, "-static", HERE / "bare.c", f"{STEM}.a")
    done = subprocess.run(["qemu-aarch64", "-strace", program], cwd=out.folder, capture_output=True, text=True, check=True)
    check_bits(out, done.stderr)  # where every call of the system would be, too


@pytest.mark.virtual
def test_on_a_machine_of_its_own(out: Out) -> None:
    """QEMU's machine `virt` with a Cortex-A72: no operating system, no memory management, floating point switched on by the program."""
    if shutil.which("qemu-system-aarch64") is None:
        pytest.skip("qemu-system-aarch64 is not installed")
    program = out.build("machine", "-DPRIVILEGED", *ALONE, "-static", "-Wl,-Ttext-segment=0x40080000", HERE / "bare.c", f"{STEM}.a")
    machine = [
        "-M",
        "virt",
        "-cpu",
        "cortex-a72",
        "-m",
        "128",
        "-nographic",
        "-net",
        "none",
        "-semihosting-config",
        "enable=on,target=native",
    ]
    done = subprocess.run(["qemu-system-aarch64", *machine, "-kernel", program], cwd=out.folder, capture_output=True, text=True, check=True)
    check_bits(out, done.stdout + done.stderr)


def check_bits(out: Out, line: str) -> None:
    """Asserts that a program printed the best class and the bits of its score."""
    found = re.fullmatch(r"class (\d+): bits ([0-9a-f]{8})\n", line)
    assert found, line
    score = np.frombuffer(bytes.fromhex(found[2])[::-1], np.float32)[0]
    out.check(f"class {int(found[1])}: {score}")
