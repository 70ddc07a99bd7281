"""`import tvmmobile`: what there is, what it costs to import, and that scripts use it and not the command line."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import tvmmobile

REPOSITORY = Path(__file__).resolve().parents[1]
HEAVY = {"tvm", "torch", "numpy", "scipy", "xgboost", "onnx", "paramiko", "pydantic", "typer", "rich"}


def declared() -> dict[str, str]:
    """What type checkers see: each name with its module."""
    tree = ast.parse(Path(tvmmobile.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return {str(alias.asname): str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_type_checkers_see_what_there_is() -> None:
    assert set(declared()) == set(tvmmobile._PLACES) <= set(dir(tvmmobile))


@pytest.mark.parametrize("name", sorted(declared()))
def test_every_name_is_there(name: str) -> None:
    found = getattr(tvmmobile, name)
    assert found is getattr(importlib.import_module(declared()[name]), "compile_models" if name == "compile" else name)
    assert found.__doc__


def test_no_name_hides_a_room() -> None:
    rooms = {path.name for path in (REPOSITORY / "tvmmobile").iterdir() if path.is_dir()}
    assert not rooms & declared().keys()


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'tvmmobile' has no attribute 'tuna'"):
        _ = tvmmobile.tuna


def test_importing_it_imports_nothing_heavy() -> None:
    code = f"import sys, tvmmobile; dir(tvmmobile); print('|'.join({HEAVY!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


@pytest.mark.parametrize("script", sorted(path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "scripts").rglob("*.py")))
def test_scripts_do_without_the_command_line(script: str) -> None:
    for node in ast.walk(ast.parse((REPOSITORY / script).read_text(encoding="utf-8"))):
        names = (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        assert not any(name.startswith("tvmmobile.cli") for name in names)
        assert not (names == ["tvmmobile"] and isinstance(node, ast.ImportFrom) and "cli" in {alias.name for alias in node.names})
