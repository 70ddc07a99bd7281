"""Finds the kernel that a system spends most of its time in, and the one that its makers chose for the core.

A wheel with symbols names its kernels. In one without, a kernel is known by its loop: how many FMLA to how many accumulators, and how it
loads. `MAKERS` has each peer's choice, from its sources: what it looks at, and the kernel that it takes on each core.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated

from tvmmobile.virtual.elf import place_of
from tvmmobile.virtual.program import ProgramRun

_SYMBOL = re.compile(r"\((\S+)\+0x[0-9a-f]+\)$")
_FUSED = re.compile(r"^fml[as]\t(v\d+)\.(\d?[sdh]), .*?(\.[sdh]\[\d\])?$")
#: Eight lanes of half precision, and products in bfloat16.
HALF_LANES, BFLOAT_PRODUCT = ".8h", "bfmmla"
#: Products of 8-bit integers or in bfloat16, and sums of pairs of such products.
_PRODUCT = re.compile(
    r"^((?:[su](?:mull2?|mlal2?|dot|mmla|adalp)|bfmmla))\tv\d+\.\d?[hs], v\d+\.(?:16b|8b|8h)(?:, v\d+\.(?:16b|8b|8h|4b(\[\d\])?))?$"
)
#: Products of 16-bit integers.
_WIDE_PRODUCT = re.compile(r"^([su]m[ul]a?l+2?)\tv\d+\.4s, v\d+\.[48]h, v\d+\.(?:[48]h|h(\[\d\]))$")
_LOAD = re.compile(r"^(ld\w+)\t(\{[^}]*\}|([qdsxwv])\d+)")
_INSERT = re.compile(r"^(?:ins|mov)\tv\d+\.d\[\d\]")


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class HotKernel:
    """The kernel with a run's costliest block.

    Attributes:
        name: the function, from the library's symbols, else the kernel with this loop in the peer's sources; empty if unknown.
        loop: the block's instructions, counted.
        share: share of the run's core cycles that the block takes, 0 to 1.
    """

    name: str
    loop: str
    share: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class KernelChoice:
    """A peer's choice of its kernel for pointwise convolutions.

    Attributes:
        looks_at: properties of the core that it reads, and the place in its sources that says so.
        kernels: kernels by core, as `Board.cpu` names it; `""` for all others.
        loops: kernels of a wheel without symbols by their loop.
    """

    looks_at: str
    kernels: Mapping[str, str]
    loops: Mapping[str, str]

    def kernel(self, cpu: str) -> str:
        """Return the kernel that its makers chose for a core."""
        return self.kernels.get(cpu, self.kernels[""])


_XNNPACK = "xnn_f32_gemm_minmax_ukernel_{}__asm_aarch64_neonfma_{}"
_NCNN = "convolution_gemm_transB_packed_tile, 8×12, "
_XNNPACK_HALF = "xnn_f16_gemm_minmax_ukernel_6x16__asm_aarch64_neonfp16arith_{}"
_NCNN_HALF = "convolution_gemm_transB_packed_tile_fp16sa, 8×12"
_MLAS_HALF = "MlasHalfGemmKernelNeon, 6×16"
_MLAS = "MlasSgemmKernel (SgemmKernelNeon.S), 4×16"
MAKERS: Mapping[str, KernelChoice] = {
    "ncnn": KernelChoice(
        "`midr_el1` in `/sys`, else `/proc/cpuinfo`: A53, A55 or another core; HWCAP: with half precision an A55 (cpu.cpp, "
        "convolution_im2col_gemm.h). The size of the second-level cache in `/sys` decides its blocks",
        {"Cortex-A53": f"{_NCNN}A53", "Cortex-A55": f"{_NCNN}A55", "": f"{_NCNN}others"},
        {
            "96 fmla by lane to 24 accumulators; 20 ins, 20 ldr d, 20 ldr x, 8 prfm": f"{_NCNN}A53",
            "96 fmla by lane to 24 accumulators; 20 ins, 20 ldr d, 20 ldr x, 5 prfm": f"{_NCNN}A55",
            "96 fmla by lane to 24 accumulators; 5 ld1 4v, 5 prfm": f"{_NCNN}others",
        },
    ),
    "mnn": KernelChoice(
        "HWCAP: half precision, dot products, SVE2, SME2 (CPURuntime.cpp, CommonOptFunction.cpp); in float32 one kernel serves all "
        "cores here. The clocks in `/sys` decide how threads share work",
        {"": "MNNPackedMatMul"},
        {},
    ),
    "litert": KernelChoice(
        "`/proc/cpuinfo`: the core's part and variant (gemm-config.c of XNNPACK, by cpuinfo)",
        {
            "Cortex-A53": _XNNPACK.format("6x8", "cortex_a53_prfm"),
            "Cortex-A55": _XNNPACK.format("6x8", "cortex_a55"),
            "Cortex-A72": _XNNPACK.format("4x8", "cortex_a75_prfm"),
            "Cortex-A73": _XNNPACK.format("6x8", "cortex_a73"),
            "Cortex-A76": _XNNPACK.format("6x8", "cortex_a75_prfm"),
            "": _XNNPACK.format("7x8", "ld128_2"),
        },
        {},
    ),
    "onnxruntime": KernelChoice(
        "HWCAP: SVE, SME (platform.cpp of MLAS); in float32 one kernel serves all cores here. The core's part number matters for integer "
        "kernels only",
        {"": _MLAS},
        {"64 fmla by lane to 16 accumulators; 8 ldp q, 4 ldr q": _MLAS},
    ),
}


#: In half precision; the keys are those of `systems("bfloat16")`, and `looks_at` is how each is asked for it.
HALF_MAKERS: Mapping[str, KernelChoice] = {
    "ncnn-bfloat16": KernelChoice("`use_bf16_packed` and `use_bf16_storage`, off by default; HWCAP2: bfloat16", {"": ""}, {}),
    "ncnn-float16": KernelChoice(
        "`use_fp16_packed`, `use_fp16_storage` and `use_fp16_arithmetic`, on by default; HWCAP: half precision",
        {"Cortex-A55": f"{_NCNN_HALF}, A55", "": _NCNN_HALF},
        {
            "48 fmla .8h by lane to 12 accumulators; 10 ins, 10 ldr d, 10 ldr x, 3 prfm": f"{_NCNN_HALF}, A55",
            "48 fmla .8h by lane to 12 accumulators; 1 ld1 2v, 2 ld1 4v, 3 prfm": _NCNN_HALF,
        },
    ),
    "mnn-float16": KernelChoice("the session's `precision: low`; HWCAP: half precision", {"": "MNNPackedMatMulFP16"}, {}),
    "litert-float16": KernelChoice(
        "the model's metadata `reduced_precision_support`: `fp16accfp16`, without which the wheel's XNNPACK computes in float32; weights "
        "are stored in float32",
        {"Cortex-A55": _XNNPACK_HALF.format("cortex_a55"), "": _XNNPACK_HALF.format("cortex_a75")},
        {},
    ),
    "onnxruntime-float16": KernelChoice(
        "the model's types: everything in float16 except input and output; the wheel has no XNNPACK",
        {"": _MLAS_HALF},
        {"48 fmla .8h by lane to 12 accumulators; 4 ld1 1v, 6 ldr d, 4 ldr q": _MLAS_HALF},
    ),
}


#: How each peer's model got its integers; the keys are those of `systems("int8")`.
QUANTISERS: Mapping[str, str] = {
    "ncnn-int8": "scales by largest magnitude in the files that ncnn2int8 would write, convolutions to convolutions without a step through "
    "float32; `use_fp16_…` for the rest, on by default",
    "mnn-int8": "`mnnquant` with `KL` and `MAX_ABS`; the session's `precision: low` for the rest",
    "litert-int8": "ai-edge-quantizer, static, by minimum and maximum; input and output stay in float32",
    "onnxruntime-int8": "ONNX Runtime's `quantize_static`: QDQ, by channel, signed activations",
    "onnxruntime-u8-int8": "the same with unsigned activations",
}


def hottest_kernel(run: ProgramRun, system: str) -> HotKernel | None:
    """Return the kernel of a run that was modelled with its hottest block; `None` without one."""
    if not run.modelled.core.hottest:
        return None
    block = run.modelled.core.hottest[0]
    loop = loop_of(block.assembly)
    symbol = _SYMBOL.search(place_of(block.address, run.mappings))
    choice = MAKERS.get(system) or HALF_MAKERS.get(system)
    known = choice.loops if choice else {}
    return HotKernel(symbol[1] if symbol else known.get(loop, ""), loop, block.cycles / max(run.modelled.core.cycles, 1))


def loop_of(assembly: Sequence[str]) -> str:
    """Describe a block's work in a few words: `24 fmla by lane to 24 accumulators; 4 ldr q, 1 ldp q`."""
    fused = [found for text in assembly if (found := _FUSED.match(text))]
    others = Counter(_kind(text) for text in assembly)
    del others[""]
    beside = ", ".join(f"{others[name]} {name}" for name in sorted(others))
    if fused:
        by_lane = " by lane" if any(found[3] for found in fused) else ""
        half = f" {HALF_LANES}" if all(found[2] == HALF_LANES[1:] for found in fused) else ""
        work = f"{len(fused)} fmla{half}{by_lane} to {len({found[1] for found in fused})} accumulators"
        return "; ".join(filter(None, (work, beside)))
    products = [found for text in assembly if (found := _PRODUCT.match(text) or _WIDE_PRODUCT.match(text))]
    if products:
        kinds = Counter(f"{found[1]}{' by lane' if found[2] else ''}" for found in products)
        return "; ".join(filter(None, (", ".join(f"{kinds[name]} {name}" for name in sorted(kinds)), beside)))
    counts = Counter(text.partition("\t")[0] for text in assembly)
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _kind(text: str) -> str:
    """Name a load with its registers (`ldr q`, `ld1 3v`), an insertion or a prefetch; else empty."""
    if load := _LOAD.match(text):
        registers = load[2].count(",") + 1
        return f"{load[1]} {load[3] or f'{registers}v'}"
    return "ins" if _INSERT.match(text) else "prfm" if text.startswith("prfm") else ""
