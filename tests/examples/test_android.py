"""The Android app's native part: built by its CMakeLists.txt, called as by Java, in a Java machine and under Android's loader."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from bionic_rules import refusals
from conftest import REPOSITORY
from debian import java, musl_and_jni
from guest_libraries import STEM, THREADS, write_guest
from phone_loader import android_folder, android_link

HERE = Path(__file__).parent
APP = REPOSITORY / "examples/native/android"
CPP, JAVA = APP / "app/src/main/cpp", APP / "app/src/main/java/org/example/classifier"
COMPILER = "aarch64-linux-gnu-gcc"
WARNINGS = ("-Wall", "-Wextra", "-Werror")
METHODS = {"nativeOpen", "nativeInputs", "nativeOutputs", "nativeRun", "nativeClose"}
TOO_MANY = "more threads than the library was compiled for, or than init was asked for"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network's library, and its input."""
    folder = tmp_path_factory.mktemp("app") / "out"
    write_guest(folder)
    with np.load(folder / f"{STEM}.reference.npz") as arrays:
        arrays["input"].tofile(folder / "input.f32")
    return folder


def jni() -> Path:
    """Return the folder of Android's jni.h."""
    return musl_and_jni() / "usr/include/android/nativehelper"


@pytest.fixture(scope="module")
def library(out: Path) -> Path:
    """`libclassifier.so`, by CMake, for glibc instead of Android's libc."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    build = out.parent / "build"
    options = [f"-DNETWORK_DIR={out}", "-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_C_COMPILER={COMPILER}"]
    options += [f"-DCMAKE_C_FLAGS=-isystem {jni()} {' '.join(WARNINGS)}"]
    for command in (["cmake", "-S", CPP, "-B", build, *options], ["cmake", "--build", build]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "libclassifier.so"


def check(out: Path, line: str) -> None:
    """Asserts that a line gives the best class and its score."""
    with np.load(out / f"{STEM}.reference.npz") as arrays:
        expected = arrays["output"].reshape(-1)
    best, score = line.removeprefix("class ").split(": ")
    assert int(best) == expected.argmax() and float(score) == pytest.approx(expected.max(), rel=1e-5)


def output_lines(out: Path, *command: object) -> list[str]:
    """Return the lines that a program prints."""
    return subprocess.run([*map(str, command)], cwd=out, capture_output=True, text=True, check=False, timeout=120).stdout.splitlines()


def check_calls(out: Path, *command: object) -> None:
    """Asserts what `call_classifier` prints, with one thread, with four and with too many."""
    for threads in (1, THREADS):
        answer, complaint = output_lines(out, *command, "input.f32", threads)
        check(out, answer)
        assert complaint == "java/lang/ArrayIndexOutOfBoundsException: a float[] is too short"
    assert output_lines(out, *command, "input.f32", THREADS + 1) == [f"java/lang/IllegalArgumentException: {TOO_MANY}"]


@pytest.mark.virtual
def test_the_native_part(out: Path, library: Path) -> None:
    caller = out.parent / "call_classifier"
    subprocess.run([COMPILER, *WARNINGS, "-O2", "-isystem", jni(), HERE / "call_classifier.c", "-o", caller], check=True)
    check_calls(out, "qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", caller, library)


@pytest.mark.virtual
def test_what_is_seen_of_it(library: Path) -> None:
    """Java's methods alone; pages of 16 KiB, but no larger."""
    symbols = subprocess.run([f"{COMPILER[:-3]}nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r" T (\S+)", symbols)) == {f"Java_org_example_classifier_Classifier_{name}" for name in METHODS}
    declared = re.findall(r"native \w+ (\w+)\(", (JAVA / "Classifier.java").read_text(encoding="utf-8"))
    assert set(declared) == METHODS
    assert refusals(library.read_bytes(), 16384) == []
    assert "a segment aligned to 16384, pages of 65536" in refusals(library.read_bytes(), 65536)


def lld() -> str:
    """LLVM's linker, which the NDK links with: the system's, or that which rustup brings."""
    if found := shutil.which("ld.lld"):
        return found
    if shutil.which("rustc"):
        root = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
        for path in Path(root).glob("lib/rustlib/*/bin/gcc-ld/ld.lld"):
            return str(path)
    pytest.skip("ld.lld is not installed")


@pytest.mark.virtual
def test_linked_as_the_ndk_links(out: Path) -> None:
    """It is linked by LLVM's linker, with the hash table that only Android needs."""
    linked = out.parent / "lld"
    linked.mkdir()
    common = [COMPILER, *WARNINGS, "-O2", "-isystem", jni(), f"-I{out}", "-fPIC", "-fvisibility=hidden"]
    subprocess.run([*common, "-c", CPP / "classifier.c", "-o", linked / "classifier.o"], check=True)
    options = [
        "-shared",
        "-z",
        "max-page-size=16384",
        "-z",
        "defs",
        "--exclude-libs",
        "ALL",
        "--hash-style=gnu",
        "-soname",
        "libclassifier.so",
    ]
    inputs = [linked / "classifier.o", out / f"{STEM}.a", "/usr/aarch64-linux-gnu/lib/libc.so.6"]
    subprocess.run([lld(), *options, *inputs, "-o", linked / "libclassifier.so"], check=True)
    assert refusals((linked / "libclassifier.so").read_bytes(), 16384) == []
    subprocess.run([*common, HERE / "call_classifier.c", "-o", linked / "caller"], check=True)
    check_calls(out, "qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", linked / "caller", linked / "libclassifier.so")


@pytest.mark.virtual
def test_under_androids_loader(out: Path, request: pytest.FixtureRequest) -> None:
    """The app's native part and its caller, linked with Android's own libc."""
    root = android_folder(request)
    library, caller = out.parent / "android/libclassifier.so", out.parent / "android/call_classifier"
    library.parent.mkdir()
    common = [COMPILER, *WARNINGS, "-O2", "-isystem", jni(), f"-I{out}", "-fPIC", "-fvisibility=hidden", "-nostdlib"]
    hidden = ["-Wl,-z,max-page-size=16384", "-Wl,--exclude-libs,ALL", "-Wl,-soname,libclassifier.so", "-Wl,--hash-style=both"]
    libc = [f"-L{root / 'system/lib64'}", "-lc"]
    subprocess.run([*common, "-shared", *hidden, CPP / "classifier.c", out / f"{STEM}.a", *libc, "-o", library], check=True)
    subprocess.run([*common, *android_link(root), HERE / "call_classifier.c", *libc, "-ldl", "-o", caller], check=True)
    check_calls(out, "qemu-aarch64", "-L", root, caller, library)


#: What MainActivity uses of Android.
ANDROID = {
    "android/app/Activity": """public class Activity extends android.content.Context {
        protected void onCreate(android.os.Bundle state) {}
        public void setContentView(android.view.View view) {}
        public final void runOnUiThread(Runnable action) {}
    }""",
    "android/content/Context": "public class Context { public android.content.res.AssetManager getAssets() { return null; } }",
    "android/content/res/AssetManager": """public final class AssetManager {
        public java.io.InputStream open(String name) throws java.io.IOException { return null; }
    }""",
    "android/os/Bundle": "public final class Bundle {}",
    "android/view/View": "public class View {}",
    "android/widget/TextView": """public class TextView extends android.view.View {
        public TextView(android.content.Context context) {}
        public final void setText(CharSequence text) {}
    }""",
}
PROGRAM = """
import java.nio.*;
import java.nio.file.*;
import org.example.classifier.Classifier;

public class Program {
    public static void main(String[] words) throws Exception {
        float[] input = new float[Classifier.inputs()];
        ByteBuffer.wrap(Files.readAllBytes(Path.of("input.f32"))).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(input);
        for (int threads : new int[] {1, 4, 5})
            try (Classifier classifier = new Classifier(threads)) {
                float[] scores = classifier.run(input);
                int best = 0;
                for (int i = 1; i < scores.length; ++i) if (scores[i] > scores[best]) best = i;
                System.out.println("class " + best + ": " + scores[best]);
                classifier.run(new float[3]);
            } catch (RuntimeException error) {
                System.out.println(error);
            }
    }
}
"""


@pytest.mark.long
def test_in_a_java_machine(out: Path, library: Path, tmp_path: Path) -> None:
    """OpenJDK for AArch64 compiles the app's sources and loads the library. Of Android's classes there are only the outlines."""
    sources = [*JAVA.glob("*.java")]
    for name, text in {**ANDROID, "Program": PROGRAM}.items():
        package, _, _ = name.rpartition("/")
        path = tmp_path / f"{name}.java"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"package {package.replace('/', '.')};\n{text}" if package else text, encoding="utf-8")
        sources.append(path)
    root = java()
    machine = ["qemu-aarch64", "-L", root, root / "usr/lib/jvm/java-17-openjdk-arm64/bin/java"]
    compiler = [
        *machine,
        "-XX:TieredStopAtLevel=1",
        "-m",
        "jdk.compiler/com.sun.tools.javac.Main",
        "-Xlint:all",
        "-Werror",
        "-d",
        tmp_path / "classes",
    ]
    assert output_lines(out, *compiler, *sources) == []
    lines = output_lines(out, *machine, "-Xint", f"-Djava.library.path={library.parent}", "-cp", tmp_path / "classes", "Program")
    assert len(lines) == 5 and lines[0] == lines[2] and lines[1] == lines[3]
    check(out, lines[0])
    assert lines[1].startswith("java.lang.ArrayIndexOutOfBoundsException: ")
    assert lines[4] == f"java.lang.IllegalArgumentException: {TOO_MANY}"
