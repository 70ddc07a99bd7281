"""Groups instructions as in Arm's optimisation guides, so that the members of a group cost the same.

The vector groups follow the tables "ASIMD integer instructions", "ASIMD floating-point instructions" and "ASIMD miscellaneous
instructions" of the guides of the Cortex-A72 (UAN 0016A) and the Neoverse N1 (PJDOC-466751330-547726), as LLVM's AArch64SchedA57.td and
AArch64SchedNeoverseN1.td quote them. Each core's own table has the costs of a group.
"""

from __future__ import annotations


def _signed(*names: str) -> set[str]:
    return {f"{sign}{name}" for sign in "su" for name in names}


def _halves(*names: str) -> set[str]:
    return {f"{name}{half}" for name in names for half in ("", "2")}


_LONG_SUMS = _signed("addl", "addw", "subl", "subw")
_MEMBERS: dict[str, set[str]] = {
    "arithmetic": {"add", "sub", "neg", "addp", "mov", "fmov", "dup", "ins", "umov", "smov", "movi", "mvni", "fcsel", "fabs", "fneg"}
    | {"and", "orr", "eor", "bic", "orn", "mvn", "not", "cnt", "cls", "clz", "rbit", "sqabs", "sqneg", "suqadd", "usqadd"}
    | {"cmeq", "cmge", "cmgt", "cmhi", "cmhs", "cmle", "cmlt", "cmtst"}
    | _signed("max", "min", "maxp", "minp", "qadd", "qsub", "hadd", "rhadd", "hsub", "addlp")
    | _halves("xtn", "addhn", "raddhn", "subhn", "rsubhn", *_LONG_SUMS),
    "difference": {"abs"} | _signed("abd") | _halves(*_signed("abdl")),
    "permutation": {"zip1", "zip2", "uzp1", "uzp2", "trn1", "trn2", "ext", "rev16", "rev32", "rev64"},
    "selection": {"bsl", "bit", "bif"},
    "table look-up": {"tbl", "tbx"},
    "reduction": {"addv"} | _signed("addlv", "maxv", "minv"),
    "shift": {"shl", "sshr", "ushr", "sli", "sri"} | _halves("shll", "shrn", *_signed("shll", "xtl")),
    "shift by register": _signed("shl"),
    "rounding shift": {"sqshlu"}
    | _signed("rshr", "rshl", "qshl", "qrshl")
    | _halves("rshrn", *_signed("qshrn", "qrshrn"), "sqshrun", "sqrshrun"),
    "saturating narrow": _halves("sqxtn", "uqxtn", "sqxtun"),
    "accumulated shift": _signed("sra", "rsra"),
    "accumulated sum": _signed("adalp"),
    "accumulated difference": _signed("aba"),
    "accumulated long difference": _halves(*_signed("abal")),
    "multiplication": {"mul", "mla", "mls"},
    "high multiplication": {"sqdmulh", "sqrdmulh", "sqrdmlah", "sqrdmlsh"},
    "long multiplication": _halves(*_signed("mull", "mlal", "mlsl")),
    "saturating long multiplication": _halves("sqdmull", "sqdmlal", "sqdmlsl"),
    "polynomial multiplication": {"pmul"} | _halves("pmull"),
    "dot product": {"sdot", "udot", "usdot", "sudot"},
    "matrix product": {"smmla", "ummla", "usmmla"},
    "bfloat16 product": {"bfdot", "bfmlalb", "bfmlalt"},
    "bfloat16 matrix product": {"bfmmla"},
    "cryptography": {"aese", "aesd", "aesmc", "aesimc"},
    "float sum": {"fadd", "fsub", "fabd", "fcadd"},
    "float pair sum": {"faddp"},
    "float extremum": {"fmax", "fmin", "fmaxnm", "fminnm"},
    "float pair extremum": {"fmaxp", "fminp", "fmaxnmp", "fminnmp"},
    "float reduction": {"fmaxv", "fminv", "fmaxnmv", "fminnmv"},
    "float multiplication": {"fmul", "fmulx", "fnmul"},
    "float multiply-accumulate": {"fmla", "fmls", "fmadd", "fmsub", "fnmadd", "fnmsub", "fcmla"},
    "float long multiply-accumulate": _halves("fmlal", "fmlsl"),
    "float comparison": {"fcmeq", "fcmge", "fcmgt", "fcmle", "fcmlt", "facge", "facgt"},
    "float flags": {"fcmp", "fcmpe", "fccmp", "fccmpe"},
    "float division": {"fdiv", "fsqrt"},
    "conversion": {"fcvt", "scvtf", "ucvtf", "bfcvt"} | {f"fcvt{mode}{sign}" for mode in "amnpz" for sign in "su"},
    "length conversion": _halves("fcvtl", "fcvtn", "fcvtxn", "bfcvtn"),
    "rounding": {f"frint{mode}" for mode in "aimnpxz"},
    "estimate": {"frecpe", "frsqrte", "frecpx", "urecpe", "ursqrte"},
    "reciprocal step": {"frecps", "frsqrts"},
}
_GENERAL_MEMBERS: dict[str, set[str]] = {
    "basic": {"add", "adds", "sub", "subs", "neg", "negs", "adc", "adcs", "sbc", "sbcs", "ngc", "ngcs", "adr", "adrp", "nop"}
    | {"and", "ands", "bic", "bics", "orr", "orn", "eor", "eon", "mvn", "mov", "movz", "movn", "movk", "cmp", "cmn", "tst"}
    | {"ccmp", "ccmn", "csel", "cset", "csetm", "csinc", "csinv", "csneg", "cinc", "cinv", "cneg"}
    | {"lsl", "lsr", "asr", "ror", "ubfx", "sbfx", "ubfiz", "sbfiz", "uxtb", "uxth", "sxtb", "sxth", "sxtw"}
    | {"clz", "cls", "rbit", "rev", "rev16", "rev32"},
    "extraction": {"extr"},
    "insertion": {"bfi", "bfxil", "bfm", "bfc"},
    "multiplication": {"mul", "madd", "msub", "mneg"} | _signed("mull", "maddl", "msubl", "mnegl"),
    "high multiplication": _signed("mulh"),
    "division": _signed("div"),
    "checksum": {f"crc32{kind}{size}" for kind in ("", "c") for size in "bhwx"},
    "barrier": {"dmb", "dsb", "isb", "clrex"},
    "system": {"mrs", "msr", "hint", "yield", "wfe", "sev", "sevl", "svc", "brk", "udf", "bti", "dc", "ic", "xpaclri"},
}
#: The group of each mnemonic, for instructions with vector registers and for those without.
VECTOR_GROUPS: dict[str, str] = {name: group for group, members in _MEMBERS.items() for name in members}
GENERAL_GROUPS: dict[str, str] = {name: group for group, members in _GENERAL_MEMBERS.items() for name in members}
#: The group of unlisted instructions.
_DEFAULT, _GENERAL_DEFAULT = "arithmetic", "basic"


def vector_group_of(name: str) -> str:
    """Return the group of an instruction with a vector register."""
    return VECTOR_GROUPS.get(name, _DEFAULT)


def general_group_of(name: str) -> str:
    """Return the group of an instruction on general registers that accesses no memory and does not branch."""
    return GENERAL_GROUPS.get(name, _GENERAL_DEFAULT)
