"""A public class has a name of its own, so that a reader who meets the name knows which class it is."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "tvmmobile"
#: Names that two classes may have, and why.
SHARED = {
    "Network": "deployed programs use `packaging/python` without tvmmobile",
    "Port": "deployed programs use `packaging/python` without tvmmobile",
    "MaxPool": "ONNX's evaluator finds an operator's class by its name",
    "Softmax": "ONNX's evaluator finds an operator's class by its name",
}


def test_a_public_class_name_is_defined_once() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted([*PACKAGE.rglob("*.py"), *(PACKAGE / "schedules").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno}")
    shared = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in shared.items() if name not in SHARED} == {}
    assert SHARED.keys() <= shared.keys(), "these names are no longer shared"
