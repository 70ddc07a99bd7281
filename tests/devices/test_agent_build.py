"""Building the agent: faults are reported with a remedy, and no partial build is left."""

from __future__ import annotations

import re
import threading
import zipfile
from pathlib import Path

import pytest

from tvmmobile.devices.agent import build, wheels
from tvmmobile.system import programs as tools
from tvmmobile.system.doctor import CROSS_PACKAGE
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import sha256_of
from tvmmobile.virtual.plugin import build as plugin


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TVMMOBILE_CACHE", str(tmp_path / "cache"))


def test_missing_cross_compiler_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(UserError, match=rf"apt-get install -y {re.escape(CROSS_PACKAGE)}$"):
        build.build_bundle()
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] in ([], [".lock"])


@pytest.mark.parametrize("phases", [False, True])
def test_missing_compiler_for_the_plugin(monkeypatch: pytest.MonkeyPatch, phases: bool) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(UserError, match=r"virtual boards need .*cc\.\n.*apt-get install -y .*gcc libc6-dev"):
        plugin.build_plugin(phases)


def test_failing_pip_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(UserError, match=r"Downloading apache-tvm==.* failed(.|\n)*pip download"):
        wheels.unpack_wheel(wheels.Wheel("apache-tvm==0.0.1", "0" * 64, ()), tmp_path)


def fake_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip that downloads a wheel of three small files."""

    def download(command: list[str], *_arguments: object) -> str:
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir()
        with zipfile.ZipFile(folder / "some.whl", "w") as archive:
            for name in ("pkg/lib/a.so", "pkg/lib/b.so", "pkg/include/c.h"):
                archive.writestr(zipfile.ZipInfo(name), name)
        return ""

    monkeypatch.setattr(wheels, "run_tool", download)


def test_only_a_wheel_with_the_pinned_digest_is_unpacked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_pip(monkeypatch)
    with pytest.raises(UserError, match=r"is not the one tvmmobile was made with(.|\n)*pip config list"):
        wheels.unpack_wheel(wheels.Wheel("some==1", "0" * 64, ("pkg/lib/a.so",)), tmp_path)
    assert not (tmp_path / "unpacked").exists()
    right = sha256_of(tmp_path / "some==1" / "some.whl")
    (tmp_path / "again").mkdir()
    wheels.unpack_wheel(wheels.Wheel("some==1", right, ("pkg/lib/a.so",), ("pkg/include/",)), tmp_path / "again")
    unpacked = tmp_path / "again" / "unpacked"
    assert sorted(str(p.relative_to(unpacked)) for p in unpacked.rglob("*") if p.is_file()) == ["pkg/include/c.h", "pkg/lib/a.so"]


def test_a_bundle_is_built_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def fill(_scratch: Path, bundle: Path, _progress: build.Progress) -> None:
        built.append(bundle)
        (bundle / build.AGENT).write_text("agent")

    monkeypatch.setattr(build, "_fill", fill)
    threads = [threading.Thread(target=build.build_bundle) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert (build.bundle_path() / build.AGENT).read_text() == "agent"


def test_an_interrupted_build_leaves_no_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(_scratch: Path, bundle: Path, _progress: build.Progress) -> None:
        (bundle / build.AGENT).write_text("ag")
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "_fill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.build_bundle()
    assert not build.bundle_path().exists()
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] in ([], [".lock"])


def test_a_tool_that_fails_shows_what_it_said() -> None:
    with pytest.raises(UserError, match=r"Counting failed: (.|\n)*No such file(.|\n)*Try again"):
        tools.run_tool(["ls", "/nonexistent"], "Counting", "Try again")
    with pytest.raises(UserError, match="did not end within"):
        tools.run_tool(["sleep", "5"], "Waiting", "Try again", timeout_s=0.05)


def test_a_cache_that_cannot_be_created_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVMMOBILE_CACHE", "/proc/nowhere")  # nobody can create anything there, root included
    with pytest.raises(UserError, match="the cache /proc/nowhere cannot be written") as caught:
        build.build_bundle()
    assert "TVMMOBILE_CACHE" in caught.value.remedy
