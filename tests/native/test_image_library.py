"""C libraries that take images: what `run` makes of the same image, the classes that `run` prints, and a code for every bad call."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_libraries import (
    ALIGNMENT,
    NULL,
    OBSERVER,
    OK,
    PARALLEL,
    THREADS,
    UNREADY,
    WORKSPACE,
    CLibrary,
    Image,
    Options,
    Ranking,
    aligned,
    check_syntax,
    describe,
    pointers,
    write_host_library,
)
from conftest import REPOSITORY, CommandLine
from frames import NV21, RGB, Frame, some_frame
from guest_libraries import STEM, write_guest
from network_files import write_python
from small_networks import kernels_of, prepared, two_blocks

from tvmmobile.accuracy.classes import most_likely
from tvmmobile.graph.lowering import lower
from tvmmobile.native.source import FUNCTIONS, header_text
from tvmmobile.networks.preprocessing import Preprocessing

GUIDE = (REPOSITORY / "docs/c-images.md").read_text(encoding="utf-8")
HOW = Preprocessing(16, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MOST = 3
FORMAT, SIZE, STRIDE, VALUES = range(9, 13)


class ImageLibrary(CLibrary):
    """A loaded library that takes images."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.c.net_image_workspace.restype = ctypes.c_size_t

    def arguments(self, frame: Frame) -> dict[str, Any]:
        """Return the arguments of `run_image` by name, without the instance."""
        space = aligned(self.c.net_image_workspace(frame.width, frame.height))
        strides = (ctypes.c_size_t * 3)(*frame.strides)
        planes = (ctypes.c_char_p * 3)(*(plane or None for plane in frame.planes))
        image = Image(frame.format, frame.width, frame.height, frame.turns, planes, strides, frame.chroma_step, 0)
        return {"image": image, "outputs": [aligned(20)], "workspace": space, "size": space.size, "threads": 0}

    def call(self, instance: Any, image: Any, outputs: Any, workspace: Any, size: int, threads: int) -> int:
        """`run_image`; its code."""
        given = None if outputs is None else pointers(outputs)
        space = None if workspace is None else ctypes.c_void_p(workspace.ctypes.data)
        code: int = self.c.net_run_image(instance, image and ctypes.byref(image), given, space, ctypes.c_size_t(size), threads)
        return code

    def scores(self, instance: Any, frame: Frame, threads: int = 0) -> bytes:
        """Return the network's output for a frame; asserts that there is no error."""
        arguments = self.arguments(frame) | {"threads": threads}
        assert self.call(instance, **arguments) == OK
        return bytes(arguments["outputs"][0][:20])

    def top(self, scores: Sequence[float], wanted: int) -> tuple[int, list[tuple[int, float, float]]]:
        """Return the code, and index, score and probability of each class."""
        found = (Ranking * max(wanted, 1))()
        array = (ctypes.c_float * len(scores))(*scores)
        code = self.c.net_top(array, len(scores), found, wanted)
        return code, [(each.index, each.score, each.probability) for each in found[:wanted]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    read = prepared(two_blocks(), (1, 3, 16, 16))
    kernels = kernels_of(read, 7, MOST)
    path = tmp_path_factory.mktemp("images") / "net.so"
    separate = frozenset(kernel.task.symbol for kernel in kernels)
    write_host_library(lower(read, kernels), path, MOST, separate=separate, image=HOW)
    return path


@pytest.fixture
def library(built: Path) -> ImageLibrary:
    return ImageLibrary(built)


def frames(count: int) -> list[Frame]:
    generator = np.random.default_rng(count)
    return [some_frame(generator, 1 + i % 7, *map(int, generator.integers(1, 60, 2))) for i in range(count)]


def expected(library: ImageLibrary, instance: Any, frame: Frame, folder: Path) -> bytes:
    """Return the library's own output for the input that `run` makes of a frame."""
    return library.run(instance, [frame.expected(HOW, folder)[np.newaxis]], 1)[0].tobytes()


@pytest.mark.parametrize("threads", range(1, MOST + 1))
def test_an_image_is_what_run_makes_of_it(library: ImageLibrary, threads: int, tmp_path: Path) -> None:
    instance = library.instance(Options(MOST))
    for frame in frames(14):
        assert library.scores(instance, frame, threads) == expected(library, instance, frame, tmp_path)
    assert library.c.net_free(instance) == OK


def test_the_callers_threads_scale_too(library: ImageLibrary, tmp_path: Path) -> None:
    """In any order, one after another."""

    def backwards(_: Any, work: Callable[[Any, int], None], data: Any, count: int) -> None:
        for number in reversed(range(count)):
            work(data, number)

    pool = PARALLEL(backwards)
    instance = library.instance(Options(MOST, parallel=pool))
    for frame in frames(7):
        assert library.scores(instance, frame) == expected(library, instance, frame, tmp_path)


def test_an_observer_hears_of_the_image(library: ImageLibrary) -> None:
    """The image counts as a kernel of its own, before those of the network."""
    heard: list[str] = []
    observer = OBSERVER(lambda _, kernel, done: heard.append(kernel.decode()) if done else None)
    instance = library.instance()
    (frame,) = frames(1)
    assert library.c.net_observe(instance, observer, None) == OK
    library.run(instance, [np.zeros((1, 3, 16, 16), np.float32)])
    library.scores(instance, frame)
    assert len(heard) == 11 and heard[5:] == ["image", *heard[:5]]


def test_what_the_workspace_must_hold(library: ImageLibrary) -> None:
    """More for larger images, and for all no less than the network's own; nothing for images that are refused."""
    asked = library.c.net_image_workspace
    sizes = [asked(side, 3 * side) for side in range(1, 2000)]
    assert sizes == sorted(sizes) and sizes[0] >= library.description.workspace_bytes + 3 * 16 * 16 * 4
    assert asked(100, 2000) == asked(2000, 100) == asked(100, 100)
    assert [asked(*size) for size in ((0, 1), (1, 0), (32768, 32768), (1, 102))] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({}, OK),
        ({"instance": None}, NULL),
        ({"instance": (ctypes.c_uint64 * 128)()}, UNREADY),
        ({"image": None}, NULL),
        ({"outputs": None}, NULL),
        ({"outputs": [None]}, NULL),
        ({"outputs": [aligned(128)[4:]]}, ALIGNMENT),
        ({"workspace": None}, NULL),
        ({"workspace": aligned(1 << 20)[4:]}, ALIGNMENT),
        ({"size": -1}, WORKSPACE),
        ({"threads": MOST + 1}, THREADS),
        ({"format": 0}, FORMAT),
        ({"turns": 4}, FORMAT),
        ({"reserved": 1}, FORMAT),
        ({"width": 0}, SIZE),
        ({"strides": (ctypes.c_size_t * 3)(1, 0, 0)}, STRIDE),
        ({"planes": (ctypes.c_char_p * 3)()}, NULL),
    ],
)
def test_a_bad_call_gives_a_code(library: ImageLibrary, wrong: dict[str, Any], code: int) -> None:
    instance = library.instance()
    good = library.arguments(some_frame(np.random.default_rng(0), NV21, 21, 33))
    for name in list(wrong):
        if hasattr(good["image"], name):
            setattr(good["image"], name, wrong[name])
    arguments = {"instance": instance, **good} | {name: value for name, value in wrong.items() if name in good or name == "instance"}
    if wrong.get("size") == -1:
        arguments["size"] = good["size"] - 1
    assert library.message(library.call(**arguments)) == library.message(code)


