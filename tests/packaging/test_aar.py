"""Android archives: what is in them, what Android's loader demands, and their Java classes in a Java machine for AArch64."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bionic_rules import refusals
from debian import java, musl_and_jni
from frames import NV21, RGB, RGBA, YUV420, Frame, some_frame
from guest_libraries import STEM, THREADS, write_guest
from network_files import Graph, write_model
from onnx import TensorProto, helper
from phone_loader import android_folder, android_link

import tvmmobile as tm
from tvmmobile.cli import run
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.packaging import aar
from tvmmobile.packaging.aar import write_aar
from tvmmobile.running.library import find_libraries
from tvmmobile.system.errors import UserError
from tvmmobile.system.programs import zig_program
from tvmmobile.system.toolchain import Toolchain

HERE = Path(__file__).parent / "android"
NAME, NATIVE = "org.example.my_net", "jni/arm64-v8a/liborg_example_my_net"
CLASSES = {"AndroidNetwork", "Frame", "Network", "Outputs", "Outputs$Score", "Tensor"}
TAKES = Preprocessing(16)
#: Of the second network's tensors.
SHAPE = (1, 1, 2, 2)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier that takes images."""
    folder = tmp_path_factory.mktemp("library")
    write_guest(folder, takes=TAKES)
    return folder / f"{STEM}.so"


