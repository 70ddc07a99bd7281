"""docs/security.md: each row names tests, and they exist."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_each_claim_names_tests_that_exist() -> None:
    text = (REPOSITORY / "docs/security.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|") and not line.startswith(("| ---", "| what"))]
    assert len(rows) > 15
    defined = {
        name
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    for claim, tests in rows:
        names = re.findall(r"`(test_\w+)`", tests)
        assert names and set(names) <= defined, (claim, sorted(set(names) - defined))


def test_no_hostile_test_is_left_out() -> None:
    text = (REPOSITORY / "docs/security.md").read_text(encoding="utf-8")
    for module in ("test_strangers.py", "test_cluster_strangers.py"):
        for name in re.findall(r"^def (test_\w+)", (REPOSITORY / "tests/hostile" / module).read_text(), re.MULTILINE):
            assert f"`{name}`" in text or name == "test_who_has_the_certificate_is_served", name