def test_every_code_has_a_message(library: ImageLibrary) -> None:
    messages = [library.message(code) for code in range(15)]
    assert len(set(messages)) == 15 and messages[14] == library.message(-1) == "unknown error code"


@pytest.mark.parametrize("seed", range(4))
def test_the_classes_are_those_that_run_prints(library: ImageLibrary, seed: int) -> None:
    """Equal scores by index, and probabilities to float32's last digits."""
    generator = np.random.default_rng(seed)
    for count in (1, 2, 7, 1000):
        scores = (generator.normal(0, 10.0**seed, count) * 4).round() / 4 if seed % 2 else generator.normal(0, 10.0**seed, count)
        given = scores.astype(np.float32)
        for wanted in {0, 1, min(5, count), count}:
            code, found = library.top(given.tolist(), wanted)
            ranked = most_likely(given, wanted, None)
            assert code == OK and [each[0] for each in found] == [each.index for each in ranked]
            assert [each[1] for each in found] == [given[each.index] for each in ranked]
            assert np.allclose([each[2] for each in found], [each.probability for each in ranked], rtol=1e-6, atol=1e-30)


def test_scores_that_cannot_be_ranked(library: ImageLibrary) -> None:
    for scores, wanted in (([1.0, np.nan], 1), ([np.inf, 0.0], 1), ([1.0], 2)):
        assert library.top(scores, wanted)[0] == VALUES
    assert library.c.net_top(None, 1, (Ranking * 1)(), 1) == NULL == library.c.net_top((ctypes.c_float * 1)(), 1, None, 1)


def test_no_other_symbol_is_seen(built: Path) -> None:
    listed = subprocess.run(["nm", "-DP", "--defined-only", built], capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in listed.splitlines()} == {
        f"net_{name}" for name in (*FUNCTIONS, "image_workspace", "run_image", "top")
    }


