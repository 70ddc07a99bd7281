"""Kernels of templates go through few passes: what these rest on, and that other functions of a module go through all of TVM's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from host_kernels import HOST

from tvmmobile.graph.layers import (
    Attention,
    ChannelNorm,
    Conv2d,
    Dense,
    GroupNorm,
    Layer,
    MaxPool,
    MeanPool,
    Pool,
    Product,
    Resize,
    Softmax,
)
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import export, make_target, pass_context
from tvmmobile.kernels.lowering import PIPELINE
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters, relative_error
from tvmmobile.schedules import template_for, templates_for
from tvmmobile.schedules.emit.kernel import PLAIN
from tvmmobile.system.toolchain import toolchain

RELU6 = (0.0, 6.0)
REGIONS: tuple[tuple[Layer, ...], ...] = (
    (Conv2d(28, 28, 3, 16, (3, 3), (2, 2), (1, 1, 1, 1), 1, RELU6, "NCHW"),),
    (Conv2d(14, 14, 128, 128, clamp=RELU6),),
    (Conv2d(14, 14, 32, 32, (3, 3), (1, 1), (1, 1, 1, 1), 32, RELU6),),
    (Conv2d(14, 14, 32, 32, (3, 3), (1, 1), (1, 1, 1, 1), 32, RELU6), Conv2d(14, 14, 32, 64, clamp="hswish")),
    (Conv2d(14, 14, 32, 64, clamp=RELU6), Conv2d(14, 14, 64, 64, (3, 3), (1, 1), (1, 1, 1, 1), 64, RELU6)),
    (Conv2d(7, 8, 6, 9, (3, 3), (2, 2), (1, 1, 1, 1), 3, RELU6),),
    (Conv2d(7, 8, 32, 24, (3, 3), (1, 1), (1, 1, 1, 1)),),
    (Pool(7, 7, 64),),
    (MaxPool(9, 8, 8, (3, 3), (2, 2), (1, 1, 1, 1)),),
    (MeanPool(9, 8, 8, (3, 3), (2, 2), (1, 1, 1, 1)),),
    (Dense(64, 40),),
    (Resize(7, 5, 24, 14, 9, "linear", "half_pixel"),),
    (ChannelNorm(5, 3, 24, 1e-6),),
    (GroupNorm(5, 3, 24, 4, 1e-6),),
    (Product((2, 3), 7, 9, 10, (True, True)),),
    (Softmax((5, 3), 21),),
    (Attention(1, 2, 9, 7, 8, 8, 0.3, ((2, 9, 8), (2, 7, 8), (2, 7, 8)), (0, 0, 72, 8), (0, 0, 56, 8), (0, 0, 56, 8), True),),
)


@pytest.mark.parametrize("threads", [1, 4])
def test_templates_emit_nothing_that_the_other_passes_change(threads: int) -> None:
    """Every buffer but an argument is flat, every index and loop counts in 32 bits, and there are no blocks."""
    seen = set()
    for region in REGIONS:
        task = Task(region, threads=threads)
        for template in templates_for(task):
            space = template.space(task)
            assert space is not None
            function = template.emit(task, space.default.values)
            seen.add(template.name)
            text = function.script()
            assert PLAIN in function.attrs
            for other in (r"T\.s?block", "int64", r"T\.vectorized"):
                assert not re.search(other, text), f"{template.name}: {other}"
            while (shorter := re.sub(r"\([^()]*\)", "", text)) != text:  # no commas but those between indices
                text = shorter
            assert not re.search(r"\w\[[^][]*,[^][]*\]", text), template.name
    assert seen == {
        "image_conv",
        "pointwise",
        "strassen",
        "winograd",
        "depthwise",
        "separable",
        "chain",
        "conv",
        "pool",
        "max_pool",
        "mean_pool",
        "resize",
        "channel_norm",
        "group_norm",
        "attention",
        "batched_product",
        "softmax",
        "dense",
    }


def test_other_functions_of_a_module_are_lowered_by_all_passes(tmp_path: Path) -> None:
    """A function on matrices, in blocks, beside a template's kernel: both compute what they should."""
    import tvm
    from tvm import te

    a, b = (te.placeholder((6, 8), name=name) for name in "ab")
    added = te.create_prim_func([a, b, te.compute((6, 8), lambda i, j: a[i, j] + b[i, j])]).with_attr("global_symbol", "added")
    task = Task(REGIONS[1])
    template = template_for(task)
    assert template is not None
    space = template.space(task)
    assert space is not None
    module = tvm.IRModule({"added": added, task.symbol: template.emit(task, space.default.values)})
    with pass_context():
        built = tvm.tirx.build(module, target=make_target(HOST), pipeline=PIPELINE)
    export(built, tmp_path / "both.so", toolchain(HOST))
    library = tvm.runtime.load_module(str(tmp_path / "both.so"))

    one, other = np.arange(48, dtype="float32").reshape(6, 8), np.ones((6, 8), "float32")
    total = tvm.runtime.tensor(np.zeros((6, 8), "float32"))
    library["added"](tvm.runtime.tensor(one), tvm.runtime.tensor(other), total)
    assert (total.numpy() == one + other).all()
    data, parameters = make_inputs(task), make_parameters(task)
    expected = expected_output(task, data, parameters)
    output = tvm.runtime.tensor(np.zeros(expected.shape, "float32"))
    arrays = [*data, *template.pack(task, space.default.values, parameters)]
    library[task.symbol](*map(tvm.runtime.tensor, arrays), output)
    assert relative_error(output.numpy(), expected) <= 1e-5


@pytest.mark.parametrize(("size", "vectors"), [(3, False), (4, True)])
def test_three_booleans_are_not_a_vector(size: int, vectors: bool) -> None:
    """LLVM would store the comparisons of three numbers wrongly on AArch64; vectors of four are right."""
    import tvm
    from tvm import s_tir, te

    data = te.placeholder((12,), "int64")
    compared = te.compute((12,), lambda place: data[place] < 0, name="compared")
    schedule = s_tir.Schedule(te.create_prim_func([data, compared]).with_attr("global_symbol", "compared"))
    (loop,) = schedule.get_loops(schedule.get_sblock("compared"))
    schedule.vectorize(schedule.split(loop, [None, size])[1])
    with pass_context():
        target = make_target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"})
        module = tvm.tirx.transform.BindTarget(target.with_host(target))(tvm.IRModule({"compared": schedule.mod["main"]}))
        lowered = tvm.tirx.get_tir_pipeline(PIPELINE)[0](module)
    assert bool(re.search(r"\[.*:.*\] = ", lowered.script())) == vectors, lowered.script()
