"""Reads labelled images, or arrays in their place, on disk in ImageNet's layout: a folder for each class."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.networks.folders import MOST_ENTRIES
from tvmmobile.networks.images import INPUT_SUFFIXES, SUFFIXES
from tvmmobile.system.errors import UserError, some_of

#: WordNet's identifier of a noun, which names ImageNet's classes.
_SYNSET = re.compile(r"n\d{8}")
_LAYOUT = "Give a folder with a folder for each class: FOLDER/CLASS/IMAGE; or noise:N."


@dataclass(frozen=True)
class LabelledImage:
    """An image, or the array of an input, and its class.

    Attributes:
        name: the path within the folder, such as `n01440764/ILSVRC2012_val_00000293.JPEG`; valid UTF-8, whatever the file is called.
        label: index of its class.
    """

    path: Path
    name: str
    label: int


@dataclass(frozen=True)
class Classes:
    """The class of each folder in a folder.

    Attributes:
        labels: index of each folder's class, by the folder's name.
        rule: the rule by which names became labels, for people, in one line.
        certain: false if the order of some of the network's classes was assumed.
    """

    labels: Mapping[str, int]
    rule: str
    certain: bool


@dataclass(frozen=True)
class LabelledFolder:
    """The images of a folder.

    Attributes:
        path: path of the folder.
        images: sorted by class folder, then by name.
        class_folders: number of class folders.
        rule: the rule by which class folders became labels, for people, in one line.
        others: files in class folders that are neither images nor `.npy` files by their names, which were ignored.
    """

    path: Path
    images: tuple[LabelledImage, ...]
    class_folders: int
    rule: str
    others: int


def read_folder(folder: Path, classes: int, names: Sequence[str] | None = None) -> LabelledFolder:
    """Return the images of `folder` with their labels; no image is opened. Hidden files and folders are left alone.

    Args:
        folder: a folder with a folder for each class.
        classes: number of the network's classes.
        names: the classes' names in the network's order; where given, a class folder's name must be one of them, or the first word of one.

    Raises:
        UserError: there is no such folder or no image in it, there are more class folders than classes, or the class of a folder is
            ambiguous.
    """
    found = classes_of(folder, classes, names)
    files = [(name, path) for name in sorted(found.labels) for path in _visible(folder / name) if os.path.isfile(path)]
    images = tuple(
        LabelledImage(path, plain(f"{name}/{path.name}"), found.labels[name])
        for name, path in files
        if path.suffix.lower() in INPUT_SUFFIXES
    )
    if not images:
        raise UserError(f"{folder} has class folders but no images.", f"Images end in {', '.join(sorted(SUFFIXES))}; arrays in .npy.")
    return LabelledFolder(folder, images, len(found.labels), found.rule, len(files) - len(images))


def classes_of(folder: Path, classes: int, names: Sequence[str] | None = None) -> Classes:
    """Return the classes of a folder's class folders; arguments and errors are those of `read_folder`, which looks for images too."""
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is not a folder.", _LAYOUT)
    found = sorted(path.name for path in _visible(folder) if os.path.isdir(path))
    if not found:
        loose = any(path.suffix.lower() in INPUT_SUFFIXES for path in _visible(folder))
        unlabelled = ", so its images have no labels" if loose else ""
        raise UserError(f"{folder} has no class folders{unlabelled}.", _LAYOUT)
    if len(found) > classes:
        raise UserError(
            f"{folder} has {len(found)} class folders, more than the network's {classes} classes.",
            "Give images of the classes that the network was trained for.",
        )
    if names is not None:
        return Classes(_named(folder, found, names), "class folders by name, in the order of --labels", certain=True)
    if all(name.isascii() and name.isdigit() for name in found):
        return Classes(_numbered(folder, found, classes), "class folders by number", certain=True)
    in_order, complete = {name: number for number, name in enumerate(found)}, len(found) == classes
    if all(_SYNSET.fullmatch(name) for name in found):
        if not complete:
            raise UserError(
                f"{folder} has {len(found)} synsets but the network {classes} classes: which classes they are is ambiguous.",
                "Give --labels FILE with a line for each class that begins with its synset, such as: n01440764 tench",
            )
        return Classes(in_order, f"{classes} synsets, sorted, are the classes 0 to {classes - 1}", certain=True)
    return Classes(in_order, "class folders in alphabetical order, from class 0", certain=complete)


def evenly_spaced(images: Sequence[LabelledImage], limit: int | None) -> tuple[LabelledImage, ...]:
    """Return at most `limit` of `images`, at equal distances and beginning with the first."""
    count = len(images) if limit is None else min(limit, len(images))
    return tuple(images[number * len(images) // count] for number in range(count))


def _visible(folder: Path) -> list[Path]:
    try:
        names = itertools.islice((path for path in folder.iterdir() if not path.name.startswith(".")), MOST_ENTRIES + 1)
        found = sorted(names)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}.", "Check its permissions.") from error
    if len(found) > MOST_ENTRIES:
        raise UserError(f"{folder} has more than {MOST_ENTRIES:,} entries.", _LAYOUT)
    return found


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
    """Raise `UserError` if some class folders have unusable names, those in `names`."""
    if names:
        raise UserError(f"{folder} has the class folder{'s' * (len(names) > 1)} {some_of(names)}, {why}.", remedy)


def plain(text: str) -> str:
    """Return a file's name as encodable text: a lone surrogate becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
