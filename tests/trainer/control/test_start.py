"""Which weights training goes on from after traffic has changed."""

from __future__ import annotations

import pytest

from aurora_trainer.control.start import better_start


@pytest.mark.parametrize(
    ("current", "others", "chosen"),
    [
        (0.3, {}, None),
        (0.3, {"stable": 0.25, "initial": 0.40}, "initial"),
        (0.3, {"stable": 0.45, "initial": 0.40}, "stable"),
        (0.3, {"stable": 0.31, "initial": 0.29}, None),
        (0.3, {"initial": 0.3201}, "initial"),
        (0.3, {"initial": 0.3199}, None),
    ],
)
def test_another_draft_must_be_clearly_better(current, others, chosen):
    assert better_start(current, others) == chosen
