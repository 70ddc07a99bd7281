"""Tests of the sentences about kernels that no template takes."""

from __future__ import annotations

import pytest

from tvmmobile.results.report.fallback import UsedKernel, fallback_lines, why_no_template

MATMUL, MEAN = "matmul_2x64x8_0123456789ab_float32_t1", "mean_1x7x7x8_0123456789ab_float32_t1"
CONV = UsedKernel("conv_8x8_8x8_k1s1_linear_float32_t1", False, 6_000_000, 70.0)


def test_nothing_is_said_where_templates_take_all() -> None:
    assert fallback_lines([]) == fallback_lines([CONV]) == []


def test_shares_of_time_and_multiply_adds() -> None:
    """The most expensive first; a kernel that runs twice is one."""
    used = [CONV, UsedKernel(MEAN, True, 0, 10.0), UsedKernel(MATMUL, True, 1_000_000, 5.0), UsedKernel(MEAN, True, 0, 10.0)]
    whole, *each = fallback_lines([*used, UsedKernel(MATMUL, True, 1_000_000, 5.0)])
    assert whole == (
        "No template takes 2 of 3 kernels, which use MetaSchedule's schedules: "
        "30.0 % of the time and 2.00 M multiply-adds (25.0 % of them)."
    )
    assert each[0].startswith(f"{MEAN} (2 times): 20.0 % of the time and 0.00 M multiply-adds (0.0 % of them); it reduces other axes")
    assert each[1].startswith(f"{MATMUL} (2 times): 10.0 % of the time and 2.00 M multiply-adds (25.0 % of them); templates multiply two")


def test_without_latencies_multiply_adds_decide() -> None:
    whole, first, _ = fallback_lines([CONV, UsedKernel(MEAN, True, 0, 90.0), UsedKernel(MATMUL, True, 2_000_000, None)])
    assert whole.endswith(": 2.00 M multiply-adds (25.0 % of them).") and first.startswith(MATMUL) and "% of the time" not in first


def test_ten_are_explained() -> None:
    lines = fallback_lines([UsedKernel(f"mean_1x{n}x7x8_0123456789ab_float32_t1", True, 0, 1.0 + n) for n in range(12)])
    assert len(lines) == 12 and lines[1].startswith("mean_1x11x") and lines[-1] == "2 kernels without a template cost less."


@pytest.mark.parametrize(
    ("operators", "why"),
    [
        ("conv2d_transpose_add", "transposed convolution"),
        ("conv2d_add_tir_sin", "combination of kernel, stride"),
        ("group_conv2d", "combination of kernel, stride"),
        ("softmax_cast", "normalises"),
        ("resize2d", "resizes"),
        ("transpose_transpose", "only moves data"),
        ("strided_slice", "only moves data"),
        ("concatenate", "only moves data"),
        ("maximum_minimum", "element by element"),
        ("add_erf", "element by element"),
        ("cumsum", "one after another"),
    ],
)
def test_the_reason(operators: str, why: str) -> None:
    assert why in why_no_template(f"{operators}_1x7x7x8_0123456789ab_float32_t1")
