"""Labelled images on disk, laid out as ImageNet is: a folder for each class, with its images in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.networks.images import SUFFIXES
from tvmmobile.system.errors import UserError, some_of

#: WordNet's identifier of a noun, which names ImageNet's classes.
_SYNSET = re.compile(r"n\d{8}")
_LAYOUT = "Give a folder with a folder for each class: FOLDER/CLASS/IMAGE; or noise:N."


@dataclass(frozen=True)
class LabelledImage:
    """An image and its class.

    Attributes:
        name: the path within the folder, such as `n01440764/ILSVRC2012_val_00000293.JPEG`; valid UTF-8, whatever the file is called.
        label: index of its class.
    """

    path: Path
    name: str
    label: int


@dataclass(frozen=True)
class LabelledFolder:
    """The images of a folder.

    Attributes:
        path: its own.
        images: sorted by class folder, then by name.
        class_folders: how many there are.
        how: how class folders became labels, for people, in one line.
        others: files in class folders that are not called as images are, and were left alone.
    """

    path: Path
    images: tuple[LabelledImage, ...]
    class_folders: int
    how: str
    others: int


def read_folder(folder: Path, classes: int, names: Sequence[str] | None = None) -> LabelledFolder:
    """The images of `folder` with their labels; no image is opened. Hidden files and folders are left alone.

    Args:
        folder: with a folder for each class.
        classes: of the network.
        names: of the classes in the network's order; where given, a class folder's name must be one of them, or the first word of one.

    Raises:
        UserError: there is no such folder or no image in it, there are more class folders than classes, or the class of a folder
            cannot be told.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder.", _LAYOUT)
    found = {path.name: path for path in _visible(folder) if path.is_dir()}
    if not found:
        raise UserError(f"{folder} has no class folders.", _LAYOUT)
    if len(found) > classes:
        raise UserError(
            f"{folder} has {len(found)} class folders, more than the network's {classes} classes.",
            "Give images of the classes that the network was trained for.",
        )
    labels, how = _labels(folder, sorted(found), classes, names)
    files = [(name, path) for name in sorted(found) for path in _visible(found[name]) if path.is_file()]
    images = tuple(
        LabelledImage(path, plain(f"{name}/{path.name}"), labels[name]) for name, path in files if path.suffix.lower() in SUFFIXES
    )
    if not images:
        raise UserError(f"{folder} has {len(found)} class folders but no images.", f"Images end in {', '.join(sorted(SUFFIXES))}.")
    return LabelledFolder(folder, images, len(found), how, len(files) - len(images))


def evenly_spaced(images: Sequence[LabelledImage], limit: int | None) -> tuple[LabelledImage, ...]:
    """At most `limit` of `images`, at equal distances and beginning with the first."""
    count = len(images) if limit is None else min(limit, len(images))
    return tuple(images[number * len(images) // count] for number in range(count))


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}.", "Check its permissions.") from error


def _labels(folder: Path, found: Sequence[str], classes: int, names: Sequence[str] | None) -> tuple[dict[str, int], str]:
    """Each class folder's label, and how it was derived."""
    if names is not None:
        return _named(folder, found, names), "class folders by name, in the order of --labels"
    if all(name.isascii() and name.isdigit() for name in found):
        return _numbered(folder, found, classes), "class folders by number"
    in_order = {name: number for number, name in enumerate(found)}
    if all(_SYNSET.fullmatch(name) for name in found):
        if len(found) < classes:
            raise UserError(
                f"{folder} has {len(found)} synsets but the network {classes} classes: which classes they are is ambiguous.",
                "Give --labels FILE with a line for each class that begins with its synset, such as: n01440764 tench",
            )
        return in_order, f"{classes} synsets, sorted, are the classes 0 to {classes - 1}"
    return in_order, f"the {len(found)} class folders in alphabetical order are the classes 0 to {len(found) - 1}"


def _named(folder: Path, found: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    whole: dict[str, list[int]] = {}
    first: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        whole.setdefault(name, []).append(number)
        first.setdefault(next(iter(name.split()), ""), []).append(number)
    places = {name: whole.get(name) or first.get(name, []) for name in found}
    absent = [name for name in found if not places[name]]
    _refuse(absent, folder, "which --labels does not have", "A line must be, or begin with, its name.")
    doubtful = [name for name in found if len(places[name]) > 1]
    _refuse(doubtful, folder, "which several lines of --labels begin with", "Call the folder what one whole line says.")
    return {name: places[name][0] for name in found}


def _numbered(folder: Path, found: Sequence[str], classes: int) -> dict[str, int]:
    labels = {name: int(name) for name in found}
    beyond = [name for name in found if labels[name] >= classes]
    _refuse(beyond, folder, f"and the network has the classes 0 to {classes - 1}", "A folder's number is the index of its class, from 0.")
    last = {label: name for name, label in labels.items()}
    _refuse([name for name in found if last[labels[name]] != name], folder, "which appears twice", "Merge the folders of one class.")
    return labels


def _refuse(names: Sequence[str], folder: Path, why: str, remedy: str) -> None:
    """Raises `UserError` if there are `names` of class folders that cannot be used."""
    if names:
        raise UserError(f"{folder} has {some_of(names)}, {why}.", remedy)


def plain(text: str) -> str:
    """Text with a file's name, made encodable: a lone surrogate becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
