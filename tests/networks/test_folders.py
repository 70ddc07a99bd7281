"""Lists of files in folders that hold more than files, or that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from unix_sockets import make_socket

from tvmmobile.networks import folders
from tvmmobile.networks.folders import files_below
from tvmmobile.networks.labelled import read_folder
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.quantisation.data import calibration_data
from tvmmobile.system.errors import UserError


def test_pipes_sockets_devices_and_hidden_files_are_left_alone(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "b" / "one.png"
    for path in (wanted, tmp_path / ".hidden.png", tmp_path / ".git" / "two.png", tmp_path / "three.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    os.mkfifo(tmp_path / "pipe.png")
    make_socket(tmp_path / "socket.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "root").symlink_to("/")
    (tmp_path / "folder.png").mkdir()
    assert files_below(tmp_path, {".png"}) == [wanted]


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, scan = tmp_path / "closed", os.scandir

    def scandir(place: Any) -> Any:
        if Path(place) == closed:
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", scandir)
    closed.mkdir()
    with pytest.raises(UserError, match="closed cannot be read: Permission denied"):
        calibration_data(str(tmp_path), Preprocessing(8), generated=True).samples()


def test_a_folder_of_more_than_can_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MOST_ENTRIES", 5)
    monkeypatch.setattr("tvmmobile.networks.labelled.MOST_ENTRIES", 5)
    for number in range(6):
        (tmp_path / str(number)).mkdir()
    for read in (lambda: files_below(tmp_path, {".png"}), lambda: read_folder(tmp_path, 10)):
        with pytest.raises(UserError, match="has more than 5 "):
            read()


def test_calibration_data_in_a_pipe_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "inputs.npy")
    with pytest.raises(UserError, match="neither a folder nor"):
        calibration_data(str(tmp_path / "inputs.npy"), Preprocessing(8), generated=True)


@pytest.mark.parametrize("given", ["x" * 300, "a\0b"])
def test_calibration_data_of_an_impossible_name(given: str) -> None:
    with pytest.raises(UserError, match="does not exist"):
        calibration_data(given, Preprocessing(8), generated=True)
