"""The table of instructions beyond Armv8.0 agrees with LLVM's and GNU's, and leaves no word out."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from assembly import TARGET

from tvmmobile.native.instructions import features_of, needed_features
from tvmmobile.native.symbols import code_of
from tvmmobile.system.doctor import CROSS_COMPILER, require

#: By their names in /proc/cpuinfo, instructions of each feature; "" are those of Armv8.0 that are most like them.
EXAMPLES = {
    "": "fcvt s0, h1; fcvt d0, h1; fcvt h0, s1; fcvtl v0.4s, v1.4h; fcvtn v0.4h, v1.4s; ldr h0, [x0]; fmla v0.4s, v1.4s, v2.s[1]; "
    "sqrdmulh v0.8h, v1.8h, v2.8h; pmull v0.8h, v1.8b, v2.8b; ldxr w0, [x1]; ldar w0, [x1]; frintz s0, s1; fmadd s0, s1, s2, s3; "
    "scvtf v0.4s, v1.4s, 3; fmov v0.4s, 1.0; faddp s0, v1.2s; umaxv h0, v1.8h; movi v0.8h, 1; saddlv s0, v1.8h; hint 34",
    "asimdhp": "fadd h0, h1, h2; fadd v0.8h, v1.8h, v2.8h; fmla v0.4h, v1.4h, v2.h[7]; fmul h0, h1, v2.h[1]; fmaxnmv h0, v1.8h; "
    "faddp h0, v1.2h; fmov v0.8h, 1.0; fmov h0, 1.0; fmov w0, h1; scvtf v0.8h, v1.8h; scvtf v0.8h, v1.8h, 3; scvtf h0, h1, 3; "
    "fcvtzs v0.8h, v1.8h, 3; fcvtzs h0, h1, 3; scvtf h0, w1; fcmp h0, h1; fcsel h0, h1, h2, eq; fmadd h0, h1, h2, h3; fsqrt h0, h1; "
    "frecpe h0, h1; fcmgt v0.8h, v1.8h, 0.0",
    "asimddp": "sdot v0.4s, v1.16b, v2.16b; udot v0.2s, v1.8b, v2.8b; sdot v0.4s, v1.16b, v2.4b[3]; udot v0.4s, v1.16b, v2.4b[0]",
    "i8mm": "smmla v0.4s, v1.16b, v2.16b; ummla v0.4s, v1.16b, v2.16b; usmmla v0.4s, v1.16b, v2.16b; usdot v0.4s, v1.16b, v2.16b; "
    "usdot v0.4s, v1.16b, v2.4b[1]; sudot v0.4s, v1.16b, v2.4b[1]",
    "asimdrdm": "sqrdmlah v0.8h, v1.8h, v2.8h; sqrdmlsh v0.4s, v1.4s, v2.s[1]; sqrdmlah h0, h1, h2; sqrdmlsh s0, s1, v2.s[1]",
    "asimdfhm": "fmlal v0.4s, v1.4h, v2.4h; fmlsl2 v0.4s, v1.4h, v2.4h; fmlal v0.4s, v1.4h, v2.h[1]; fmlal2 v0.4s, v1.4h, v2.h[1]",
    "fcma": "fcmla v0.4s, v1.4s, v2.4s, 90; fcadd v0.4s, v1.4s, v2.4s, 90; fcmla v0.4s, v1.4s, v2.s[1], 90",
    "bf16": "bfdot v0.4s, v1.8h, v2.8h; bfmmla v0.4s, v1.8h, v2.8h; bfmlalb v0.4s, v1.8h, v2.8h; bfdot v0.4s, v1.8h, v2.2h[1]; "
    "bfcvt h0, s1; bfcvtn v0.4h, v1.4s; bfmlalt v0.4s, v1.8h, v2.h[1]",
    "jscvt": "fjcvtzs w0, d1",
    "frint": "frint32z s0, s1; frint64x d0, d1; frint32x v0.4s, v1.4s; frint64z v0.2d, v1.2d",
    "atomics": "ldadd w0, w1, [x2]; swpal x0, x1, [x2]; casal w0, w1, [x2]; casp x0, x1, x2, x3, [x4]; stclr w0, [x1]",
    "lrcpc": "ldapr w0, [x1]; ldaprb w0, [x1]",
    "ilrcpc": "ldapur w0, [x1]; stlur x0, [x1, 8]",
    "crc32": "crc32x w0, w1, x2; crc32cb w0, w1, w2",
    "aes": "aese v0.16b, v1.16b; aesimc v0.16b, v1.16b",
    "pmull": "pmull v0.1q, v1.1d, v2.1d; pmull2 v0.1q, v1.2d, v2.2d",
    "sha2": "sha256h q0, q1, v2.4s; sha256su0 v0.4s, v1.4s; sha1c q0, s1, v2.4s",
    "sha3": "eor3 v0.16b, v1.16b, v2.16b, v3.16b; xar v0.2d, v1.2d, v2.2d, 3",
    "sve": "ptrue p0.s; index z0.s, 0, 1; addvl sp, sp, -1; ldr z0, [x0]; str p0, [x0]; add z0.s, z1.s, z2.s; mul z0.d, p0/m, z0.d, z1.d",
}
#: As the A64 instruction sets that LLVM 14 knows go: what Armv9 and its options have beyond Armv8.0.
ARMV9 = "--mattr=+v8.6a,+sve2,+f32mm,+f64mm,+sha3,+sm4,+aes,+sha2,+crc,+fp16fml,+fullfp16,+rcpc-immo,+sme"
#: What LLVM uses only if it is asked to: tags of memory, signed pointers, limited ordering, flags, barriers and processor state.
ASKED_FOR = re.compile(
    r"st2?z?2?g|stgp|ldgm?|stz?gm|addg|subg|subps?|irg|gmi|ldra[ab]|(pac|aut|xpac|bra|blra|reta|ereta)\w*|(ld|st)ll?[al]r[bh]?"
    r"|rmif|setf\d+|cfinv|[ax]+flag|sb|msr"
)


def named(code: bytes, mcpu: str = "cortex-a76") -> set[str]:
    return {feature.name for feature in features_of(code, {**TARGET, "mcpu": mcpu})}


def assembled(instructions: Sequence[str], folder: Path) -> Path:
    """Return an object file with these instructions."""
    source, output = folder / "some.s", folder / "some.o"
    march = ".arch armv8.6-a+sve+fp16+fp16fml+sha3+crypto+crc+i8mm+bf16\n"
    source.write_text(march + "\n".join(instructions) + "\n", encoding="utf-8")
    subprocess.run([str(require(CROSS_COMPILER)), "-c", source, "-o", output], check=True)
    return output


def test_each_instruction_has_its_feature(tmp_path: Path) -> None:
    pairs = [(feature, instruction) for feature, text in EXAMPLES.items() for instruction in text.split("; ")]
    code = code_of(assembled([instruction for _, instruction in pairs], tmp_path).read_bytes())
    assert len(code) == 4 * len(pairs)
    found = [(", ".join(named(code[4 * i : 4 * i + 4])), pairs[i][1]) for i in range(len(pairs))]
    assert found == pairs


def decoded(words: Sequence[int], instructions: str) -> list[str]:
    """Each word as llvm-mc disassembles it; "" if it is none of these instructions."""
    source = "".join(" ".join(f"{byte:#x}" for byte in word.to_bytes(4, "little")) + "\n" for word in words)
    command = [str(require("llvm-mc")), "--disassemble", "--triple=aarch64-linux-gnu", instructions]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=True)
    invalid = set(map(int, re.findall(r"<stdin>:(\d+):\d+: warning: invalid", done.stderr)))
    lines = (line.strip() for line in done.stdout.splitlines() if line.strip() and ".text" not in line)
    return ["" if number in invalid else next(lines) for number in range(1, len(words) + 1)]


def check_words(generator: random.Random, count: int) -> None:
    """Check random words: instructions of Armv8.0 have no feature, and those of Armv9 beyond them that LLVM uses unasked have one."""
    groups = ((0x1E000000, 0x04000000), *2 * [(0x0E000000, 0x0E000000)], (0x0A000000, 0x08000000), (0x0E000000, 0x0A000000), (0, 0))
    words = [generator.getrandbits(32) & ~mask | value for mask, value in (generator.choice(groups) for _ in range(count))]
    older, newer = [], []
    for word, old, new in zip(words, decoded(words, "--mattr=+v8a"), decoded(words, ARMV9), strict=True):
        name = new.split("\t")[0].split(".")[0]
        if old:
            older.append(word)
        elif new and not ASKED_FOR.fullmatch(name):
            newer.append((word, new))
    assert len(older) > count / 10 and len(newer) > count / 20
    assert not named(b"".join(word.to_bytes(4, "little") for word in older))
    assert [f"{word:#x} {text}" for word, text in newer if not named(word.to_bytes(4, "little"))] == []


def test_some_words() -> None:
    check_words(random.Random(1), 5000)


@pytest.mark.long
def test_many_words() -> None:
    for seed in range(5):
        check_words(random.Random(seed), 100_000)


def test_scalable_vectors_are_those_of_the_core(tmp_path: Path) -> None:
    """An A64FX has SVE but not SVE2."""
    code = code_of(assembled(["index z0.s, 0, 1"], tmp_path).read_bytes())
    assert [named(code, core) for core in ("a64fx", "neoverse-v1", "cortex-x2")] == [
        {"sve"},
        {"sve", "svei8mm", "svebf16"},
        {"sve", "sve2", "svei8mm", "svebf16"},
    ]


def test_objects_need_what_their_code_does(tmp_path: Path) -> None:
    """Wherever in an object it is, and what is only data counts for nothing."""
    (tmp_path / "other").mkdir()
    sdot = assembled(["nop", '.section .text.cold, "ax"', "sdot v0.4s, v1.16b, v2.16b"], tmp_path / "other")
    data = assembled(["nop", ".section .rodata", "smmla v0.4s, v1.16b, v2.16b"], tmp_path)
    assert [feature.name for feature in needed_features([sdot, data], TARGET)] == ["asimddp"]
    assert needed_features([data], TARGET) == ()
