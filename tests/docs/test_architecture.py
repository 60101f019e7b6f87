"""docs/architecture.md names places that exist, and stays short enough to be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = [ROOT, ROOT / "operator", ROOT / "kernels", *(ROOT / "services").iterdir()]
PAGES = ("docs/architecture.md", "CONTRIBUTING.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_place_exists(page):
    places = re.findall(r"`((?:aurora_\w+|\w+)/[\w./]+)`", (ROOT / page).read_text())

    assert len(places) > 20
    assert [place for place in places if not any((room / place).exists() for room in ROOMS)] == []


def test_it_is_short():
    assert len((ROOT / "docs/architecture.md").read_text().splitlines()) <= 150
