"""Reads the AArch64 assembly of a kernel: its innermost loops and what they do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tvmmobile.graph.machine import BASELINE
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import make_target, pass_context
from tvmmobile.kernels.lowering import PIPELINE
from tvmmobile.schedules import Template, template_for

#: Of float32, whose loops the tests read.
LANES = BASELINE.vector_bytes // FLOAT32.bytes
TARGET = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}
_LABEL = re.compile(r"(\.?\w+):$")
_BRANCH = re.compile(r"(?:b\.\w+|b|cbn?z|tbn?z)\s.*?(\.L\w+)$")
_INDEXED_FMLA = re.compile(r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.s\[\d\]")


@dataclass(frozen=True)
class Loop:
    """The instructions of one loop that contains no other."""

    instructions: tuple[str, ...]

    @property
    def multiply_adds(self) -> int:
        """FMLA on whole vectors."""
        return sum(text.startswith("fmla") and ".4s" in text for text in self.instructions)

    @property
    def indexed(self) -> int:
        """The number of these that take one operand from a lane, without a broadcast of its own."""
        return sum(bool(_INDEXED_FMLA.match(text)) for text in self.instructions)

    @property
    def stack_accesses(self) -> list[str]:
        """Instructions that address the stack: spilled registers."""
        return [text for text in self.instructions if "[sp" in text]


def assembly_of(task: Task, knobs: Mapping[str, int], template: Template | None = None, mcpu: str = "cortex-a72") -> str:
    """Return the assembly of one schedule; without a template, of the first that takes `task`."""
    import tvm

    template = template or template_for(task)
    assert template is not None
    with pass_context():
        module = tvm.IRModule({task.symbol: template.emit(task, knobs)})
        library = tvm.tirx.build(module, target=make_target({**TARGET, "mcpu": mcpu}), pipeline=PIPELINE)
    text: str = library.inspect_source("asm")
    return text


def innermost_loops(text: str) -> list[Loop]:
    """Loops without another loop inside: from a label to the branch back to it, nothing but instructions between."""
    position: dict[str, int] = {}
    instructions: list[str] = []
    spans: list[tuple[int, int]] = []
    for line in text.splitlines():
        line = line.split("//")[0].strip()
        label = _LABEL.match(line)
        if label:
            position[label[1]] = len(instructions)
        elif line and not line.startswith((".", "#")):
            instructions.append(line)
            branch = _BRANCH.match(line)
            if branch and branch[1] in position:
                spans.append((position[branch[1]], len(instructions)))
    inner = [span for span in spans if not any(other != span and span[0] <= other[0] and other[1] <= span[1] for other in spans)]
    return [Loop(tuple(instructions[begin:end])) for begin, end in dict.fromkeys(inner)]


def hottest_loop(text: str, operation: str = "fmla") -> Loop:
    """Return the innermost loop with the most of these operations."""
    return max(innermost_loops(text), key=lambda loop: sum(text.startswith(operation) for text in loop.instructions))
