"""Frames in, the network's input out: the same bits as Pillow and NumPy, under sanitizers, and a code for every bad image."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from frames import FORMATS, NV21, RGB, YUV420, Frame, some_frame
from PIL import Image

from tvmmobile.native.library import DEVICE_FLAGS, FLAGS
from tvmmobile.networks.images import Array
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.system.doctor import CROSS_COMPILER, require

SOURCE = Path(__file__).with_name("frames.c")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
THREADS = 3
NULL, WORKSPACE, FORMAT, SIZE, STRIDE = 2, 4, 9, 10, 11


@dataclass(frozen=True)
class Frames:
    """`frames.c` for a network of that side."""

    program: tuple[str, ...]
    side: int

    def run(self, frames: list[Frame], threads: int = 1, reserved: int = 0) -> list[int | Array]:
        """Return, for each frame, the error code or the network's input."""
        content = b"".join(self._encoded(frame, threads, reserved) for frame in frames)
        done = subprocess.run([*self.program, str(THREADS)], input=content, capture_output=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
        answers: list[int | Array] = []
        rest, cells = done.stdout, 3 * self.side**2
        while rest:
            code, rest = int.from_bytes(rest[:4], "little"), rest[4:]
            answers.append(code or np.frombuffer(rest[: 4 * cells], np.float32).reshape(3, self.side, self.side))
            rest = rest if code else rest[4 * cells :]
        return answers

    @staticmethod
    def _encoded(frame: Frame, threads: int, reserved: int) -> bytes:
        numbers = frame.format, frame.width, frame.height, frame.turns, frame.chroma_step, reserved, threads
        return np.array([*numbers, *frame.strides, *map(len, frame.planes)], "<u4").tobytes() + b"".join(frame.planes)


@pytest.fixture(scope="module", params=[(32, "address,undefined"), (17, "")], ids=str)
def frames(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """The program for a side, built with a sanitizer or none."""
    return built(tmp_path_factory.mktemp("frames"), *request.param)


def built(folder: Path, side: int, sanitizer: str) -> Frames:
    """It for this machine."""
    options = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-g"] if sanitizer else []
    command = ["gcc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-tsan", *options, *includes(side)]
    subprocess.run([*command, "-pthread", "-o", folder / "frames"], check=True)
    return Frames((str(folder / "frames"),), side)


def includes(side: int) -> list[str]:
    """Return the source, and where its headers are."""
    return [f"-DIMAGE_SIDE={side}", f"-I{REPOSITORY}/tvmmobile/native", "-D_GNU_SOURCE", str(SOURCE)]


def sizes(generator: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Tiny, odd and long frames, then any."""
    given = [(1, 1), (1, 2), (2, 1), (3, 1), (1, 90), (90, 1), (4, 391), (397, 4), (33, 32), (32, 33), (36, 36), (19, 19), (41, 38)]
    some = np.exp(generator.uniform(0, 6, (count, 2))).astype(int).tolist()
    return given + [(width, height) for width, height in some if max(width, height) <= 100 * min(width, height)]


def same(found: list[int | Array], frames: list[Frame], side: int, folder: Path) -> bool:
    preprocessing = Preprocessing(side, MEAN, STD)
    return [np.asarray(each).tobytes() for each in found] == [frame.expected(preprocessing, folder).tobytes() for frame in frames]


def some_frames(generator: np.random.Generator, frame_format: int, count: int) -> list[Frame]:
    """Frames of a format and all sorts of sizes."""
    return [some_frame(generator, frame_format, *size) for size in sizes(generator, count)]


@pytest.mark.parametrize("frame_format", FORMATS)
def test_any_frame_becomes_what_run_makes_of_it(frames: Frames, frame_format: int, tmp_path: Path) -> None:
    given = some_frames(np.random.default_rng([frames.side, frame_format]), frame_format, 20)
    assert same(frames.run(given, 1 + frame_format % THREADS), given, frames.side, tmp_path)


@pytest.mark.parametrize(("width", "height"), [(40, 30), (640, 480), (50, 2000), (2000, 50), (1500, 1001)])
def test_two_calls_of_pillow_give_the_same_bits(frames: Frames, width: int, height: int) -> None:
    """The calls are those in docs/c-images.md."""
    frame = replace(some_frame(np.random.default_rng(width), RGB, width, height), turns=0)
    shorter = int(frames.side / 0.875)
    w, h = (shorter * length // min(width, height) for length in (width, height))
    image = Image.fromarray(frame.seen)
    image = image.resize((w, image.height), Image.Resampling.BICUBIC).resize((w, h), Image.Resampling.BICUBIC)
    left, top = (round((length - frames.side) / 2) for length in (w, h))
    pixels = np.asarray(image.crop((left, top, left + frames.side, top + frames.side)), np.float32) / np.float32(255)
    wanted = ((pixels - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)
    assert np.array_equal(frames.run([frame])[0], wanted)


def test_a_network_that_sees_one_pixel(tmp_path: Path) -> None:
    """A frame nearly five times as long as wide is scaled by 5/4 of its width, which takes the most taps."""
    generator, program = np.random.default_rng(1), built(tmp_path, 1, "address,undefined")
    given = [some_frame(generator, RGB, *size) for size in [(1, 1), (499, 100), (100, 499), (30, 149), (200, 200), (1, 99), (299, 100)]]
    assert same(program.run(given, THREADS), given, 1, tmp_path)


@pytest.mark.virtual
def test_the_devices_code_gives_the_same_bits(tmp_path: Path) -> None:
    """Compiled as libraries are."""
    program = tmp_path / "frames"
    compiler = str(require(CROSS_COMPILER))
    subprocess.run([compiler, *FLAGS, *DEVICE_FLAGS, *includes(24), "-pthread", "-o", program], check=True)
    given = [frame for frame_format in FORMATS for frame in some_frames(np.random.default_rng(frame_format), frame_format, 2)]
    assert same(Frames(("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", str(program)), 24).run(given, 2), given, 24, tmp_path)


def test_threads_do_not_race(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    given = [some_frame(generator, frame_format, *size) for frame_format, size in zip(FORMATS, sizes(generator, 0), strict=False)]
    program = built(tmp_path, 9, "thread")
    for threads in range(1, THREADS + 1):
        assert same(program.run(given, threads), given, 9, tmp_path)


def test_a_bad_image_gives_a_code(frames: Frames) -> None:
    rgb, nv21, yuv = (some_frame(np.random.default_rng(1), each, 9, 7) for each in (RGB, NV21, YUV420))
    rgb, nv21, yuv = (replace(each, strides=(0, 0, 0), chroma_step=0) for each in (rgb, nv21, yuv))
    bad = {
        FORMAT: [
            replace(rgb, format=0),
            replace(rgb, format=8),
            replace(rgb, turns=4),
            replace(nv21, chroma_step=1),
            replace(yuv, chroma_step=3),
        ],
        SIZE: [replace(rgb, width=0), replace(rgb, height=0), replace(rgb, width=32768, height=32768), replace(rgb, width=1, height=102)],
        STRIDE: [replace(rgb, strides=(26, 0, 0)), replace(nv21, strides=(0, 9, 0)), replace(yuv, strides=(0, 0, 4))],
        NULL: [
            replace(rgb, planes=(b"", b"", b"")),
            *(replace(yuv, planes=(*yuv.planes[:i], b"", *yuv.planes[i + 1 :])) for i in range(3)),
        ],
    }
    for code, each in bad.items():
        assert frames.run(each) == [code] * len(each)
    assert frames.run([rgb], reserved=1) == [FORMAT]
    assert frames.run([rgb], threads=THREADS + 1) == [7]
