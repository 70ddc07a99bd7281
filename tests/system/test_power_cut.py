"""A power cut at the worst moment: what was reported as kept is there, and nothing is half there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from log_samples import PI, some_records
from power_cut import Disk

from tvmmobile.system.files import made_once, write_text
from tvmmobile.tuning.database import Database


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Disk]]:
    """Makes a `Disk` of the folder `disk`."""
    made: list[Disk] = []
    (tmp_path / "disk").mkdir()

    def make(synced: Callable[[Disk], None] = lambda _: None) -> Disk:
        made.append(Disk(tmp_path / "disk", monkeypatch, synced))
        return made[-1]

    yield make
    for one in made:
        one.close()


def left(disk: Disk, folder: Path) -> list[Path]:
    """Return what is left of it in both of the worst cases."""
    number = len(list(folder.glob("cut-*")))
    return [disk.cut(folder / f"cut-{number + renamed}", bool(renamed)) for renamed in (0, 1)]


def test_records_that_are_kept_are_on_disk(disk: Callable[..., Disk], tmp_path: Path) -> None:
    found, database = disk(), Database(PI, (), tmp_path / "disk" / "a" / "logs")
    with database.writing():
        for count, record in enumerate(some_records(4), 1):
            database.append([record])
            for cut in left(found, tmp_path):
                kept = Database(PI, (cut / "a" / "logs",), None)
                assert len(kept) == count and kept.ignored == 0


def test_a_file_is_the_old_or_the_new_one_at_any_moment(disk: Callable[..., Disk], tmp_path: Path) -> None:
    path = tmp_path / "disk" / "out" / "report.json"
    write_text(path, "old")
    seen: list[str] = []

    def look(found: Disk) -> None:
        seen.extend((cut / "out" / path.name).read_text() for cut in left(found, tmp_path))

    found = disk(look)
    write_text(path, "new")
    assert set(seen) == {"old", "new"}
    assert [(cut / "out" / path.name).read_text() for cut in left(found, tmp_path)] == ["new", "new"]
    write_text(path.parent / "deep" / "er" / "new.json", "first")
    assert [(cut / "out" / "deep" / "er" / "new.json").read_text() for cut in left(found, tmp_path)] == ["first", "first"]


def test_a_folder_that_is_made_once_is_whole_or_not_there(disk: Callable[..., Disk], tmp_path: Path) -> None:
    seen: list[bool] = []

    def look(found: Disk) -> None:
        for cut in left(found, tmp_path):
            seen.append((cut / "agent").exists())
            assert not seen[-1] or (cut / "agent" / "lib" / "libc.so").read_text() == "code"

    found = disk(look)
    with made_once(tmp_path / "disk" / "agent") as folder:
        assert folder is not None
        (folder / "lib").mkdir()
        (folder / "lib" / "libc.so").write_text("code")
    assert set(seen) == {False, True}
    assert all((cut / "agent" / "lib" / "libc.so").read_text() == "code" for cut in left(found, tmp_path))


def test_the_recorder_loses_what_is_not_synced(disk: Callable[..., Disk], tmp_path: Path) -> None:
    found = disk()
    (tmp_path / "disk" / "file").write_text("lost")
    synced, renamed = left(found, tmp_path)
    assert list(synced.iterdir()) == [] and (renamed / "file").read_text() == ""
