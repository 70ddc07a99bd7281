"""The studies' harness: a file of figures is completed entry by entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studies.harness import completed


def computed(network: str, weights: str) -> dict[str, Any] | None:
    return None if network == "untrainable" else {"network": network, "weights": weights, "error": 0.5}


def test_what_a_file_has_is_kept_and_what_gives_no_entry_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "errors.json"
    file.write_text(json.dumps([{"network": "a", "weights": "trained", "error": 0.1}]), encoding="utf-8")
    keys = [("a", "trained"), ("untrainable", "trained"), ("a", "generated")]
    wanted = {key: (lambda key=key: computed(*key)) for key in keys}
    found = completed(file, wanted, ("network", "weights"), lambda entries: f"{len(entries)} entries\n")
    assert [(one["network"], one["weights"], one["error"]) for one in found] == [("a", "trained", 0.1), ("a", "generated", 0.5)]
    assert json.loads(file.read_text(encoding="utf-8")) == found
    assert file.with_suffix(".md").read_text(encoding="utf-8") == "2 entries\n"