def test_it_calls_its_own_functions(built: Path) -> None:
    """Not those of another library of this network that the program has loaded before, whose functions have the same names."""
    relocations = subprocess.run(["readelf", "-rW", built], capture_output=True, text=True, check=True).stdout
    assert "R_" in relocations and "net_" not in relocations


@pytest.mark.parametrize("compiler", [["gcc", "-std=c99"], ["g++", "-std=c++11"]], ids=["C", "C++"])
def test_headers_with_and_without_images_in_one_program(compiler: list[str], tmp_path: Path) -> None:
    """Whichever comes first."""
    text = header_text(describe(image=HOW))
    (tmp_path / "sees.h").write_text(text, encoding="utf-8")
    (tmp_path / "blind.h").write_text(header_text(describe()).replace("net_", "other_"), encoding="utf-8")
    for first, second in (("sees", "blind"), ("blind", "sees")):
        source = tmp_path / "both.c"
        source.write_text(f'#include "{first}.h"\n#include "{second}.h"\nint main(void) {{ return other_describe() != net_describe(); }}\n')
        check_syntax(compiler, source)


def test_headers_of_names_that_differ_in_case_alone(tmp_path: Path) -> None:
    for prefix in ("net", "Net"):
        (tmp_path / f"of_{prefix}.h").write_text(header_text(replace(describe(), prefix=prefix)), encoding="utf-8")
    source = tmp_path / "both.c"
    source.write_text('#include "of_net.h"\n#include "of_Net.h"\nint main(void) { return net_describe() != Net_describe(); }\n')
    check_syntax(["gcc", "-std=c99", "-Werror"], source)


def test_the_guide_has_the_declarations() -> None:
    types = (REPOSITORY / "tvmmobile/native/image.h").read_text(encoding="utf-8")
    assert f"```c\n{types}```" in GUIDE


@pytest.mark.virtual
def test_the_guides_program_prints_what_run_prints(cli: CommandLine, tmp_path: Path) -> None:
    """Both read the same file."""
    write_guest(tmp_path, takes=HOW)
    image = tmp_path / "image.ppm"
    image.write_bytes(b"P6\n97 61\n255\n" + some_frame(np.random.default_rng(8), RGB, 97, 61).seen.tobytes())
    (program,) = (block for block in re.findall(r"```c\n(.*?)```", GUIDE, re.DOTALL) if "int main" in block and "run_image" in block)
    (tmp_path / "see.c").write_text(program, encoding="utf-8")
    command = ["aarch64-linux-gnu-gcc", "-Wall", "-Wextra", "-Werror", "see.c", f"./{STEM}.so", "-o", "see"]
    subprocess.run(command, cwd=tmp_path, check=True)
    command = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-E", f"LD_LIBRARY_PATH={tmp_path}", "./see", str(image)]
    seen = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    ran = cli("run", str(tmp_path / f"{STEM}.so"), str(image), "--json")
    assert ran.code == 0, ran.err
    assert "minus (0.485, 0.456, 0.406), over (0.229, 0.224, 0.225)" in json.loads(ran.out)["input"]
    assert seen == "".join(f"{entry['index']} {100 * entry['probability']:.2f} %\n" for entry in json.loads(ran.out)["top"])


@pytest.mark.long
def test_compile_writes_one(cli: CommandLine, tmp_path: Path) -> None:
    stem, out, logs = "separable_1.0_32_float32_t1", tmp_path / "out", tmp_path / "logs"
    logs.mkdir()
    words = ("compile", "--model", f"{write_python(tmp_path)}:separable", "--resolution", "32", "--logs", str(logs), "--out", str(out))
    compiled = cli(*words, "--image", "--mean", "0.485,0.456,0.406", "--std", "0.25")
    assert compiled.code == 0, compiled.err
    image = json.loads((out / f"{stem}.json").read_text())["c"]["image"]
    assert image == {"resampling": "bicubic", "side": 32, "shorter_side": 36, "mean": [0.485, 0.456, 0.406], "std": [0.25] * 3}
    assert "int separable_1_0_32_run_image(" in (out / f"{stem}.h").read_text(encoding="utf-8")


def test_options_that_do_not_fit(cli: CommandLine, tmp_path: Path) -> None:
    words = ("compile", "--alpha", "0.25", "--resolution", "32", "--out", str(tmp_path))
    assert "Leave out --format, or give --format c." in cli(*words, "--format", "vm", "--image").err
    assert "Give --image as well" in cli(*words, "--mean", "0.4").err
    assert "deviations are above 0" in cli(*words, "--image", "--std", "1,0,1").err
    assert "not one number or three" in cli(*words, "--image", "--mean", "1,2").err
    assert not list(tmp_path.iterdir())
