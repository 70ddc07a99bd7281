"""A C library for the virtual Pi 4: it needs nothing, and gives the same bits as TVM's virtual machine on the same device."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from assembly import TARGET
from c_libraries import check_syntax
from conftest import REPOSITORY, CommandLine
from guest_libraries import SHAPE, STEM, THREADS, VARIANT, description, write_guest
from network_files import write_python

from tvmmobile.graph.layers import Array
from tvmmobile.kernels.codegen import export, make_target, pass_context
from tvmmobile.kernels.lowering import PIPELINE
from tvmmobile.native.source import header_text, prefix_of
from tvmmobile.networks.signature import Port
from tvmmobile.networks.states import State
from tvmmobile.pipeline.run import start
from tvmmobile.results.file import read_results
from tvmmobile.running.measure import MeasureError, Timing
from tvmmobile.system.files import sha256_of
from tvmmobile.system.toolchain import toolchain

GUIDE = (REPOSITORY / "docs/c-library.md").read_text(encoding="utf-8")
EXAMPLES = (REPOSITORY / "docs/native-examples.md").read_text(encoding="utf-8")
EXAMPLE = REPOSITORY / "examples/native/classify.c"


def test_the_guide_has_the_header_and_the_example() -> None:
    assert f"```c\n{header_text(description())}```" in GUIDE
    assert f"```c\n{EXAMPLE.read_text(encoding='utf-8')}```" in GUIDE


@pytest.mark.parametrize("compiler", [["gcc", "-std=c99"], ["g++", "-std=c++11"]], ids=["C", "C++"])
def test_headers_of_two_networks_in_one_program(compiler: list[str], tmp_path: Path) -> None:
    kept = State(0, 0, Port("h*/\\", (1, 4)))
    for prefix, states in (("one", ()), ("two", (kept,))):
        (tmp_path / f"{prefix}.h").write_text(header_text(replace(description(), prefix=prefix, states=states)), encoding="utf-8")
    source = tmp_path / "both.c"
    main = "int main(void) { return one_describe() != two_describe() || two_reset(0, 0, two_state_bytes()); }"
    source.write_text(f'#include "one.h"\n#include "two.h"\n{main}\n')
    check_syntax(compiler, source)


def test_a_prefix_is_an_identifier() -> None:
    assert [prefix_of(name) for name in ("a-b.1", "1.0", "_x", "é")] == ["a_b_1", "net_1_0", "net__x", "net__"]


@dataclass(frozen=True)
class Guest:
    """A small network for the device, under the name of the guide's.

    Attributes:
        folder: folder with the library, and the guide's program as `classify.c`.
        expected: output of the virtual machine on the device for the input in `input.f32`.
    """

    folder: Path
    expected: Array

    def image(self) -> Array:
        """Return the input."""
        return np.fromfile(self.folder / "input.f32", np.float32).reshape(SHAPE)

    def compiled(self, *words: str, source: str = "classify.c") -> Path:
        """Return the guide's program."""
        command = ["aarch64-linux-gnu-gcc", "-Wall", "-Wextra", "-Werror", source, *words, "-o", "classify"]
        subprocess.run(command, cwd=self.folder, check=True)
        return self.folder / "classify"

    def output(self, program: Path, threads: int) -> str:
        """Return the program's output."""
        command = [
            "qemu-aarch64",
            "-L",
            "/usr/aarch64-linux-gnu",
            "-E",
            f"LD_LIBRARY_PATH={self.folder}",
            str(program),
            "input.f32",
            str(threads),
        ]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    @property
    def answer(self) -> str:
        """The output that is expected."""
        best = int(self.expected.argmax())
        return f"class {best}: {self.expected[0, best]:.9g}\n"


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Guest:
    from tvm import relax

    folder = tmp_path_factory.mktemp("guest")
    module = write_guest(folder)
    with pass_context():
        export(relax.build(module, target=make_target(TARGET), tir_pipeline=PIPELINE), folder / "vm.so", toolchain(TARGET))
    with np.load(folder / f"{STEM}.reference.npz") as arrays:
        image = arrays["input"]
    image.tofile(folder / "input.f32")
    (folder / "classify.c").write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    with start("pi4-virtual", timed=False) as agents:
        ((expected,),) = agents.outputs(folder / "vm.so", [[image]], THREADS, 60)
    return Guest(folder, expected)


@pytest.mark.virtual
def test_the_agent_runs_it(guest: Guest) -> None:
    """Input after input, as `evaluate` does."""
    image = guest.image()
    with start("pi4-virtual", timed=False) as agents:
        outputs = [found[0] for found in agents.outputs(guest.folder / f"{STEM}.so", [[image], [0 * image], [image]], THREADS, 60)]
    assert outputs[0].tobytes() == guest.expected.tobytes() == outputs[2].tobytes() != outputs[1].tobytes()


@pytest.mark.long
def test_it_is_faster_than_the_virtual_machine(guest: Guest) -> None:
    image, timing = guest.image(), Timing(warmup=1, threads=THREADS)
    with start("pi4-virtual") as agents:
        ours, machine = (agents.measure_network(guest.folder / name, [image], 60, timing) for name in (f"{STEM}.so", "vm.so"))
    assert ours.outputs[0].tobytes() == guest.expected.tobytes()
    assert 0 < ours.latency.seconds < machine.latency.seconds
    assert [call.symbol for call in ours.calls] == [call.symbol for call in machine.calls]
    assert all(call.seconds > 0 and call.l1d_misses is not None and call.dram_bytes is not None for call in ours.calls)
    assert sum(call.seconds for call in ours.calls) < sum(call.seconds for call in machine.calls)


