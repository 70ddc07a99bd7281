"""The C text of a library: its header, and the file that lists its steps and includes `runtime.c`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tvmmobile.native.expanding import expansion_lines
from tvmmobile.native.memory import ALIGNMENT
from tvmmobile.native.sets import CompiledSet, Suitability, need_lines, prefix_of_set, set_lines, shown_lines
from tvmmobile.native.text import c_string
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.networks.signature import Port
from tvmmobile.networks.states import State

if TYPE_CHECKING:
    from tvmmobile.native.layout import Layout
    from tvmmobile.native.parts import CutKernel
    from tvmmobile.native.program import Call, Program

_HERE = Path(__file__).parent
INTERFACE, RUNTIME = _HERE / "interface.h", _HERE / "runtime.c"
_IMAGES = _HERE / "image.h"
#: Functions of every library, of libraries that take images, and of libraries that keep tensors between calls.
FUNCTIONS = ("describe", "init", "run", "observe", "free", "message")
IMAGE_FUNCTIONS = ("image_workspace", "run_image", "top")
STATE_FUNCTIONS = ("state_bytes", "reset")


@functools.cache
def interface_version() -> int:
    """Return TVMMOBILE_INTERFACE of the libraries that are written."""
    (number,) = re.findall(r"^#define TVMMOBILE_INTERFACE (\d+)", INTERFACE.read_text(encoding="utf-8"), re.MULTILINE)
    return int(number)


@dataclass(frozen=True)
class Description:
    """A library's description of itself.

    Attributes:
        prefix: prefix of its functions, a C identifier.
        name: name of the network.
        version: version of this compiler.
        core: core that its kernels were tuned for.
        threads: number of threads that the work is divided among.
        inputs, outputs: its inputs and outputs, in the caller's order.
        states: the tensors that it keeps between calls; `inputs` and `outputs` are the others.
        image: preprocessing of images, if the library takes them for its only input, `[1, 3, side, side]` of float32.
    """

    prefix: str
    name: str
    version: str
    core: str
    threads: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    image: Preprocessing | None = None
    states: tuple[State, ...] = ()

    @property
    def functions(self) -> tuple[str, ...]:
        """The exported functions, without the prefix."""
        return (*FUNCTIONS, *(IMAGE_FUNCTIONS if self.image else ()), *(STATE_FUNCTIONS if self.states else ()))


def prefix_of(name: str) -> str:
    """Turn a network's name into a C identifier."""
    identifier = re.sub(r"[^0-9A-Za-z]", "_", name)
    return identifier if identifier[:1].isalpha() else f"net_{identifier}"


def header_text(description: Description) -> str:
    """Return the header of a library."""
    guard, prefix = f"{description.prefix}_H", description.prefix
    return f"""/* {description.name} for {description.core}, compiled by tvmmobile {description.version}. docs/c-library.md explains it. */
#ifndef {guard}
#define {guard}

{INTERFACE.read_text(encoding="utf-8")}{_image_types(description)}
#ifdef __cplusplus
extern "C" {{
#endif

/* The network's inputs, outputs and memory. */
const tvmmobile_description *{prefix}_describe(void);
/* Pass TVMMOBILE_INTERFACE; options may be null. Starts the threads asked for. */
int {prefix}_init(uint32_t interface, tvmmobile_instance *instance, const tvmmobile_options *options);
/* Allocates and locks nothing. Threads may run one instance at once, each with its own workspace. threads: 0 means all of init's. */
int {prefix}_run(tvmmobile_instance *instance, const void *const *inputs, void *const *outputs, void *workspace, size_t workspace_bytes,
    uint32_t threads);
/* Sets a function that run's caller calls before (done: 0) and after (1) each kernel; null removes it. Nothing may be running. */
int {prefix}_observe(tvmmobile_instance *instance, void (*observer)(void *context, const char *kernel, uint32_t done), void *context);
/* Ends its threads. Nothing may be running. */
int {prefix}_free(tvmmobile_instance *instance);
/* What an error code means, in a sentence. */
const char *{prefix}_message(int code);
{_image_functions(description)}{_state_functions(description)}
#ifdef __cplusplus
}}
#endif

#endif
"""


def _image_types(description: Description) -> str:
    """Return the additional text in headers of libraries that take images."""
    return "" if description.image is None else f"\n{_IMAGES.read_text(encoding='utf-8')}"


def _image_functions(description: Description) -> str:
    """Return the additional declarations for such libraries."""
    image, prefix = description.image, description.prefix
    if image is None:
        return ""
    return f"""
/* Bytes that run_image needs for images of up to this size, workspace_bytes included; 0 if it takes none of this size. */
size_t {prefix}_image_workspace(uint32_t width, uint32_t height);
/* As run, for an image: shorter side to {image.shorter_side} (bicubic), middle {image.side}x{image.side}, set upright;
   red, green, blue in [0, 1] minus {_listed(image.mean)}, over {_listed(image.std)}. */
int {prefix}_run_image(tvmmobile_instance *instance, const tvmmobile_image *image, void *const *outputs,
    void *workspace, size_t workspace_bytes, uint32_t threads);
/* The `wanted` largest of `count` scores, largest first, of equal ones the first. */
int {prefix}_top(const float *scores, uint32_t count, tvmmobile_class *classes, uint32_t wanted);
"""


