"""Weights that `init` makes of fewer bits: the same bits as the kernels' packed constants, in memory that ends with the instance."""

from __future__ import annotations

import ctypes
import platform
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from c_libraries import OK, CLibrary, HostSets, Options, describe, write_host_sets
from small_networks import HOST, prepared, seeded, unit
from torch import nn

from tvmmobile.graph.layers import Array, Conv2d, Layer, LayerParameters
from tvmmobile.graph.layouts import blocked
from tvmmobile.graph.lowering import Lowered, lower
from tvmmobile.graph.network import Network
from tvmmobile.graph.precision import FLOAT16, INT8
from tvmmobile.graph.small_weights import rounded
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.function import kernel_function
from tvmmobile.native.expanding import expansion_lines
from tvmmobile.native.layout import Expanded
from tvmmobile.native.memory import aligned
from tvmmobile.native.sets import LoweredSet
from tvmmobile.native.source import RUNTIME
from tvmmobile.schedules import KnobSchedule, templates_for
from tvmmobile.schedules.emit.expansion import Expansion, digest_of, is_expandable

MEMORY = 14
SHAPE = (1, 3, 24, 24)
#: Around expand.h, what it reads of runtime.c and of a library's file.
HARNESS = """
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#define EXPANDED_BYTES {bytes}
#include "runtime.c"
extern long syscall(long number, ...);
#define system_call syscall
#include "float_mode.h"
static uint32_t less(uint32_t one, uint32_t other) {{ return one < other ? one : other; }}
_Alignas(64) static const unsigned char weights[] = {{{weights}}};
{tables}
typedef struct Instance {{ unsigned char *expanded; }} Instance;
#define expansions_of(self) expansions
#define expansion_count(self) (sizeof expansions / sizeof *expansions)
#include "expand.h"
const void *made(void) {{
  static Instance instance;
  uint64_t mode = float_mode();
  set_float_mode({odd_mode});
  bool there = make_weights(&instance);
  set_float_mode(mode);
  return there ? instance.expanded : 0;
}}
"""
#: Rounds towards zero, and flushes subnormal numbers.
ODD_MODE = "0xff80" if platform.machine() == "x86_64" else "0x1c00000"


def in_fewer_bits(parameters: LayerParameters, kind: str) -> LayerParameters:
    return replace(parameters, weight=rounded(parameters.weight, kind), stored=kind)


