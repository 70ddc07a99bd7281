"""Readers of folders of images that a user names: pipes, sockets, links, files without permission, and names of any kind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

from hostile.file_readers import Prepared
from hostile.fuzzing import Reader
from unix_sockets import make_socket

#: Of entries that are made of one input.
_MOST_ENTRIES = 50


def _images(folder: Path) -> Prepared:
    from tvmmobile.networks.labelled import read_folder
    from tvmmobile.networks.preprocessing import Preprocessing
    from tvmmobile.quantisation.data import calibration_data
    from tvmmobile.system.errors import UserError

    place = folder / "photos"
    kinds = ("image", "array", "text", "pipe", "socket", "device", "loop", "outside", "folder", "closed")
    entries = [
        {"path": f"{number}/{kind}.{end}", "kind": kind, "mode": 0o644} for number in range(2) for kind in kinds for end in ("png", "npy")
    ]
    picture = _picture()

    def read(content: bytes) -> object:
        with contextlib.suppress(ValueError, RecursionError):
            _make(place, json.loads(content), picture)
        data = calibration_data(str(place), Preprocessing(8), generated=True)
        images = data.samples()
        with contextlib.suppress(UserError):  # a file that is no image; the others are read too
            images.read(range(min(2, images.count)))
        return data.labels(10), read_folder(place, 10)

    return [json.dumps(entries).encode()], read


def _picture() -> bytes:
    import numpy as np
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _make(place: Path, entries: Any, picture: bytes) -> None:
    """A new folder with what a list of entries says, as far as it can be made; nothing is written outside of it."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    place = place.resolve()
    for entry in entries[:_MOST_ENTRIES] if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        parts = [part for part in str(entry.get("path")).split("/") if part not in ("", ".", "..")]
        path = place.joinpath(*parts) if parts else place / "x"
        with contextlib.suppress(OSError, ValueError, TypeError, UnicodeError, OverflowError):
            if os.path.realpath(path.parent) != str(path.parent) or os.path.lexists(path):
                continue  # through a link, which may lead out of the folder, or into a pipe, which would block
            path.parent.mkdir(parents=True, exist_ok=True)
            _make_one(path, entry.get("kind"), picture)
            if not path.is_symlink():
                path.chmod(int(entry.get("mode", 0o644)) & 0o777)


def _make_one(path: Path, kind: Any, picture: bytes) -> None:
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            make_socket(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path.name)
        case "outside":
            path.symlink_to("/")
        case "folder":
            path.mkdir()
        case "closed":
            path.mkdir()
            path.chmod(0)
        case "text":
            path.write_text("not an image")
        case "array":
            path.write_bytes(b"\x93NUMPY")
        case _:
            path.write_bytes(picture)


READERS = (Reader("folder", "json", _images, cost=20),)