def _state_functions(description: Description) -> str:
    """Return the additional declarations for libraries that keep tensors between calls."""
    if not description.states:
        return ""
    prefix, names = description.prefix, ", ".join(re.sub(r"[^0-9A-Za-z_.]", "_", state.port.name) for state in description.states)
    return f"""
/* Bytes of memory for what an instance keeps between calls: {names}. */
size_t {prefix}_state_bytes(void);
/* Gives the instance this memory, aligned as inputs are, until it is freed, and sets what it keeps to zeros (if quantised, zero points).
   Nothing may be running. Before the first reset, run returns TVMMOBILE_UNREADY; then only one thread at a time may call it. */
int {prefix}_reset(tvmmobile_instance *instance, void *state, size_t state_bytes);
"""


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def cmake_text(library: str) -> str:
    """Write a package for CMake: it locates `library.so`, and `library.a` if there is one, relative to its own file."""
    return f"""# find_package({library}) reads this file. It may be moved, together with what lies beside it.
if(NOT TARGET tvmmobile::{library})
  add_library(tvmmobile::{library} SHARED IMPORTED)
  set_target_properties(tvmmobile::{library} PROPERTIES
    IMPORTED_LOCATION "${{CMAKE_CURRENT_LIST_DIR}}/{library}.so"
    INTERFACE_INCLUDE_DIRECTORIES "${{CMAKE_CURRENT_LIST_DIR}}")
  if(EXISTS "${{CMAKE_CURRENT_LIST_DIR}}/{library}.a")
    add_library(tvmmobile::{library}_static STATIC IMPORTED)
    set_target_properties(tvmmobile::{library}_static PROPERTIES
      IMPORTED_LOCATION "${{CMAKE_CURRENT_LIST_DIR}}/{library}.a"
      INTERFACE_INCLUDE_DIRECTORIES "${{CMAKE_CURRENT_LIST_DIR}}")
  endif()
endif()
"""


def source_text(description: Description, sets: Sequence[CompiledSet], weight_bytes: int, suitability: Suitability | None = None) -> str:
    """Return the C file of a library.

    Args:
        sets: sets of kernels, with the same inputs, outputs and states.
        weight_bytes: size of all sets' weights together.
        suitability: suitability of each of several sets for cores.
    """
    image, first = description.image, sets[0]
    expanded_bytes = max(kernel_set.layout.expanded_bytes for kernel_set in sets)
    assert all(kernel_set.layout.state_bytes == first.layout.state_bytes for kernel_set in sets)
    lines = [
        f"/* {description.name}: its kernels in order. */",
        f'#include "{description.prefix}.h"',
        f"#define MODEL(name) {description.prefix}_##name",
        '#define PUBLIC __attribute__((visibility("default")))',
        *([f"#define EXPANDED_BYTES {expanded_bytes}"] if expanded_bytes else []),
        *([f"#define STATE_BYTES {first.layout.state_bytes}"] if first.program.states else []),
        *([f"#define SETS {len(sets)}"] if suitability is not None else []),
        '#include "runtime.c" /* its types */',
        *need_lines(sets, suitability),
        "",
        'extern const unsigned char weights[] __attribute__((visibility("hidden")));',
    ]
    for each in sets:
        for kernel, call in {call.symbol: (each.kernels[call.symbol], call) for call in each.program.calls}.values():
            pointers = ", ".join(["const void *"] * len(call.arguments) + ["void *"] * 3)
            lines += [f"extern void {part.symbol}({pointers}, int32_t, int32_t);" for part in kernel.parts]
    lines += ["", *_described(description, sets, weight_bytes, expanded_bytes), *([] if image is None else _image_lines(image)), ""]
    for place, each in enumerate(sets):
        lines += _set_lines(prefix_of_set(place, sets), each, takes_images=image is not None)
        lines += expansion_lines(prefix_of_set(place, sets), each.layout) if expanded_bytes else []
    lines += _state_lines(description, first.program, first.layout)
    if suitability is None:
        lines += ["#define STEPS ((uint32_t)(sizeof steps / sizeof *steps))", ""]
    else:
        lines += set_lines(sets, suitability)
    return "\n".join([*lines, '#include "runtime.c"', *([] if image is None else ['#include "image.c"']), ""])


