"""Pages that say how to run Aurora stay short, and link to what exists."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
LINES = {
    "lifecycle.md": 120,
    "gitops.md": 150,
    "sizing.md": 120,
    "networking.md": 120,
    "learning.md": 150,
    "gpu.md": 120,
}


@pytest.mark.parametrize("page", LINES)
def test_it_is_short(page):
    assert len((DOCS / page).read_text().splitlines()) <= LINES[page]


@pytest.mark.parametrize("page", LINES)
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", (DOCS / page).read_text())
    assert [link for link in links if not (DOCS / link).exists()] == []
