"""Counts the instructions and memory of a system's start-up until its first result, on a virtual board and on one thread."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated

from studies.digests import digest_of
from studies.peers.runs import PeerRun, check_difference, difference_in, environment_of, figures_of, instructions_of, run_to_the_end
from studies.peers.systems import OURS_C, System
from tvmmobile.running.networks import compiled_for_devices
from tvmmobile.system.compiled import host_library
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.files import write_text
from tvmmobile.virtual.plugin import build
from tvmmobile.virtual.program import find_program, plain_qemu_words

#: The C library in a program in C, without Python.
PLAIN = "c"
PAGE_BYTES = 4096
_HERE = Path(__file__).parent
_PROGRAM, _PAGES = _HERE / "load_and_run.c", _HERE / "pages.c"
_PLUGIN_API = build.FOLDER / "plugin_api.h"
Count = Annotated[int, Field(gt=0)]


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Pages:
    """Pages of 4 KiB that a process holds.

    Attributes:
        start: pages when it begins to load the network.
        end: pages when it has the first result.
        most: largest number in between.
        most_before: largest number before.
    """

    start: Count
    end: Count
    most: Count
    most_before: Count

    @property
    def most_bytes(self) -> int:
        """The most memory from the process's start to the first result."""
        return max(self.most, self.most_before) * PAGE_BYTES

    @property
    def loading_bytes(self) -> int:
        """The most memory that loading and running the network adds."""
        return (self.most - self.start) * PAGE_BYTES


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class StartUp:
    """A system's start-up with one network.

    Attributes:
        key: the system's, or `PLAIN`.
        imports: instructions of importing its Python modules; `None` without Python.
        instructions: instructions from there to the first result, of all threads.
        modelled_ms: modelled time of the latter, of the thread that loads.
    """

    key: str
    variant: str
    imports: Count | None
    instructions: Count
    modelled_ms: float


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class MemoryUse:
    """The memory of a process that loads a network and runs it once.

    Attributes:
        key: the system's, or `PLAIN`.
        needed_bytes: need of a C library: its weights as packed and its workspace.
    """

    key: str
    variant: str
    pages: Pages
    needed_bytes: Count | None


def _marked(job: PeerRun, region: Literal["load", "import"]) -> PeerRun:
    """Return the run of a system's program with another part of it marked, see first_result.py."""
    environment = {**job.system.environment, "TVMMOBILE_PROGRAM": str(job.system.program), "TVMMOBILE_REGION": region}
    system = replace(job.system, program=_HERE / "first_result.py", environment=environment)
    return replace(job, system=system, files=(*job.files, job.system.program))


def plain_program(job: PeerRun, prefix: str) -> PeerRun:
    """Return a run of the job's C library in a C program, marked from dlopen to the first result."""
    program = compiled_for_devices(_PROGRAM, "", ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-lm", "-ldl"))
    program.chmod(0o755)
    system = System(OURS_C, job.system.title, program, job.system.requirements, (), job.system.tolerance, {"TVMMOBILE_PREFIX": prefix})
    return replace(job, system=system)


def start_up(key: str, variant: str, job: PeerRun) -> StartUp:
    """Count a system's start-up; `job` is one of `bench_peers`, or a `plain_program`.

    Raises:
        UserError, Disagreement: as `figures_of`.
    """
    imports = None if key == PLAIN else instructions_of(_marked(job, "import"))
    load = job if key == PLAIN else _marked(job, "load")
    figures, _ = figures_of(load)
    return StartUp(key, variant, imports, instructions_of(load), figures.modelled_ms)


def memory_use(key: str, variant: str, job: PeerRun, needed_bytes: int | None = None) -> MemoryUse:
    """Count the pages of a system's process; raise as `count_pages`."""
    return MemoryUse(key, variant, pages_of(job if key == PLAIN else _marked(job, "load")), needed_bytes)


def pages_of(job: PeerRun) -> Pages:
    """Return the pages of a run that marks its start-up, counted under QEMU if they are not in the cache."""
    cached = cache_dir() / "peers/pages" / f"{job.key()}-{digest_of([_PAGES, _PLUGIN_API])}.json"
    try:
        return Pages(**json.loads(cached.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        pass  # never made, or damaged
    found = count_pages(job)
    cached.parent.mkdir(parents=True, exist_ok=True)
    write_text(cached, json.dumps(asdict(found)))
    return found


def count_pages(job: PeerRun) -> Pages:
    """Count a run's pages under QEMU; raise `UserError` if it fails, and `Disagreement` if its output is not PyTorch's."""
    program, _ = find_program(job.command()[0], job.sysroot)
    with tempfile.TemporaryDirectory(prefix="tvmmobile-pages-") as scratch:
        out = Path(scratch, "pages.json")
        words = [*plain_qemu_words(job.board), "-L", str(job.sysroot), "-plugin", f"{plugin()},out={out}", str(program)]
        output = run_to_the_end([*words, *job.command()[1:]], environment_of(job, scratch), job)
        check_difference(difference_in(output, job), job)
        counted: Mapping[str, int] = json.loads(out.read_text(encoding="utf-8"))
    return Pages(**counted)


def plugin() -> Path:
    """Return `pages.c` for QEMU, compiled if it is not there yet."""
    return host_library(_PAGES, f"Compiling {_PAGES.name}", (_PLUGIN_API,))