@pytest.fixture(scope="module")
def package(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("javac") is None:
        pytest.skip("javac is not installed")
    return write_aar(find_libraries([library])[0], tmp_path_factory.mktemp("dist"), NAME, "2.1")


def test_what_is_in_it(library: Path, package: Path) -> None:
    assert package.name == "my_net-2.1.aar"
    with zipfile.ZipFile(package) as archive:
        assert archive.testzip() is None
        files = {name: archive.read(name) for name in archive.namelist()}
    assert set(files) == {
        "AndroidManifest.xml",
        "classes.jar",
        "R.txt",
        "proguard.txt",
        "META-INF/com/android/build/gradle/aar-metadata.properties",
        f"assets/{NAME}.json",
        f"{NATIVE}.so",
        f"{NATIVE}_jni.so",
    }
    assert files[f"{NATIVE}.so"] == library.read_bytes()
    assert f'package="{NAME}"'.encode() in files["AndroidManifest.xml"] and b'minSdkVersion="21"' in files["AndroidManifest.xml"]
    assert b"-keep class org.example.my_net.Network { native <methods>; }" in files["proguard.txt"]
    about = json.loads(files[f"assets/{NAME}.json"])
    assert about["inputs"] == [{"name": "input", "shape": [1, 3, 16, 16], "type": "float32", "layout": "NCHW"}]
    assert (about["release"], about["threads"], about["cores"], about["image"]["side"]) == ("2.1", THREADS, ["cortex-a72"], 16)
    assert about["fastest_threads"] == {"cortex-a72": THREADS}
    with zipfile.ZipFile(io.BytesIO(files["classes.jar"])) as jar:
        classes = {name: jar.read(name) for name in jar.namelist() if name.endswith(".class")}
    assert set(classes) == {f"org/example/my_net/{name}.class" for name in CLASSES}
    assert {struct.unpack_from(">H", content, 6) for content in classes.values()} == {(52,)}  # Java 8
    assert [name for name, content in classes.items() if b"android/" in content] == ["org/example/my_net/AndroidNetwork.class"]


def test_what_androids_loader_demands(package: Path, tmp_path: Path) -> None:
    """Also of the file: libraries are stored as they are, where a page of 16 KiB may begin."""
    with zipfile.ZipFile(package) as archive:
        libraries = [entry for entry in archive.infolist() if entry.filename.endswith(".so")]
        contents = {entry.filename: archive.read(entry) for entry in libraries}
    data = package.read_bytes()
    for entry in libraries:
        name_bytes, extra_bytes = struct.unpack_from("<HH", data, entry.header_offset + 26)
        begin = entry.header_offset + 30 + name_bytes + extra_bytes
        assert entry.compress_type == zipfile.ZIP_STORED and begin % 16384 == 0
        assert data[begin : begin + 4] == b"\x7fELF" and refusals(contents[entry.filename], 16384) == []
    glue = contents[f"{NATIVE}_jni.so"]
    assert "a segment aligned to 16384, pages of 65536" in refusals(glue, 65536)
    (tmp_path / "glue.so").write_bytes(glue)
    command = ["aarch64-linux-gnu-readelf", "-d", tmp_path / "glue.so"]
    needed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [line.partition("[")[2][:-1] for line in needed.splitlines() if "NEEDED" in line] == ["liborg_example_my_net.so", "libc.so"]
    assert needed.count("Library soname: [liborg_example_my_net_jni.so]") == 1


COMPILER = ["aarch64-linux-gnu-gcc", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{aar._SOURCES}"]


@pytest.mark.virtual
@pytest.mark.parametrize("system", ["glibc", "ziglang", "android"])
def test_under_a_loader(
    library: Path, package: Path, tmp_path: Path, system: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very files of the package, called as by Java: with glibc for Android's libc, and with Android's own loader and libc."""
    if system == "ziglang":
        program = zig_program()
        assert program is not None
        monkeypatch.setattr(aar, "device_toolchain", lambda: Toolchain(program, device=True, zig=True))
        package = write_aar(find_libraries([library])[0], tmp_path / "zig.aar", NAME)
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path)
    assert refusals((tmp_path / f"{NATIVE}_jni.so").read_bytes(), 16384) == []
    folder, caller = (tmp_path / NATIVE).parent, tmp_path / "call_network"
    if system == "android":
        root = android_folder(request)
        own = ["-nostdlib", *android_link(root), "-fPIC"], [f"-L{root / 'system/lib64'}", "-lc", "-ldl"]
    else:
        root, own = Path("/usr/aarch64-linux-gnu"), ([], ["-ldl"])
        (folder / "libc.so").symlink_to(root / "lib/libc.so.6")
    subprocess.run([*COMPILER, *own[0], HERE / "call_network.c", *own[1], "-o", caller], check=True)
    with np.load(library.with_suffix(".reference.npz")) as arrays:
        arrays["input"].tofile(tmp_path / "input.f32")
        expected = arrays["output"].reshape(-1)
    machine = ["qemu-aarch64", "-L", root, "-E", f"LD_LIBRARY_PATH={folder}", caller]
    for threads in (0, 1, THREADS, THREADS + 1):
        words = [*machine, folder / f"{Path(NATIVE).name}_jni.so", "Java_org_example_my_1net_Network", tmp_path / "input.f32", str(threads)]
        lines = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout.splitlines()
        if threads > THREADS:
            assert lines[0].startswith("java/lang/IllegalArgumentException: more threads than")
        else:
            np.testing.assert_allclose([float(each) for each in lines[0].split()], expected, atol=1e-5 * np.abs(expected).max())
            assert lines[1].startswith("cortex-a72: ")


def test_the_same_library_gives_the_same_package(library: Path, package: Path, tmp_path: Path) -> None:
    assert tm.write_aar(find_libraries([library])[0], tmp_path / "again.aar", NAME, "2.1").read_bytes() == package.read_bytes()


def test_the_places_of_javas_functions(tmp_path: Path) -> None:
    """They agree with Android's own jni.h, and the compiler gives no warning."""
    jni, places = musl_and_jni() / "usr/include/android/nativehelper", (aar._SOURCES / "java_interface.h").read_text()
    names = {
        "FIND_CLASS": "FindClass",
        "THROW_NEW": "ThrowNew",
        "NEW_STRING": "NewStringUTF",
        "NEW_DIRECT_BUFFER": "NewDirectByteBuffer",
        "BUFFER_ADDRESS": "GetDirectBufferAddress",
    }
    lines = [
        f'_Static_assert({ours} * sizeof(void *) == offsetof(struct JNINativeInterface, {theirs}), "");' for ours, theirs in names.items()
    ]
    (tmp_path / "places.c").write_text("\n".join(["#include <jni.h>", "#include <stddef.h>", '#include "java_interface.h"', *lines]))
    common = [*COMPILER, "-fsyntax-only"]
    assert all(name in places for name in names)
    subprocess.run([*common, "-isystem", jni, tmp_path / "places.c"], check=True)
    for given in (0, 1):
        defined = ["-DPREFIX=net", "-DMETHODS=Java_net_Network", f"-DIMAGES={given}", f"-DSTATES={given}", f"-I{aar.RUNTIME.parent}"]
        subprocess.run([*common, "-ffreestanding", "-std=c11", *defined, aar._SOURCES / "glue.c"], check=True)


def test_another_machine(package: Path, tmp_path: Path) -> None:
    """This one's Java machine loads the classes, and the network says why it cannot run."""
    lines = output_lines(tmp_path, "java", "-cp", classes_of(package, tmp_path), "org.example.my_net.Start", source=START)
    reason = "no org_example_my_net_jni in java.library.path: /nowhere"
    assert lines == [f"the network is compiled for arm64-v8a alone, and this process cannot load that: {reason}"]


START = """package org.example.my_net;
public class Start {
    public static void main(String[] words) {
        try {
            new Network();
        } catch (UnsupportedOperationException error) {
            System.out.println(error.getMessage());
        }
    }
}
"""


def test_what_cannot_be_read_is_refused(package: Path, tmp_path: Path) -> None:
    """Scores without a softmax, and images whose planes are not those of YUV_420_888."""
    lines = output_lines(tmp_path, "java", "-cp", classes_of(package, tmp_path), "org.example.my_net.Start", source=REFUSED)
    assert lines == [
        "score 1 is Infinity",
        "score 2 is -Infinity",
        "score 0 is NaN",
        "[1: 73.10586 %, 0: 26.894144 %]",
        "the image has the format 40: ask for YUV_420_888",
    ]


REFUSED = """package org.example.my_net;
import java.util.List;
public class Start {
    static android.graphics.Bitmap unused; // so that its outline is compiled
    static void top(float... scores) {
        try {
            System.out.println(new Outputs(List.of(), new Object[] {scores}).top(2));
        } catch (ArithmeticException error) {
            System.out.println(error.getMessage());
        }
    }
    static class Planes444 extends android.media.Image {
        public int getFormat() { return 40; }
        public int getWidth() { return 2; }
        public int getHeight() { return 2; }
        public Plane[] getPlanes() { return new Plane[3]; }
        public void close() {}
    }
    public static void main(String[] words) throws Exception {
        top(1, Float.POSITIVE_INFINITY, 2);
        top(1, 2, Float.NEGATIVE_INFINITY);
        top(Float.NaN);
        top(1, 2);
        java.lang.reflect.Method frame = AndroidNetwork.class.getDeclaredMethod("frame", android.media.Image.class);
        frame.setAccessible(true);
        try {
            frame.invoke(null, new Planes444());
        } catch (java.lang.reflect.InvocationTargetException error) {
            System.out.println(error.getCause().getMessage());
        }
    }
}
"""


def classes_of(package: Path, folder: Path) -> Path:
    with zipfile.ZipFile(package) as archive:
        (folder / package.stem).with_suffix(".jar").write_bytes(archive.read("classes.jar"))
    return (folder / package.stem).with_suffix(".jar")


def output_lines(folder: Path, *command: object, source: str) -> list[str]:
    """Return the lines of a Java program beside the classes, which is compiled first."""
    words, classes = [*map(str, command)], Path(str(command[2]))
    (folder / "Start.java").write_text(source)
    outlines = str(aar._SOURCES / "outlines")
    compiler = ["javac", "-cp", str(classes), "-sourcepath", outlines, "-d", str(folder), str(folder / "Start.java")]
    subprocess.run(compiler, check=True, timeout=60)
    words = [words[0], "-Djava.library.path=/nowhere", "-cp", f"{classes}:{folder}", *words[3:]]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_bad_names_and_libraries(library: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = find_libraries([library])
    for name in ("mynet", "org.Example", "org.example.", "org.1net", "org.new.net", "org.é", "a." + 200 * "b", ""):
        with pytest.raises(UserError, match="cannot be the name of a Java package"):
            write_aar(found, tmp_path, name)
    for name in ("java.util.net", "javax.net", "android.net"):
        with pytest.raises(UserError, match="is among the packages of Java and Android"):
            write_aar(found, tmp_path, name)
    with pytest.raises(UserError, match="is not a version"):
        write_aar(found, tmp_path, release='1.0" x="')
    words = ["package", str(library), "--out", str(tmp_path / "net.aar")]
    for kinds in ([], ["--wheel", "--android"]):
        assert run([*words, *kinds]) == 1
        assert "Give --wheel or --android." in capfd.readouterr().err
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert run([*words, "--android"]) == 1
    message = " ".join(capfd.readouterr().err.split())
    assert "javac is not installed" in message and "apt-get install -y openjdk-17-jdk-headless" in message
    assert list(tmp_path.iterdir()) == []


def test_a_library_for_smaller_pages(library: Path, tmp_path: Path) -> None:
    data = bytearray(library.read_bytes())
    (begin,) = struct.unpack_from("<Q", data, 32)
    struct.pack_into("<Q", data, begin + 48, 4096)
    with pytest.raises(UserError, match="memory pages of 16 KiB"):
        aar._check_pages(library, bytes(data))


@pytest.mark.skipif(shutil.which("javac") is None, reason="javac is not installed")
def test_the_command(library: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["package", str(library), "--android", "--out", str(tmp_path / "dist")]) == 0
    output = " ".join(capfd.readouterr().out.split())
    (path,) = (tmp_path / "dist").iterdir()
    assert path.name == "mobilenet_v1_0_25_128-1.0.aar" and f'implementation(files("libs/{path.name}"))' in output
    with zipfile.ZipFile(path) as archive:
        assert "jni/arm64-v8a/libtvmmobile_mobilenet_v1_0_25_128_jni.so" in archive.namelist()


def other_network(folder: Path) -> Path:
    """Return the package of a recurrent network in half precision, with a number in 64 bits that it doubles."""
    node = helper.make_node
    nodes = [
        node("Concat", ["x", "h"], ["both"], axis=1),
        node("Conv", ["both", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("Tanh", ["c"], ["hN"]),
        node("Add", ["hN", "hN"], ["y"]),
        node("Add", ["k", "k"], ["m"]),
    ]
    weights = np.random.default_rng(3).normal(0, 0.5, (1, 2, 3, 3)).astype(np.float32)
    types = dict.fromkeys(("k", "m"), TensorProto.INT64)
    network = write_model(folder / "other.onnx", Graph(nodes, {"w": weights}), SHAPE, inputs=["k", "h"], outputs=["m", "hN"], types=types)
    library = tm.compile(tm.load(network), "pi5-virtual", dtype="float16", stateful="h=hN", out=folder)
    return tm.write_aar(library, folder / "other.aar", "org.example.other")


def test_an_output_with_a_states_name_is_described(tmp_path: Path) -> None:
    """The state comes out as `output`; in the library that is the name of the only other output."""
    nodes = [
        helper.make_node("Concat", ["x", "h"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "w"], ["output"], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["output"], ["y"]),
    ]
    graph = Graph(nodes, {"w": np.ones((1, 2, 3, 3), np.float32)})
    model = tm.load(write_model(tmp_path / "state.onnx", graph, SHAPE, inputs=["h"], outputs=["output"]))
    path = tm.compile(model, "pi4-virtual", stateful="h=output", check=False, out=tmp_path).path
    (library,) = find_libraries([path])
    about = json.loads(aar._description(library, library.facts, "1.0"))
    assert [[port["name"] for port in about[key]] for key in ("inputs", "outputs")] == [["input"], ["output"]]


def some_frames(folder: Path) -> Iterator[tuple[str, Frame]]:
    """Frames as `Program.java` knows them."""
    generator = np.random.default_rng(7)
    kinds = {"rgb": RGB, "rgba": RGBA, "nv21": NV21, "yuv420": YUV420, "bytes": NV21, "image": YUV420, "bitmap": RGBA}
    for kind, frame_format in kinds.items():
        for turns in range(4) if kind in ("nv21", "bytes", "image") else (1,):
            width, height = (int(size) for size in generator.integers(17, 60, 2))
            frame = some_frame(generator, frame_format, width, height)
            while frame_format == YUV420 and frame.strides[1] != frame.strides[2]:  # which Android rules out
                frame = some_frame(generator, frame_format, width, height)
            frame = replace(frame, turns=0 if kind == "bitmap" else turns)
            yield kind, frame
            if kind == "bitmap":
                wide = replace(frame, strides=(4 * width + 8, 0, 0), planes=(b"".join(padded(frame, 8)), b"", b""))
                yield kind, wide


def padded(frame: Frame, more: int) -> Iterator[bytes]:
    """Yield the rows of a frame of four bytes a pixel, each with so many bytes behind it."""
    stride = frame.strides[0] or 4 * frame.width
    for row in range(frame.height):
        yield frame.planes[0][row * stride : row * stride + 4 * frame.width] + bytes(more)


def whole(frame: Frame) -> bytes:
    """Both planes of NV21 in one piece."""
    luma = (frame.strides[0] or frame.width) * frame.height
    return frame.planes[0].ljust(luma, b"\0") + frame.planes[1]


@pytest.mark.long
def test_in_a_java_machine(library: Path, package: Path, tmp_path: Path) -> None:
    """The very files of two packages, in OpenJDK for AArch64: outputs against PyTorch's and ONNX Runtime's, frames against Pillow's input.

    Android's Bitmap and Image are stand-ins.
    """
    data = tmp_path / "data"
    data.mkdir()
    with np.load(library.with_suffix(".reference.npz")) as arrays:
        arrays["input"].tofile(data / "input")
        expected = arrays["output"].reshape(-1)
    lines = []
    for number, (kind, frame) in enumerate(some_frames(data)):
        lines.append(" ".join(map(str, (kind, frame.width, frame.height, 90 * frame.turns, *frame.strides, frame.chroma_step))))
        for place, plane in enumerate(frame.planes):
            (data / f"{number}.plane{place}").write_bytes(plane)
        (data / f"{number}.whole").write_bytes(whole(frame) if kind == "bytes" else b"")
        np.ascontiguousarray(frame.expected(TAKES, tmp_path)).astype("<f4").tofile(data / f"{number}.seen")
    (data / "frames").write_text("\n".join(lines))
    images = np.random.default_rng(5).normal(size=(2, *SHAPE)).astype(np.float32)
    for number, image in enumerate(images):
        image.tofile(data / f"x{number}")
    other = other_network(tmp_path)

    answers = in_java_machine([package, other], data, tmp_path)
    scores = np.array(json.loads(answers["scores"]))
    np.testing.assert_allclose(scores, expected, atol=1e-5 * np.abs(expected).max())
    best = np.argsort(-expected, kind="stable")[:2]
    assert [int(each.partition(":")[0]) for each in answers["top"].strip("[]").split(", ")] == best.tolist()
    assert answers["ports"] == "[input: float32 [1, 3, 16, 16]] [output: float32 [1, 5]]"
    assert (answers["threads"], answers["position stays"], answers["reset"]) == (str(THREADS), "0", "done")
    assert answers["kernels"].startswith("cortex-a72: ")
    assert {answers[each] for each in ("heap", "other order", "one thread")} == {"true"} and answers["several threads"] == "20"
    argument = "java.lang.IllegalArgumentException: "
    for what, sentence in {
        "too many threads": "more threads than the library was compiled for, or than init was asked for",
        "no threads": "a network needs at least one thread, not -1",
        "too few numbers": "input: float32 [1, 3, 16, 16] has 768 numbers, and the buffer has 3",
        "too few bytes": "input: float32 [1, 3, 16, 16] has 3072 bytes, and the buffer has 3",
        "another type": "input: float32 [1, 3, 16, 16] cannot be read from a HeapIntBuffer",
        "too many inputs": "the network has 1 inputs, and 2 are given",
        "a frame too small": "plane 0 of the image has 384 bytes, and its size needs 400",
        "chroma too small": "plane 1 of the image has 44 bytes, and its size needs 128",
        "an odd rotation": "an image is rotated by multiples of 90 degrees, not by 45",
        "no width": "the image's width or height is 0, above 32767, or a hundred times the other",
        "a negative height": "the image's width or height is 0, above 32767, or a hundred times the other",
        "a narrow stride": "a stride of the image is smaller than a row of its plane",
        "a negative stride": "the stride of plane 0 is -16",
        "a wide step": "the image's format, turns or chroma_step is unknown, or its reserved field is not 0",
        "integers from floats": "k: int64 [1, 1, 2, 2] cannot be read from a HeapFloatBuffer",
    }.items():
        assert answers[what] == argument + sentence, what
    assert answers["a vast frame"].startswith(argument)
    assert answers["not an image's"] == "java.lang.UnsupportedOperationException: the network takes no images: compile it with --image"
    closed = {answers[f"closed{what}"] for what in ("", " to images", " to resets", " to questions")}
    assert closed == {"java.lang.IllegalStateException: the network is closed"}
    assert {line: answers[f"frame {line}"] for line in lines} == dict.fromkeys(lines, "true")
    check_other(answers, images, tmp_path / "other.onnx")


def check_other(answers: dict[str, str], images: np.ndarray, network: Path) -> None:
    """The second network, against ONNX Runtime: its state goes on until it is reset."""
    import onnxruntime

    session, state = onnxruntime.InferenceSession(str(network)), np.zeros(SHAPE, np.float32)
    numbers = np.array([3, 5, 7, 9]).reshape(SHAPE)
    assert answers["other ports"] == "[x: float32 [1, 1, 2, 2], k: int64 [1, 1, 2, 2]] [y: float32 [1, 1, 2, 2], m: int64 [1, 1, 2, 2]]"
    for turn, image in enumerate(images):
        y, _, state = session.run(None, {"x": image, "k": numbers, "h": state})
        reals, integers, size = answers[f"turn {turn}"].split(";")
        np.testing.assert_allclose(json.loads(reals), y.reshape(-1), atol=5e-3)
        assert (json.loads(integers), size) == ([6, 10, 14, 18], "2")
    assert answers["integers as reals"] == "[0.0, 0.0, 0.0, 0.0]"


def in_java_machine(packages: list[Path], data: Path, folder: Path) -> dict[str, str]:
    """Return the output of `Program` for each thing that it tries, under QEMU."""
    libraries, jars = folder / "lib", [classes_of(package, folder) for package in packages]
    libraries.mkdir()
    (folder / "classes").mkdir()
    for package in packages:
        with zipfile.ZipFile(package) as archive:
            for name in archive.namelist():
                if name.endswith(".so"):
                    (libraries / Path(name).name).write_bytes(archive.read(name))
    root = java()
    (libraries / "libc.so").symlink_to("libc.so.6")  # as Android calls it
    (libraries / "libc.so.6").symlink_to(root / "lib/aarch64-linux-gnu/libc.so.6")
    path, sources = ":".join(map(str, [folder / "classes", *jars])), [str(each) for each in HERE.rglob("*.java")]
    compiler = ["javac", "-Xlint:all,-serial,-try", "-Werror", "-cp", path, "-d", str(folder / "classes"), *sources]
    done = subprocess.run(compiler, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    machine = ["qemu-aarch64", "-cpu", "cortex-a76", "-L", str(root), "-E", f"LD_LIBRARY_PATH={libraries}"]
    machine += [str(root / "usr/lib/jvm/java-17-openjdk-arm64/bin/java"), "-Xint", "-Xcheck:jni", f"-Djava.library.path={libraries}"]
    done = subprocess.run([*machine, "-cp", path, "Program", str(data)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(line.split("\t") for line in done.stdout.splitlines() if "\t" in line)
