"""Rooms import downwards, heavy packages are imported where they are used, one file reads the environment (see ARCHITECTURE.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "tvmmobile"
FILES = sorted({path.relative_to(PACKAGE).as_posix() for path in (*PACKAGE.rglob("*.py"), *(PACKAGE / "schedules").rglob("*.py"))})
#: From the ground up; a room imports from itself and the rooms before it.
ROOMS = (
    "system",
    "graph",
    "networks",
    "schedules",
    "kernels",
    "quantisation",
    "native",
    "virtual",
    "devices",
    "running",
    "packaging",
    "tuning",
    "results",
    "gate",
    "history",
    "pipeline",
    "accuracy",
    "choosing",
    "cli",
)
#: Within `graph`, the passes stand above everything else.
PASSES = "graph/passes/"
#: What takes a while to import.
HEAVY = {"tvm", "tvm_ffi", "torch", "xgboost", "matplotlib", "onnx", "onnxruntime", "ai_edge_litert"}
#: Files that are first imported as a network is, a library is written or an agent starts.
LATE = (
    *("devices/agents/session.py", "graph/passes/", "native/layout.py", "native/library.py", "native/objects.py"),
    *("native/parts.py", "native/program.py"),
    *("networks/models/checkpoints.py", "networks/models/network.py", "networks/models/weights.py", "networks/own/"),
    *("networks/reductions.py", "networks/resizes.py", "networks/scattering.py", "networks/selection.py", "networks/sorting.py"),
    "networks/torch_",
    "pipeline/precision_",
    *("pipeline/prepared.py", "quantisation/given.py", "quantisation/lowering.py", "quantisation/prepare.py"),
)


def tree_of(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"))


def imports(node: ast.AST) -> Iterator[str]:
    """Modules imported anywhere below `node`, those for type checking only included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom) and child.module:
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        else:
            yield from imports(child)


def module_of(imported: str) -> str | None:
    """`tuning/search/tuner.py` for `tvmmobile.tuning.search.tuner.assign`; `None` for other packages."""
    parts = imported.split(".")
    if parts[0] != "tvmmobile":
        return None
    for length in range(len(parts), 0, -1):
        path = Path(*parts[1:length])
        for file in (path.with_suffix(".py") if path.name else path, path / "__init__.py"):
            if file.as_posix() in FILES:
                return file.as_posix()
    raise AssertionError(f"{imported} is imported, and is not there")


def room(file: str) -> int:
    """Return the number of the room that a file is in; the package's own files stand above all."""
    return ROOMS.index(file.split("/")[0]) if "/" in file else len(ROOMS)


@pytest.mark.parametrize("file", FILES)
def test_rooms_import_downwards(file: str) -> None:
    upward = {module for imported in imports(tree_of(file)) if (module := module_of(imported)) and room(module) > room(file)}
    upward.discard("__init__.py")  # the version
    assert not upward, f"{file} imports from above: {sorted(upward)}"


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("graph/") and not file.startswith(PASSES)])
def test_what_passes_rest_on_does_not_import_them(file: str) -> None:
    found = {module for imported in imports(tree_of(file)) if (module := module_of(imported)) and module.startswith(PASSES)}
    assert not found, f"{file} imports passes: {sorted(found)}"


def test_one_file_orders_the_passes() -> None:
    """Nothing outside the folder of passes imports the passes that `pipeline.py` imports."""
    passes = {name for name in imports(tree_of(f"{PASSES}pipeline.py")) if name.startswith("tvmmobile.graph.passes.")}
    others = {file: found for file in FILES if not file.startswith(PASSES) and (found := passes.intersection(imports(tree_of(file))))}
    assert not others


def test_no_circle() -> None:
    reached = {file: {module for imported in imports(tree_of(file)) if (module := module_of(imported))} - {file} for file in FILES}
    open_files = dict(reached)
    while leaves := [file for file, others in open_files.items() if not others & open_files.keys()]:
        for file in leaves:
            del open_files[file]
    assert not open_files, f"these import each other: {sorted(open_files)}"


def top_imports(file: str) -> set[str]:
    """Return the modules that a file imports as it is imported itself."""
    return set(imports(ast.Module([node for node in tree_of(file).body if isinstance(node, ast.Import | ast.ImportFrom)], [])))


def test_no_module_loads_a_heavy_package_for_another() -> None:
    """A heavy package is imported inside a function, or at the top of a `LATE` file, which others import inside functions only."""
    tops = {file: top_imports(file) for file in FILES}
    heavy = {file for file, names in tops.items() if any(name.split(".")[0] in HEAVY for name in names)}
    loads = {file: {module_of(name) for name in names} for file, names in tops.items()}
    while more := {file for file in {*FILES} - heavy if not heavy.isdisjoint(loads[file])}:
        heavy |= more
    assert not [file for file in sorted(heavy) if not file.startswith(LATE)]


@pytest.mark.parametrize("file", sorted({*FILES} - {"system/environment.py"}))
def test_one_file_reads_the_environment(file: str) -> None:
    text = (PACKAGE / file).read_text(encoding="utf-8")
    assert "os.environ" not in text and "getenv" not in text


def test_helpers_of_tests_are_imported_by_one_name() -> None:
    """`support.x` and `x` would be two modules, each with caches and classes of its own."""
    tests = Path(__file__).parent
    twice = [
        path.relative_to(tests).as_posix()
        for path in sorted(tests.rglob("*.py"))
        for name in imports(ast.parse(path.read_text(encoding="utf-8")))
        if name.partition(".")[0] == "support"
    ]
    assert twice == []
