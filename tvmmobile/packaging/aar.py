"""Packs a C library into an Android archive (AAR): the library, a Java class that runs it, and C between the two."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvmmobile.native.source import FUNCTIONS, IMAGE_FUNCTIONS, RUNTIME, STATE_FUNCTIONS
from tvmmobile.packaging import android
from tvmmobile.packaging.archives import title_of, zipped
from tvmmobile.running.library import Library, checked_library
from tvmmobile.running.manifest import Manifest
from tvmmobile.system.environment import java_compiler
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import write_bytes
from tvmmobile.system.programs import run_tool
from tvmmobile.system.scratch import scratch
from tvmmobile.system.toolchain import Toolchain, device_toolchain

SUFFIX = ".aar"
#: Android 5, the first for 64-bit Arm.
_MIN_SDK = 21
_ABI = "arm64-v8a"
#: Bytes of a memory page on newer devices.
_PAGE = 16384
_SOURCES = Path(android.__file__).parent
#: Name of the package and the native library in the Java sources.
_TEMPLATE = "tvmmobile.template"
#: Java's words that are not names, as far as they have lower-case letters alone.
_RESERVED = """
abstract assert boolean break byte case catch char class const continue default do double else enum extends false final finally
float for goto if implements import instanceof int interface long native new null package private protected public return short
static strictfp super switch synchronized this throw throws transient true try void volatile while"""
#: Android loads no classes of apps from the first two, and its own in place of an app's from the third.
_SYSTEM = ("java", "javax", "android")
_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_MOST_NAME = 150
_OTHER_NAME = "Give --name lower-case words such as org.example.mynet."
_RELEASE = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,99}")
#: Functions of Android's C library that the glue calls.
_LIBC = ("free", "posix_memalign", "pthread_create", "pthread_join")
_JDK = (
    "Run: apt-get install -y openjdk-17-jdk-headless; or set JAVA_HOME to a JDK of version 11 or newer, such as Android Studio's folder jbr"
)

_MANIFEST = """\
<?xml version="1.0" encoding="utf-8"?>
<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="{name}" android:versionName="{release}">
    <uses-sdk android:minSdkVersion="{min_sdk}" />
