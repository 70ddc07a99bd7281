"""The examples around an Android archive, a camera app and a module for React Native: compiled with its sources and outlines of the rest.

The outlines have what the examples use: of Android as its API level 36 has it, of React Native 0.88, of CameraX by its documentation.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest
from conftest import REPOSITORY

from tvmmobile.packaging import aar

APP, MODULE = REPOSITORY / "examples/android/app", REPOSITORY / "examples/react-native"
NAME, OUTLINES = "org.example.mynet", Path(__file__).with_name("android_outlines.txt")


@pytest.mark.skipif(shutil.which("javac") is None, reason="javac is not installed")
def test_they_compile(tmp_path: Path) -> None:
    for text in OUTLINES.read_text(encoding="utf-8").split("\n\n"):
        package, name = re.findall(r"package (.*);\npublic .*?(?:class|interface) (\w+)", text)[0]
        path = tmp_path / package.replace(".", "/") / f"{name}.java"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for path in (aar._SOURCES / "java").glob("*.java"):
        goal = tmp_path / NAME.replace(".", "/") / path.name
        goal.parent.mkdir(parents=True, exist_ok=True)
        goal.write_text(path.read_text().replace(aar._TEMPLATE, NAME))
    sources = [*APP.rglob("*.java"), *MODULE.rglob("*.java")]
    words = ["javac", "--release", "11", "-Xlint:all,-options,-rawtypes,-try", "-Werror", "-implicit:none", "-proc:none"]
    words += ["-sourcepath", f"{tmp_path}:{aar._SOURCES / 'outlines'}", "-d", str(tmp_path / "classes"), *map(str, sources)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in (tmp_path / "classes").rglob("*.class")} == {"MainActivity", "MyNetModule", "MyNetPackage"}


def test_the_guide_shows_the_apps_code() -> None:
    _, shown = re.findall(r"```java\n(.*?)```", (REPOSITORY / "docs/android.md").read_text(encoding="utf-8"), re.DOTALL)
    (activity,) = APP.rglob("*.java")
    assert textwrap.indent(shown, "    ") in activity.read_text(encoding="utf-8")


def test_their_parts_fit_together() -> None:
    """The names of the package, the module and its method on both sides."""
    for build in (APP / "build.gradle.kts", MODULE / "android/build.gradle"):
        text = build.read_text(encoding="utf-8")
        assert f"--name {NAME}`" in text and "libs/mynet.aar" in text
    assert 'abiFilters += "arm64-v8a"' in (APP / "build.gradle.kts").read_text(encoding="utf-8")
    java = (MODULE / "android/src/main/java/org/example/network/MyNetModule.java").read_text(encoding="utf-8")
    script = (MODULE / "src/index.ts").read_text(encoding="utf-8")
    assert 'return "MyNet";' in java and "NativeModules.MyNet " in script
    assert "void classify(String uri, double wanted, Promise promise)" in java and "classify(uri: string, wanted: number)" in script
    assert set(re.findall(r'score\.put\w+\("(\w+)"', java)) == set(re.findall(r"^  (\w+): number;", script, re.MULTILINE))
    about = json.loads((MODULE / "package.json").read_text(encoding="utf-8"))
    assert (MODULE / about["main"]).is_file() and all((MODULE / each).exists() for each in about["files"])
