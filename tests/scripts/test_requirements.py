"""Pinned packages have hashes, the bill of materials names them, and no version with a known vulnerability is pinned or allowed."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

LISTS = (
    "scripts/requirements",
    "scripts/requirements-dev",
    "studies/formats/converters",
    "studies/networks/survey",
    "studies/errors/photographs",
)
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def pins(path: Path) -> dict[str, str]:
    """Return the version of each package that a list or a lock pins."""
    lines = [line.split(" ")[0].strip() for line in path.read_text().splitlines() if line[:1].isalnum()]
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in found}


def advisories(repository: Path) -> list[tuple[str, str, Version]]:
    known = tomllib.loads((repository / "scripts/advisories.toml").read_text())
    return [(package, name, Version(fixed)) for package, entries in known.items() for name, fixed in entries.items()]


@pytest.mark.parametrize("name", LISTS)
def test_a_lock_has_what_its_list_has_and_a_hash_of_each(repository: Path, name: str) -> None:
    lock = repository / f"{name}.lock"
    torch = repository / "scripts/torch.lock"
    locks = [lock, torch] if name == LISTS[0] else [lock]
    assert {package: version for one in locks for package, version in pins(one).items()} == pins(lock.with_suffix(".txt"))
    entries = [entry for one in locks for entry in re.split(r"\n(?=[a-zA-Z])", one.read_text())]
    assert [entry for entry in entries if not HASH.search(entry)] == []


def test_the_oldest_python_takes_what_a_set_up_installs(repository: Path) -> None:
    """It is checked as pip does: a package may have dropped Debian 12's Python 3.11.2, which may be older than this machine's."""
    oldest = str(SpecifierSet(tomllib.loads((repository / "pyproject.toml").read_text())["project"]["requires-python"])).removeprefix(">=")
    needed = {
        package: SpecifierSet(metadata(package).get("Requires-Python") or "")
        for name in ("scripts/requirements", "scripts/requirements-dev")
        for package in pins(repository / f"{name}.txt")
    }
    assert {package: str(one) for package, one in needed.items() if not one.contains(f"{oldest}.0")} == {}


def test_the_bill_of_materials_names_what_a_set_up_installs(repository: Path) -> None:
    bill = json.loads((repository / "tvmmobile/sbom.cdx.json").read_text())
    assert bill["metadata"]["component"]["name"] == "tvmmobile"
    named = {canonicalize_name(one["name"]): one["version"] for one in bill["components"]}
    assert named == pins(repository / "scripts/requirements.txt")


def test_no_pinned_version_has_a_known_vulnerability(repository: Path) -> None:
    pinned = {package: version for name in LISTS for package, version in pins(repository / f"{name}.txt").items()}
    found = advisories(repository)
    assert {package for package, _, _ in found} <= set(pinned), "an advisory for a package that nothing uses"
    assert [one for one in found if Version(pinned[one[0]]) < one[2]] == []


def test_no_lower_bound_allows_a_known_vulnerability(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    allowed = {canonicalize_name(one.name): one.specifier for one in map(Requirement, listed)}
    found = [(package, name, fixed) for package, name, fixed in advisories(repository) if package in allowed]
    assert found
    for package, name, fixed in found:
        bounds = [Version(one.version) for one in allowed[package] if one.operator in (">=", "==")]
        assert bounds and max(bounds) >= fixed, f"{package}: {name} is fixed in {fixed}, pyproject.toml allows {allowed[package]}"