</manifest>
"""
_KEPT = """\
# Found by their names from native code.
-keep class {name}.Network {{ native <methods>; }}
"""
_METADATA = "aarFormatVersion=1.0\naarMetadataVersion=1.0\nminCompileSdk=1\nminCompileSdkExtension=0\nminAndroidGradlePluginVersion=1.0.0\n"


def write_aar(library: Library, out: str | Path, name: str | None = None, release: str = "1.0") -> Path:
    """Write an Android archive of a library.

    Args:
        library: a C library.
        out: the file, if it ends with `.aar`; else the folder that it is written into.
        name: name of the Java package, such as `org.example.mynet`; default: `tvmmobile.` and what the library's functions begin with.
        release: the archive's version.

    Returns:
        The path of the archive.

    Raises:
        UserError: the library is not a C library or not for Android, a name or version cannot be used, or a JDK is missing.
    """
    if not checked_library(library).is_c:
        raise UserError(f"{library.path} is not a C library.", "Compile one: tvmmobile compile --format c")
    facts = library.facts
    name = f"tvmmobile.{facts.program.prefix.lower()}" if name is None else name
    if _NAME.fullmatch(name) is None or len(name) > _MOST_NAME or not set(_RESERVED.split()).isdisjoint(name.split(".")):
        raise UserError(f"{name} cannot be the name of a Java package.", _OTHER_NAME)
    if name.partition(".")[0] in _SYSTEM:
        raise UserError(f"{name} is among the packages of Java and Android, from which no app's classes are loaded.", _OTHER_NAME)
    if _RELEASE.fullmatch(release) is None:
        raise UserError(f"{release} is not a version.", "Give --release numbers such as 1.0 or 2.1.3.")
    whole = library.path.read_bytes()
    _check_pages(library.path, whole)
    native = f"lib{name.replace('.', '_')}"
    tools = device_toolchain()
    with scratch("archive") as folder:
        classes = _classes(name, folder)
        glue = _glue(tools, facts, name, native, folder)
    files = {
        "AndroidManifest.xml": _MANIFEST.format(name=name, release=release, min_sdk=_MIN_SDK).encode(),
        "classes.jar": zipped({"META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\r\n\r\n", **classes}),
        "R.txt": b"",
        "proguard.txt": _KEPT.format(name=name).encode(),
        "META-INF/com/android/build/gradle/aar-metadata.properties": _METADATA.encode(),
        f"assets/{name}.json": _description(library, facts, release).encode(),
        f"jni/{_ABI}/{native}.so": whole,
        f"jni/{_ABI}/{native}_jni.so": glue,
    }
    path = Path(out)
    path = path if path.suffix == SUFFIX else path / f"{name.rpartition('.')[2]}-{release}{SUFFIX}"
    write_bytes(path, zipped(files, _PAGE))
    return path


def _check_pages(path: Path, library: bytes) -> None:
    """Raise `UserError` unless a library can be loaded with pages of 16 KiB: its segments are aligned to them."""
    begin, size, count = struct.unpack_from("<Q", library, 32)[0], *struct.unpack_from("<HH", library, 54)
    segments = [struct.unpack_from("<IIQQQQQQ", library, begin + size * place) for place in range(count)]
    if any(kind == 1 and (alignment % _PAGE or (address - offset) % _PAGE) for kind, _, offset, address, _, _, _, alignment in segments):
        raise UserError(f"{path} cannot be loaded by devices with memory pages of 16 KiB.", "Compile the library again.")


def _classes(name: str, folder: Path) -> dict[str, bytes]:
    """Compile the Java classes for a package of that name: the files of the classes by their paths."""
    sources, compiled = folder / "sources", folder / "classes"
    for path in (_SOURCES / "java").glob("*.java"):
        goal = sources / name.replace(".", "/") / path.name
        goal.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8").replace(_TEMPLATE, name).replace(_TEMPLATE.replace(".", "_"), name.replace(".", "_"))
        goal.write_text(text, encoding="utf-8")
    program = java_compiler()
    if program is None:
        raise UserError("a package for Android needs a Java compiler, and javac is not installed.", _JDK)
    # Java 8 is what all of Android's tools take. Nothing of the outlines of Android's classes goes into the package.
    options = ["--release", "8", "-Xlint:-options", "-g:source,lines", "-encoding", "UTF-8", "-proc:none", "-implicit:none"]
    words = [str(program), *options, "-sourcepath", str(_SOURCES / "outlines"), "-d", str(compiled)]
    run_tool([*words, *map(str, sorted(sources.rglob("*.java")))], "Compiling the Java classes", _JDK)
    return {path.relative_to(compiled).as_posix(): path.read_bytes() for path in sorted(compiled.rglob("*.class"))}


def _glue(tools: Toolchain, facts: Manifest, name: str, native: str, folder: Path) -> bytes:
    """Compile and link what Java calls; it names the network's library and Android's libc as needed, like one that the NDK has linked."""
    from tvmmobile.kernels.codegen import instead_of_libc
    from tvmmobile.native.library import DEVICE_FLAGS, FLAGS

    prefix, images, states = facts.program.prefix, facts.program.image is not None, bool(facts.program.states)
    mangled = f"Java_{name.replace('_', '_1').replace('.', '_')}_Network"
    defined = (f"-DPREFIX={prefix}", f"-DMETHODS={mangled}", f"-DIMAGES={int(images)}", f"-DSTATES={int(states)}")
    tools.compiled(_SOURCES / "glue.c", folder / "glue.o", (*FLAGS, *DEVICE_FLAGS, *defined), (RUNTIME.parent,))
    functions = (*FUNCTIONS, *(IMAGE_FUNCTIONS if images else ()), *(STATE_FUNCTIONS if states else ()))
    needed = {f"{native}.so": [f"{prefix}_{function}" for function in functions], "libc.so": _LIBC}
    outlines = [_outline(tools, soname, names, folder) for soname, names in needed.items()]
    options = ("--strip-all", "-z,noexecstack", "--hash-style=both", "-z,defs", f"-z,max-page-size={_PAGE}", f"-soname,{native}_jni.so")
    _linked(tools, (folder / "glue.o", *outlines, *instead_of_libc(tools)), folder / "glue.so", options)
    glue = (folder / "glue.so").read_bytes()
    _check_pages(folder / "glue.so", glue)
    return glue


def _outline(tools: Toolchain, soname: str, functions: Sequence[str], folder: Path) -> Path:
    """Link a library that only shows these functions, to link against."""
    from tvmmobile.native.library import DEVICE_FLAGS

    source = folder / f"{soname}.c"
    source.write_text("".join(f"void {function}(void) {{}}\n" for function in functions), encoding="utf-8")
    tools.compiled(source, folder / f"{soname}.o", ("-fPIC", *DEVICE_FLAGS))
    _linked(tools, (folder / f"{soname}.o",), folder / soname, (f"-soname,{soname}",))
    return folder / soname


def _linked(tools: Toolchain, objects: Sequence[Path | str], output: Path, options: Sequence[str]) -> None:
    run_tool(tools.shared(objects, output, options), f"Linking {output.name}", tools.remedy)


def _description(library: Library, facts: Manifest, release: str) -> str:
    """Return the network's description for apps and developers as JSON."""
    ports = [
        [
            {"name": port.name, "shape": port.shape, "type": entry.dtype, "layout": port.layout}
            for port, entry in zip(own, entries, strict=True)
        ]
        for own, entries in ((library.spec.takes, facts.takes), (library.spec.returns, facts.returns))
    ]
    image = facts.program.image
    entries: dict[str, Any] = {
        "title": title_of(library),
        "release": release,
        "inputs": ports[0],
        "outputs": ports[1],
        "threads": library.threads,
        "cores": facts.cores,
        "fastest_threads": facts.fastest_by_core,
        "image": None if image is None else image.model_dump(),
        "weights": facts.weights,
        "sha256": facts.sha256,
        "compiler": f"tvmmobile {facts.versions.get('tvmmobile', '')}".strip(),
    }
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"
