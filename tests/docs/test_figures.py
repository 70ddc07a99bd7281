"""Tables and pages of figures are made from JSON files; `TVMMOBILE_UPDATE_GOLDEN=1 ./scripts/test tests/docs` writes them anew."""

from __future__ import annotations

import os
import re

import pytest
from document_blocks import BLOCKS, PAGES, REPOSITORY

UPDATE = bool(os.environ.get("TVMMOBILE_UPDATE_GOLDEN"))


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_what_their_script_makes_of_the_json(page: str) -> None:
    path = REPOSITORY / page
    if UPDATE:
        path.write_text(PAGES[page](), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == PAGES[page]()


@pytest.mark.parametrize(("document", "name"), [(document, name) for document, blocks in BLOCKS.items() for name in blocks])
def test_blocks_are_made_from_json(document: str, name: str) -> None:
    path = REPOSITORY / document
    text = path.read_text(encoding="utf-8")
    made = f"<!-- figures: {name} -->\n{BLOCKS[document][name]()}\n<!-- end -->"
    pattern = re.compile(rf"<!-- figures: {name} -->\n.*?<!-- end -->", re.DOTALL)
    (found,) = pattern.findall(text)
    if UPDATE:
        path.write_text(pattern.sub(lambda _: made, text), encoding="utf-8")
        return
    assert found == made
