"""Imports go one way, heavy packages are imported where they are used, and one file reads the environment (see ARCHITECTURE.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "tvmmobile"
FILES = sorted({path.relative_to(PACKAGE).as_posix() for path in (*PACKAGE.rglob("*.py"), *(PACKAGE / "schedules").glob("*.py"))})
#: From the ground up; a module imports from its own level or lower ones. The longest matching prefix counts.
LEVELS = (
    ("__init__", "errors", "environment", "interrupts"),
    (
        "files",
        "json_files",
        "doctor",
        "console",
        "agent/tools",
        "clock",
        "layers",
        "devices/protocol",
        "devices/tracker",
        "devices/host",
        "devices/launch",
        "locks",
    ),
    ("tasks", "models"),
    ("schedules", "agent", "virtual"),
    (
        "serial",
        "reference",
        "devices",
        "codegen",
        "kernels",
        "frontend",
        "own",
        "passes",
        "preloaded",
        "workers",
        "results",
        "preprocess",
        "classes",
    ),
    ("database", "network", "measure", "startup", "library", "labelled", "gate"),
    ("comparison", "baselines"),
    ("plan", "search", "logs"),
    ("choice", "devices/selftest"),
    ("build", "original"),
    ("stages", "report"),
    ("cluster", "gate_report", "regression", "evaluation", "evaluation_file"),
    ("json_schemas",),
    ("cli", "__main__"),
)
#: What may be imported at the top all the same: the modules are only imported where a session is opened, or a PyTorch module made.
HEAVY_ALLOWED = {"devices/session.py", "models/network.py"}
#: Workers are told where their temporary files go.
ENVIRONMENT_ALLOWED = {"environment.py", "workers.py"}


def level(name: str) -> int:
    """The level of `search/tuner` or `search.tuner`."""
    parts = name.replace(".", "/").removesuffix("/__init__").split("/")
    for length in range(len(parts), 0, -1):
        prefix = "/".join(parts[:length])
        for number, names in enumerate(LEVELS):
            if prefix in names:
                return number
    raise AssertionError(f"{name} has no level: say in LEVELS where it belongs")


def tree_of(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"))


def imports(node: ast.AST) -> Iterator[str]:
    """Modules imported anywhere below `node`, except for type checking only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.ImportFrom) and child.module:
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        else:
            yield from imports(child)


def module_of(imported: str) -> str | None:
    """`search/tuner` for `tvmmobile.search.tuner.assign`; `None` for other packages."""
    if not imported.startswith("tvmmobile."):
        return None
    parts = imported.split(".")[1:]
    while parts and not ((PACKAGE / "/".join(parts)).is_dir() or (PACKAGE / "/".join(parts)).with_suffix(".py").is_file()):
        parts.pop()
    return "/".join(parts) or "__init__"


@pytest.mark.parametrize("file", FILES)
def test_one_way(file: str) -> None:
    own = file.removesuffix(".py")
    upward = {module for imported in imports(tree_of(file)) if (module := module_of(imported)) is not None and level(module) > level(own)}
    assert not upward, f"{file} imports from above: {sorted(upward)}"


@pytest.mark.parametrize("file", [file for file in FILES if file not in HEAVY_ALLOWED])
def test_heavy_packages_are_imported_where_they_are_used(file: str) -> None:
    top = ast.Module([node for node in tree_of(file).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert {name.split(".")[0] for name in imports(top)}.isdisjoint({"tvm", "tvm_ffi", "torch", "xgboost", "matplotlib"})


@pytest.mark.parametrize("file", [file for file in FILES if file not in ENVIRONMENT_ALLOWED])
def test_one_file_reads_the_environment(file: str) -> None:
    text = (PACKAGE / file).read_text(encoding="utf-8")
    assert "os.environ" not in text and "getenv" not in text
