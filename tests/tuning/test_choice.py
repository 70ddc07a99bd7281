"""A task without a template is compiled with the record of an equal function, whatever network that was made for."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from small_networks import HOST, prepared, seeded, unit
from torch import nn

from tvmmobile.devices.protocol import MEASURED
from tvmmobile.graph.function_json import block_names
from tvmmobile.graph.layers import Conv2d, Opaque
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.network import Node
from tvmmobile.graph.passes.canonical_names import canonical_names
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.function import apply_trace, kernel_function
from tvmmobile.schedules import template_named
from tvmmobile.tuning.choice import choose
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.tuning.search.fallback import FallbackSpace, stores_of
from tvmmobile.tuning.search.nearest import nearest_schedules

IMAGE = (1, 3, 9, 9)


class LargestOfChannels(nn.Module):
    """A reduction: Relax calls its block after a variable of the network."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.amax(1, keepdim=True)


def reduction_in(network: nn.Module) -> Node:
    """Return the first node of a network that no template takes."""
    return next(node for node in prepared(network, IMAGE).nodes if isinstance(node.layer, Opaque))


def test_a_record_fits_an_equal_function_of_another_network(tmp_path: Path) -> None:
    here = reduction_in(seeded(*unit(3, 8, 3, 2), LargestOfChannels(), *unit(1, 5)))
    there = reduction_in(seeded(*unit(3, 8, 3, 2), *unit(8, 8), *unit(8, 8), LargestOfChannels(), *unit(1, 5)))
    task = Task((here.layer,))
    assert there.layer == here.layer
    (trace,) = FallbackSpace(task, here.function, HOST).members(1)
    database = Database(Identity("nowhere", MEASURED), (), tmp_path)
    database.append([Record(task, trace, 5.0)])
    choice = choose(task, there.function, database, HOST)
    assert (choice.schedule, choice.price.latency_us) == (trace, 5.0)
    kernels = [kernel_function(task, choice.schedule, node.function) for node in (here, there)]
    assert kernels[0].script() == kernels[1].script()


def test_no_sample_computes_a_sum_again_for_each_element() -> None:
    class Centred(nn.Module):
        """All elements less their mean, which is one loop in front of another."""

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image - image.mean((1, 2, 3), keepdim=True)

    node = reduction_in(seeded(*unit(3, 8, 3, 2), Centred()))
    traces = FallbackSpace(Task((node.layer,)), node.function, HOST).members(4)
    assert all(stores_of(apply_trace(trace, node.function).body) <= 8 * stores_of(node.function.body) for trace in traces) and traces


def test_an_estimate_chooses_where_nothing_is_measured(tmp_path: Path) -> None:
    """Winograd's filtering for a layer of many pixels, unless both were measured for the nearest one, where the direct sum was faster."""
    layer, few = (Conv2d(side, side, 128, 128, (3, 3), padding=(1, 1, 1, 1)) for side in (28, 1))
    task, near = Task((layer,)), Task((replace(layer, height=27),))
    database = Database(Identity("nowhere", MEASURED), (), tmp_path)

    def chosen(task: Task) -> str:
        return str(choose(task, None, database, HOST).schedule)

    assert chosen(task).startswith("winograd") and chosen(Task((few,))).startswith("conv")
    direct, filtered = (template_named(name, 1).space(near).default for name in ("conv", "winograd"))  # type: ignore[union-attr]
    database.append([Record(near, direct, 5.0)])
    assert chosen(task).startswith("winograd")
    database.append([Record(near, filtered, 6.0)])
    assert chosen(task).startswith("conv")


def test_a_neighbours_algorithm_that_loses_here_is_not_taken(tmp_path: Path) -> None:
    """Winograd's larger weights, which four threads of a Pi 4 would wait for; the direct sum's threads read weights of their own."""
    layer = Conv2d(7, 7, 512, 512, (3, 3), padding=(1, 1, 1, 1))
    task = Task((layer,), threads=4, machine=machine_of("cortex-a72"))
    near = replace(task, region=(replace(layer, height=14, width=14),))
    database = Database(Identity("nowhere", MEASURED), (), tmp_path)
    database.append([Record(near, template_named("winograd", 1).space(near).default, 6.0)])  # type: ignore[union-attr]
    choice = choose(task, None, database, HOST)
    assert str(choose(near, None, database, HOST).schedule).startswith("winograd")
    assert choice.schedule == template_named("conv", 1).space(task).default and "slower here" in choice.price.source  # type: ignore[union-attr]


def test_records_of_one_thread_do_not_say_what_four_share(tmp_path: Path) -> None:
    """ResNet-18's 14×14 layers took 4.0 ms on a Pi 4 so, directly; with Winograd's usual knobs for four threads they take 2.7."""
    layer = Conv2d(14, 14, 256, 256, (3, 3), padding=(1, 1, 1, 1))
    task = Task((layer,), threads=4, machine=machine_of("cortex-a72"))
    near = replace(task, region=(replace(layer, height=13, width=13),), threads=1)
    direct, filtered = (template_named(name, 1) for name in ("conv", "winograd"))
    assert direct is not None and filtered is not None
    for template in (filtered, direct):
        database = Database(Identity("nowhere", MEASURED), (), tmp_path / template.name)
        database.append([Record(near, template.space(near).default, 6.0)])  # type: ignore[union-attr]
        assert choose(task, None, database, HOST).schedule == filtered.space(task).default  # type: ignore[union-attr]
    (schedule,) = nearest_schedules(task, database, direct)
    assert direct.space(near).usual["axis"] == 0 != schedule.values["axis"] == direct.space(task).usual["axis"]  # type: ignore[union-attr]


def doubled(names: tuple[str, str]) -> Any:
    """Σ 2 x over 64 values, its blocks and the buffers they fill called so."""
    from tvm import te

    x = te.placeholder((64,), name="x")
    twice = te.compute((64,), lambda i: x[i] * 2.0, name=names[0])
    k = te.reduce_axis((0, 64), name="k")
    return te.create_prim_func([x, te.compute((1,), lambda i: te.sum(twice[k], axis=k), name=names[1])])


def test_names_are_those_of_the_order() -> None:
    import tvm

    one, other = doubled(("T_multiply", "lv25_red")), doubled(("T_multiply3", "T_multiply"))
    assert block_names(one) == ["T_multiply", "lv25_red", "root"] != block_names(other)
    same = [canonical_names(tvm.IRModule({"main": function}))["main"] for function in (one, other)]
    assert block_names(same[0]) == ["block0", "block1", "root"]
    assert same[0].script() == same[1].script()
    tvm.ir.assert_structural_equal(same[0], one)


def test_the_name_of_a_task_says_what_its_blocks_are_called() -> None:
    """Records from before names were canonical are of another task: their traces do not fit, and do not count."""
    import tvm_ffi

    node = reduction_in(seeded(*unit(3, 8, 3, 2), LargestOfChannels(), *unit(1, 5)))
    assert isinstance(node.layer, Opaque)
    structure = tvm_ffi.structural_hash(node.function.without_attr("global_symbol"))
    assert node.layer.fingerprint != hashlib.sha256(str(structure).encode()).hexdigest()[:12]
    assert node.layer.name == "max_1x5x5x8_f80c5927133c"