@pytest.mark.virtual
def test_a_library_that_cannot_be_opened_is_a_library_at_fault(guest: Guest, tmp_path: Path) -> None:
    image = np.zeros((1, 3, 16, 16), np.float32)
    manifest = json.loads((guest.folder / f"{STEM}.json").read_text())
    changes = ({"prefix": "another"}, "the device's loader refuses it", "load"), ({"workspace_bytes": 0}, "its run returns 4", "crashed")
    for change, problem, kind in changes:
        (tmp_path / "net.so").write_bytes((guest.folder / f"{STEM}.so").read_bytes())
        (tmp_path / "net.json").write_text(json.dumps(manifest | {"c": manifest["c"] | change}))
        with start("pi4-virtual", timed=False) as agents, pytest.raises(MeasureError, match=problem) as failed:
            agents.outputs(tmp_path / "net.so", [[image]], 1, 60)
        assert failed.value.kind == kind


@pytest.mark.virtual
@pytest.mark.parametrize("threads", [1, THREADS])
def test_the_guides_program_prints_the_virtual_machines_bits(guest: Guest, threads: int) -> None:
    assert guest.output(guest.compiled(f"./{STEM}.so"), threads) == guest.answer


@pytest.mark.virtual
def test_the_guides_observer_prints_each_kernel(guest: Guest) -> None:
    function, call = EXAMPLES.split("## Kernel by kernel")[1].split("```c\n")[1:3]
    text = EXAMPLE.read_text(encoding="utf-8").replace("\nint main", f"#include <time.h>\n{function.split('```')[0]}\nint main")
    ready = "  const void *inputs[]"
    (guest.folder / "observed.c").write_text(text.replace(ready, call.split("```")[0] + ready), encoding="utf-8")
    output = guest.output(guest.compiled(f"./{STEM}.so", source="observed.c"), THREADS).splitlines()
    assert guest.answer == output[0] + "\n" and len(output) == 6
    assert all(re.fullmatch(r"(conv|dw|pw|pool|dense)_\w+_t4: \d+\.\d us", line) for line in output[1:])


@pytest.mark.virtual
def test_threads_round_as_their_caller_does(guest: Guest) -> None:
    program = guest.compiled(f"-I{guest.folder}", f"./{STEM}.so", source=str(Path(__file__).with_name("rounding.c")))
    assert guest.output(program, THREADS) == ""


@pytest.mark.virtual
def test_a_static_program(guest: Guest) -> None:
    program = guest.compiled("-static", f"{STEM}.a")
    assert guest.output(program, 1) == guest.answer
    assert guest.output(program, THREADS) == "threads cannot be started: give the options create and join, or parallel\n"


@pytest.mark.virtual
def test_it_needs_nothing(guest: Guest) -> None:
    library = str(guest.folder / f"{STEM}.so")
    tools = [["readelf", "-dW"], ["nm", "-DP"], ["readelf", "-SW"], ["readelf", "-rW"]]
    dynamic, symbols, sections, relocations = (
        subprocess.run([f"aarch64-linux-gnu-{tool}", *words, library], capture_output=True, text=True, check=True).stdout
        for tool, *words in tools
    )
    assert "NEEDED" not in dynamic and "TEXTREL" not in dynamic
    kinds = {line.split()[0]: line.split()[1] for line in symbols.splitlines()}
    assert {name for name, kind in kinds.items() if kind == "T"} == {
        f"{prefix_of(VARIANT)}_{name}" for name in ("describe", "init", "run", "observe", "free", "message")
    }
    assert {name: kind for name, kind in kinds.items() if kind != "T"} == {"pthread_create": "w", "pthread_join": "w"}
    assert not re.search(r" \.(data|bss|tbss|tdata) ", sections)  # nothing is written once it is loaded
    # What every loader knows: addresses within the library, and those two functions.
    assert set(re.findall(r"R_AARCH64_\w+", relocations)) <= {"R_AARCH64_RELATIVE", "R_AARCH64_GLOB_DAT", "R_AARCH64_ABS64"}


def test_options_that_do_not_fit(cli: CommandLine, tmp_path: Path) -> None:
    words = ("compile", "--alpha", "0.25", "--resolution", "32", "--out", str(tmp_path))
    assert "Leave out --format, or give --format c." in cli(*words, "--format", "vm", "--archive").err
    assert "Give --format one of: c, vm" in cli(*words, "--format", "rust").err
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_compile_writes_one(cli: CommandLine, tmp_path: Path) -> None:
    """The command line compiles a user's own network; `bench` checks it against PyTorch and times it."""
    source = write_python(tmp_path)
    out, logs = tmp_path / "out", tmp_path / "logs"
    logs.mkdir()
    words = ("compile", "--model", f"{source}:separable", "--resolution", "32", "--logs", str(logs), "--out", str(out))
    assert cli(*words, "--archive").code == 0
    stem = "separable_1.0_32_float32_t1"
    assert {path.name for path in out.iterdir()} == {
        f"{stem}{suffix}" for suffix in (".so", ".a", ".h", ".json", ".reference.npz", "Config.cmake")
    }
    manifest = json.loads((out / f"{stem}.json").read_text())
    assert manifest["format"] == "c" and manifest["sha256"] == sha256_of(out / f"{stem}.so")
    assert manifest["c"]["prefix"] == "separable_1_0_32" and manifest["c"]["workspace_bytes"] >= manifest["c"]["least_bytes"] > 0
    timed = cli("bench", str(out), "--out", str(tmp_path / "bench"))
    assert timed.code == 0, timed.err
    (variant,) = read_results(tmp_path / "bench/report.json").variants
    assert variant.max_error < 1e-5 and variant.latency_ms > 0
