"""Functions of a C library that device libraries bring along agree with the host's to the last bit."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np

import tvmmobile.kernels.codegen as codegen

SOURCE = Path(codegen.__file__).with_name("freestanding.c")
PROGRAM = f"""
#define memset own_memset
#define memcpy own_memcpy
#define fmodf own_fmodf
#include "{SOURCE}"
void remainders(const float *x, const float *y, float *out, long count) {{
  for (long place = 0; place < count; ++place) out[place] = own_fmodf(x[place], y[place]);
}}
"""


def test_remainders_are_exact(tmp_path: Path) -> None:
    """The operands have all magnitudes; denormal numbers, zeros, infinities and NaN are among them."""
    (tmp_path / "program.c").write_text(PROGRAM, encoding="utf-8")
    library = tmp_path / "program.so"
    subprocess.run(["gcc", "-O2", "-fno-builtin", "-shared", "-fPIC", str(tmp_path / "program.c"), "-o", str(library)], check=True)
    random = np.random.default_rng(0)
    special = np.array([0, -0.0, 1, -3.5, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38], np.float32)
    any_bits = random.integers(0, 1 << 32, (2, 300_000), dtype=np.uint32).view(np.float32)
    near = random.uniform(-1000, 1000, 100_000).astype(np.float32), random.uniform(1e-3, 20, 100_000).astype(np.float32)
    pairs = np.meshgrid(special, special)
    x, y = (np.concatenate([pairs[place].ravel(), any_bits[place], near[place]]) for place in (0, 1))
    found, pointer = np.empty_like(x), ctypes.POINTER(ctypes.c_float)
    ctypes.CDLL(str(library)).remainders(*(array.ctypes.data_as(pointer) for array in (x, y, found)), ctypes.c_long(len(x)))
    with np.errstate(invalid="ignore"):
        wanted = np.fmod(x, y)
    assert np.array_equal(found, wanted, equal_nan=True)
    assert np.array_equal(np.signbit(found[wanted == 0]), np.signbit(wanted[wanted == 0]))