def _set_lines(prefix: str, compiled: CompiledSet, takes_images: bool) -> Iterator[str]:
    """Yield the steps of a set and the names of its kernels."""
    rows, names = (["    IMAGE_STEP_LIST"], ["    IMAGE_KERNEL"]) if takes_images else ([], [])
    first, program = len(names), compiled.program
    for number, call in enumerate(program.calls):
        kernel = compiled.kernels[call.symbol]
        separate = call.symbol in compiled.lowered.separate and len(kernel.parts) > 1 and not kernel.shared_bytes
        for place, part in enumerate(kernel.parts):
            name = f"{prefix}step{number}_{place}"
            yield from _step(name, part.symbol, list(_arguments(program, compiled.layout, number, call, kernel)))
            by_last, ends = separate and not part.extent, not separate or place + 1 == len(kernel.parts)
            rows.append(f"    {{{name}, {part.extent}, {int(by_last)}, {int(ends)}, {first + number}}},")
    names += [f"    {c_string(call.symbol)}," for call in program.calls]
    yield from ["", f"static const char *const {prefix}kernels[] = {{", *names, "};"]
    yield from [f"static const Step {prefix}steps[] = {{", *rows, "};"]


def _image_lines(image: Preprocessing) -> Iterator[str]:
    """Yield the definitions that scaling.c reads; floats to the bit."""
    yield f"#define IMAGE_SIDE {image.side}"
    yield f"#define IMAGE_SHORTER {image.shorter_side}"
    for name, values in (("mean", image.mean), ("std", image.std)):
        yield f"static const float image_{name}[] = {{{', '.join(float(np.float32(value)).hex() for value in values)}}};"
    yield '#include "scaling.c"'


def _state_lines(description: Description, program: Program, layout: Layout) -> Iterator[str]:
    """Yield the table of kept tensors: where each one lies, its bytes, and the initial value of them all."""
    if description.states:
        yield "static const State states[] = {"
        for state, (value, _), place in zip(description.states, program.states, layout.states, strict=True):
            yield f"    {{{place}, {program.values[value].bytes}, {state.port.zero & 0xFF}}},"
        yield "};"


def _step(name: str, symbol: str, arguments: Sequence[str]) -> Iterator[str]:
    yield f"static void {name}(const Frame *frame, uint32_t lane, int32_t begin, int32_t end) {{"
    yield "  (void)frame, (void)lane;"
    yield f"  {symbol}({', '.join(arguments)}, begin, end);"
    yield "}"


def _arguments(program: Program, layout: Layout, number: int, call: Call, kernel: CutKernel) -> Iterator[str]:
    """Yield the places of a call's tensors and memory, as C."""
    before, after = ({pair[side]: place for pair, place in zip(program.states, layout.states, strict=True)} for side in (0, 1))
    for value, offset in map(program.place_of, (*call.arguments, call.result)):
        if value in before:
            yield f"frame->before + {before[value] + offset}"
        elif value in after:
            yield f"frame->after + {after[value] + offset}"
        elif value in program.inputs:
            tensor = f"frame->inputs[{program.inputs.index(value)}]"
            yield f"(const unsigned char *){tensor} + {offset}" if offset else tensor
        elif value in program.outputs:
            yield f"(unsigned char *)frame->outputs[{program.outputs.index(value)}] + {offset}"
        elif value in layout.expanded:
            yield f"frame->expanded + {layout.expanded[value].place}"
        elif program.values[value].kind == "constant":
            yield f"weights + {layout.constants[value]}"
        else:
            yield f"frame->workspace + {layout.tensors[value] + offset}"
    shared = layout.scratch[number]
    yield f"frame->workspace + {shared}" if kernel.shared_bytes else "0"
    own = shared + kernel.shared_bytes
    yield f"frame->workspace + {own} + lane * {kernel.own_bytes}u" if kernel.own_bytes else "0"


def _described(description: Description, sets: Sequence[CompiledSet], weight_bytes: int, expanded_bytes: int) -> Iterator[str]:
    """Yield the lines of the description, its tensors and its sets."""
    program = sets[0].program
    for kind, ports, values in (("input", description.inputs, program.inputs), ("output", description.outputs, program.outputs)):
        for number, port in enumerate(ports):
            extents = ", ".join(map(str, port.shape))
            yield f"static const int64_t {kind}{number}_shape[] = {{{extents}}};"
        yield f"static const tvmmobile_tensor {kind}s[] = {{"
        for number, (port, value) in enumerate(zip(ports, values, strict=True)):
            tensor = program.values[value]
            words = ", ".join(map(c_string, (port.name, tensor.dtype, port.layout)))
            yield f"    {{{words}, {kind}{number}_shape, {len(port.shape)}, 0, {tensor.bytes}, 0, 0, 0}},"
        yield "};"
    yield from shown_lines(sets, description.threads)
    workspace_bytes = max(kernel_set.layout.workspace_bytes for kernel_set in sets)
    words = ", ".join(map(c_string, (description.name, description.version, description.core)))
    counts = f"{len(program.inputs)}, {len(program.outputs)}, {workspace_bytes}, {weight_bytes}, {ALIGNMENT}"
    yield "static const tvmmobile_description description = {"
    yield f"    TVMMOBILE_INTERFACE, {description.threads}, {words}, inputs, outputs, {counts},"
    yield f"    sets, reasons, {len(sets)}, fastest_threads, {expanded_bytes}}};"
