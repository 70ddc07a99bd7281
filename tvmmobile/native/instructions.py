"""Instructions beyond Armv8.0 in a library's kernels, and how Linux reports that a CPU has them.

LLVM may use every instruction of the core that it compiles for, and mostly does not: kernels in float32 for a Cortex-A76 run on a
Cortex-A53. So what counts is the machine code, not the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tvmmobile.graph.machine import Machine
from tvmmobile.kernels.codegen import make_target
from tvmmobile.native.symbols import code_of


@dataclass(frozen=True, order=True)
class Feature:
    """Instructions that a CPU has or lacks together (Linux, Documentation/arch/arm64/elf_hwcaps.rst).

    Attributes:
        word, bit: word and bit that Linux reports them in: of AT_HWCAP (0) or AT_HWCAP2 (1).
        name: the feature's name in /proc/cpuinfo.
    """

    word: int
    bit: int
    name: str


#: `sha2` stands for SHA-1 as well: a core has both.
_PMULL, _AES, _SHA2, _SHA3 = Feature(0, 4, "pmull"), Feature(0, 3, "aes"), Feature(0, 6, "sha2"), Feature(0, 17, "sha3")
_CRC32, _ATOMICS, _LRCPC, _ILRCPC = Feature(0, 7, "crc32"), Feature(0, 8, "atomics"), Feature(0, 15, "lrcpc"), Feature(0, 26, "ilrcpc")
#: Half precision in vectors; Linux reports it together with `fphp`, of single numbers.
_HALF, _HALF_LONG = Feature(0, 10, "asimdhp"), Feature(0, 23, "asimdfhm")
_RDM, _DOT, _COMPLEX, _JAVASCRIPT = Feature(0, 12, "asimdrdm"), Feature(0, 20, "asimddp"), Feature(0, 14, "fcma"), Feature(0, 13, "jscvt")
_FRINT, _I8MM, _BF16 = Feature(1, 8, "frint"), Feature(1, 13, "i8mm"), Feature(1, 14, "bf16")
#: The ID registers can be read.
CPUID = Feature(0, 11, "cpuid")
#: By the names in `Machine.has`.
MACHINE_FEATURES = {"half": _HALF, "dot": _DOT, "matrix": _I8MM, "bfloat16": _BF16}
_SVE, _SME = Feature(0, 22, "sve"), Feature(1, 23, "sme")
#: The features that SVE encodings may belong to on a core with a given LLVM feature; encodings are not distinguished further.
_SCALABLE = {"sve2": Feature(1, 1, "sve2"), "i8mm": Feature(1, 9, "svei8mm"), "bf16": Feature(1, 12, "svebf16")}

_Row = tuple[int, int, Feature | None]


def _also_scalar(mask: int, value: int, feature: Feature) -> tuple[_Row, _Row]:
    """Return rows of vector instructions, whose bit 28 is 0, and of their scalar forms in vector registers."""
    return (mask | 0x10000000, value, feature), (mask | 0x50000000, value | 0x50000000, feature)


#: (mask, value, feature): an instruction belongs to the first row where `word & mask == value`, or to Armv8.0 if no row matches. Arm
#: Architecture Reference Manual, DDI 0487, C4.1. Pointer authentication, memory tags, flags and system registers are left out: LLVM uses
#: them only on request.
_ROWS: tuple[_Row, ...] = (
    (0x9E000000, 0x80000000, _SME),
    (0x1E000000, 0x04000000, _SVE),
    # Loads and stores: compare and swap, of one register and of a pair; LDAPR; other atomic operations; LDAPUR and STLUR.
    (0x3FA07C00, 0x08A07C00, _ATOMICS),
    (0xBFA07C00, 0x08207C00, _ATOMICS),
    (0x3FFFFC00, 0x38BFC000, _LRCPC),
    (0x3F200C00, 0x38200000, _ATOMICS),
    (0x3F200C00, 0x19000000, _ILRCPC),
    # General registers.
    (0x7FE0E000, 0x1AC04000, _CRC32),
    # Cryptography, whose instructions of four registers (EOR3, XAR and the like) are useful elsewhere.
    (0xFF3E0C00, 0x4E280800, _AES),
    (0xFF208C00, 0x5E000000, _SHA2),
    (0xFF3E0C00, 0x5E280800, _SHA2),
    (0xBFE0FC00, 0x0EE0E000, _PMULL),
    (0xFF000000, 0xCE000000, _SHA3),
    # Vectors, three registers of the same kind, and their scalar forms: later additions have bit 15 set.
    *_also_scalar(0xAF20F400, 0x2E008400, _RDM),
    (0x9F20FC00, 0x0E009400, _DOT),
    (0xBF20FC00, 0x0E009C00, _I8MM),
    (0x9F20F400, 0x0E00A400, _I8MM),
    (0xBF20E400, 0x2E00C400, _COMPLEX),
    (0xBF20EC00, 0x2E00E400, _COMPLEX),
    (0xBF20EC00, 0x2E00EC00, _BF16),
    (0xBF60FC00, 0x0E20EC00, _HALF_LONG),
    (0xBF60FC00, 0x2E20CC00, _HALF_LONG),
    # Vectors by an element.
    (0xBFC0B400, 0x0F800000, _HALF_LONG),
    (0xBFC0B400, 0x2F808000, _HALF_LONG),
    (0x9FC0F400, 0x0F80E000, _DOT),
    (0xBF40F400, 0x0F00F000, _I8MM),
    (0xBF40F400, 0x0F40F000, _BF16),
    *_also_scalar(0xAF00D400, 0x2F00D000, _RDM),
    (0xBF009400, 0x2F001000, _COMPLEX),
    *_also_scalar(0x8FC03400, 0x0F001000, _HALF),
    # Vectors in half precision: three registers, two, across lanes, an immediate, and fixed point.
    *_also_scalar(0x8F60C400, 0x0E400400, _HALF),
    *_also_scalar(0x8F7E0C00, 0x0E780800, _HALF),
    *_also_scalar(0xAF7FCC00, 0x0E30C800, _HALF),
    (0xBFF8FC00, 0x0F00FC00, _HALF),
    *_also_scalar(0x8FF0FC00, 0x0F10E400, _HALF),
    *_also_scalar(0x8FF0FC00, 0x0F10FC00, _HALF),
    # Conversions and rounding.
    (0xBFFFFC00, 0x0EA16800, _BF16),
    (0xFFFFFC00, 0x1E634000, _BF16),
    (0x9FBFEC00, 0x0E21E800, _FRINT),
    (0xFFBE7C00, 0x1E284000, _FRINT),
    (0xFFFFFC00, 0x1E7E0000, _JAVASCRIPT),
    # Single numbers in half precision; Armv8.0 converts them to float32 and float64.
    (0xFFFF7C00, 0x1EE24000, None),
    (0x5EC00000, 0x1EC00000, _HALF),
)


def typical_features(machine: Machine) -> tuple[Feature, ...]:
    """Return the features beyond Armv8.0 by which a core differs from older ones."""
    return tuple(sorted(MACHINE_FEATURES[name] for name in machine.has))


def needed_features(objects: Iterable[Path], target: Mapping[str, Any]) -> tuple[Feature, ...]:
    """Return the features beyond Armv8.0 that the code of object files for `target` needs."""
    return tuple(sorted(set().union(*(features_of(code_of(path.read_bytes()), target) for path in objects))))


def features_of(code: bytes, target: Mapping[str, Any]) -> frozenset[Feature]:
    """Return the features beyond Armv8.0 that the instructions in `code`, compiled for `target`, need."""
    words, found = np.frombuffer(code, "<u4"), set()
    for mask, value, feature in _ROWS:
        others = words & mask != value
        if feature is not None and not others.all():
            found.add(feature)
        words = words[others]
    return frozenset(found | _scalable(target) if _SVE in found else found)


def _scalable(target: Mapping[str, Any]) -> set[Feature]:
    """Return the features that SVE's instructions may need on this core."""
    from tvm.target.codegen import llvm_get_cpu_features

    known = set(map(str, llvm_get_cpu_features(make_target(target))))
    return {feature for name, feature in _SCALABLE.items() if name in known}
