"""The network after each graph pass, beside the texts in `golden/`.

After a change that is meant, write them anew and read the difference:
`TVMMOBILE_UPDATE_GOLDEN=1 ./scripts/test tests/graph/test_passes_golden.py; git diff tests/golden`
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_networks import kernels_of, prepared, two_blocks

from tvmmobile.graph.lowering import lower

GOLDEN = Path(__file__).parents[1] / "golden" / "two_blocks"
UPDATE = bool(os.environ.get("TVMMOBILE_UPDATE_GOLDEN"))
#: Passes that change the network, in order; a file of each pass's own name has the network after it.
ORDER = "passes.txt"
FILES = sorted(path.name for path in GOLDEN.glob("*.txt"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """File name → content: one for each pass that changes something, their order, the layers read from it, and `main` once lowered."""
    folder = tmp_path_factory.mktemp("passes")
    network = prepared(two_blocks(), (1, 3, 9, 9), folder)
    found: dict[str, str] = {}
    last = ""
    for path in sorted(folder.glob("*.py")):
        text = normalised(path.read_text())
        if text != last:
            found[path.stem.partition("_")[2] + ".txt"] = text
        last = text
    found[ORDER] = "".join(f"{Path(name).stem}\n" for name in found)
    found["layers.txt"] = "".join(f"{node.layer.name}{' (alone)' if node.alone else ''}\n" for node in network.nodes)
    found["lowered_main.txt"] = normalised(lower(network, kernels_of(network))["main"].script(show_meta=False))
    if UPDATE:
        GOLDEN.mkdir(parents=True, exist_ok=True)
        for path in GOLDEN.glob("*.txt"):
            path.unlink()
        for name, text in found.items():
            (GOLDEN / name).write_text(text)
    return found


def normalised(text: str) -> str:
    """Return the text without the header, the remark about metadata, and spaces at line ends."""
    lines = [line.rstrip() for line in text.splitlines() if not line.lstrip().startswith("#")]
    return "\n".join(lines).strip() + "\n"


def test_the_same_passes_change_something(texts: dict[str, str]) -> None:
    assert sorted(texts) == sorted(path.name for path in GOLDEN.glob("*.txt"))


@pytest.mark.parametrize("name", FILES)
def test_after_each_pass(texts: dict[str, str], name: str) -> None:
    assert texts.get(name) == (GOLDEN / name).read_text()