def random_layer(generator: np.random.Generator, place: int) -> Layer:
    """Return a convolution, every other one for Winograd's algorithm."""
    depth, channels, side = (int(generator.choice(values)) for values in ((16, 36, 48, 80), (16, 24, 40, 96), (5, 9, 13)))
    if place % 2:
        blocks = {"in_layout": blocked(16), "out_layout": blocked(8)} if depth % 16 == 0 and channels % 8 == 0 and place % 4 == 1 else {}
        return Conv2d(side, side, depth, channels, (3, 3), padding=(1, 1, 1, 1), **blocks)
    kernel = ((3, 3), (5, 5), (1, 3), (2, 2))[place // 2 % 4]
    return Conv2d(side, side, depth - 5, channels - 3, kernel, (2, 2))


def test_init_makes_the_bits_that_kernels_are_given(tmp_path: Path) -> None:
    """Any sizes, panels, K blocks, parts and tile sizes, in either precision, and whatever the caller's rounding mode is."""
    generator = np.random.default_rng(7)
    wanted: list[Array] = []
    found: dict[int, Expanded] = {}
    held, size = bytearray(), 0
    seen = set()
    for place in range(96):
        layer, kind = random_layer(generator, place), (INT8, FLOAT16)[place // 3 % 2].name
        task = Task((layer,))
        template = next(each for each in templates_for(task) if each.name == ("winograd" if place % 2 else "conv"))
        space = template.space(task)
        assert space is not None and is_expandable(layer)
        knobs = list(space)[int(generator.integers(len(space)))].values
        drawn = layer.random_parameters(generator, np.dtype(np.float32))
        drawn = replace(drawn, weight=drawn.weight * np.float32(10.0 ** generator.integers(-4, 2)))
        parameters = in_fewer_bits(drawn, kind)
        expansion = template.expansion(task, knobs, (parameters,))
        assert expansion is not None and expansion.stored.nbytes < parameters.weight.nbytes
        wanted.append(template.pack(task, knobs, (parameters,))[0])
        stored = append(held, expansion.stored)
        found[place] = Expanded(expansion, size, stored, None if expansion.scales is None else append(held, expansion.scales))
        size += aligned(wanted[-1].nbytes)
        seen.add((template.name, kind, knobs.get("size"), knobs.get("parts", 1) > 1, 0 < knobs["k_block"] < layer.in_channels))
    assert len(seen) > 16
    layout: Any = SimpleNamespace(expanded=found)
    text = HARNESS.format(bytes=size, weights=", ".join(map(str, held)), tables="\n".join(expansion_lines("", layout)), odd_mode=ODD_MODE)
    (tmp_path / "made.c").write_text(text)
    flags = (
        "-std=gnu11",
        "-O2",
        "-ffp-contract=off",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unused-function",
        f"-I{RUNTIME.parent}",
        "-shared",
        "-fPIC",
    )
    subprocess.run(["cc", *flags, f"-I{RUNTIME.parent}", "-o", str(tmp_path / "made.so"), str(tmp_path / "made.c")], check=True)
    library = ctypes.CDLL(str(tmp_path / "made.so"))
    library.made.restype = ctypes.c_void_p
    made = np.ctypeslib.as_array(ctypes.cast(library.made(), ctypes.POINTER(ctypes.c_uint8)), (size,))
    for place, expected in enumerate(wanted):
        start = found[place].place
        assert made[start : start + expected.nbytes].tobytes() == np.ascontiguousarray(expected).tobytes(), (place, found[place].expansion)


def append(held: bytearray, array: Array) -> int:
    """Append an array at a multiple of a cache line; return its offset."""
    held += bytes(-len(held) % 64)
    held += array.tobytes()
    return len(held) - array.nbytes


def lowered(network: Network, preferred: str) -> tuple[Any, dict[bytes, Expansion]]:
    """Lower a network by the usual schedules of a template where it takes a layer, else of the first."""
    kernels, expansions = [], {}
    for place, node in enumerate(network.nodes):
        task, parameters = Task((node.layer,)), () if node.parameters is None else (node.parameters,)
        template = min(templates_for(task), key=lambda each: each.name != preferred)
        space = template.space(task)
        assert space is not None
        schedule = KnobSchedule(template.name, template.version, tuple(space.usual.items()))
        constants = template.pack(task, schedule.values, parameters)
        if parameters and (expansion := template.expansion(task, schedule.values, parameters)):
            expansions[digest_of(constants[0])] = expansion
        kernels.append(Lowered(place, place, task, kernel_function(task, schedule, None), tuple(constants)))
    return lower(network, tuple(kernels)), expansions


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> HostSets:
    """A library with two sets whose kernels read different packings of the same weights."""
    network = seeded(*unit(3, 32, 3, 2), *unit(32, 48, 3), *unit(48, 30, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(30, 5))
    read = prepared(network, SHAPE)
    nodes = [
        replace(node, parameters=in_fewer_bits(node.parameters, INT8.name)) if node.parameters and is_expandable(node.layer) else node
        for node in read.nodes
    ]
    read = replace(read, nodes=tuple(nodes))
    image = np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)
    sets = []
    for preferred in ("winograd", "conv"):
        module, expansions = lowered(read, preferred)
        assert len(expansions) >= 2
        sets.append(LoweredSet(module, HOST, device=preferred, expansions=expansions))
    return write_host_sets(sets, describe(sets[0].module), image, tmp_path_factory.mktemp("expanded") / "net.so", by_features=(0, 1))


def test_each_set_expands_the_same_weights(two: HostSets) -> None:
    library = CLibrary(two.path)
    assert library.description.expanded_bytes == two.written.whole.expanded_bytes == max(each.expanded_bytes for each in two.written.sets)
    one, other = two.written.sets
    assert two.written.whole.weight_bytes < 1.2 * max(one.weight_bytes, other.weight_bytes)  # both hold the same numbers
    for place, expected in enumerate(two.outputs):
        instances = [library.instance(Options(1, flags=place + 1 << 24)) for _ in range(2)]
        for instance in instances:
            (output,) = library.run(instance, [two.image])
            assert output.tobytes() == expected.tobytes()
        assert library.c.net_free(instances[0]) == OK
        (output,) = library.run(instances[1], [two.image])  # has weights of its own
        assert output.tobytes() == expected.tobytes()
        assert library.c.net_free(instances[1]) == OK


def test_freeing_an_instance_ends_its_weights(two: HostSets) -> None:
    library, before = CLibrary(two.path), pages()
    for _ in range(200):
        assert library.c.net_free(library.instance()) == OK
    assert pages() - before < 50 * two.written.whole.expanded_bytes / resource.getpagesize()


def pages() -> int:
    """Pages of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0])


def test_without_memory_init_says_so(two: HostSets) -> None:
    script = f"""
import ctypes, resource
library = ctypes.CDLL({str(two.path)!r})
library.net_message.restype = ctypes.c_char_p
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used, used))
memory = (ctypes.c_uint64 * 128)()
code = library.net_init(1, memory, None)
print(code, library.net_message(code).decode(), library.net_free(memory))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split(maxsplit=1)[0] == str(MEMORY) and "no memory for the weights" in done.stdout and done.stdout.endswith(" 5\n")
