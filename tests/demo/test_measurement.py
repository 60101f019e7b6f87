"""The demo's figures follow from what was measured, and are absent otherwise."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from aurora_demo.measurement import (
    Canary,
    Measurement,
    ServedBlock,
    ServedRequest,
    figures,
    rolling_acceptance,
)
from aurora_demo.report import page, picture
from aurora_demo.scenario import Phase, Scenario, planned_blocks

SIZE = 4
SCENARIO = Scenario(
    (Phase("A", "python", 1), Phase("B", "logs", 4), Phase("C", "logs", 9, sides=("adapted",))),
    requests_per_block=SIZE,
)


def _block(side: str, number: int, rate: float, *, training: float = 0.0) -> ServedBlock:
    seconds = 100 / rate
    return ServedBlock(side, number, 0 if number < 1 else 1, 100, seconds, training * seconds)


def _request(side: str, number: int, *, accepted: int = 2, failed: bool = False) -> ServedRequest:
    return ServedRequest(side, number, "draft", "stable", 8, 0.1, 4, accepted, failed=failed)


def _measurement(*, promoted: bool = True) -> Measurement:
    blocks = [
        *(_block("static", number, 100) for number in range(5)),
        _block("adapted", 0, 100),
        _block("adapted", 1, 50, training=1.0),
        _block("adapted", 2, 250),
        _block("adapted", 3, 300),
        _block("adapted", 4, 350),
    ]
    requests = [
        _request(side, number) for side in ("static", "adapted") for number in range(5 * SIZE)
    ]
    outcome = "Promoted" if promoted else "Inconclusive"
    return Measurement(
        requests=(*requests, _request("static", 99, failed=True)),
        blocks=tuple(blocks),
        canaries=(Canary("a-1", "ckpt-1", outcome, "ReplayBetter", 24, 900, 310, 60, 2, 5),),
        shift_phase=1,
        requests_per_block=SIZE,
    )


def test_adapted_counts_from_the_block_after_the_first_promotion() -> None:
    found = figures(_measurement())
    assert found["adapted_over_static"].value == pytest.approx(3.0)
    assert found["promotions"].value == 1
    assert found["refusals"].value == 0
    assert found["failed_requests"].value == 1


def test_net_charges_all_training_to_the_adapted_side() -> None:
    seconds = 100 / 50 + 100 / 250 + 100 / 300 + 100 / 350
    net = 400 / seconds / 100
    assert figures(_measurement())["adapted_over_static_net"].value == pytest.approx(net)


def test_without_a_promotion_there_is_no_ratio() -> None:
    found = figures(_measurement(promoted=False))
    assert "adapted_over_static" not in found
    assert found["refusals"].value == 1


def test_acceptance_is_of_the_window_up_to_each_request() -> None:
    requests = [_request("static", n, accepted=a) for n, a in ((1, 4), (0, 0), (2, 4))]
    assert rolling_acceptance(requests, 2) == ([0, 1, 2], [0.0, 0.5, 1.0])


def test_sides_take_turns_at_going_first() -> None:
    alone = Phase("C", "logs", 1, sides=("adapted",))
    phases = (Phase("A", "python", 2), Phase("B", "logs", 1), alone)
    blocks = planned_blocks(phases)
    assert [block.order[0] for block in blocks] == ["static", "adapted", "static", "adapted"]
    assert [len(block.order) for block in blocks] == [2, 2, 2, 1]
    assert [block.phase for block in blocks] == [0, 0, 1, 2]
    assert Scenario(phases, requests_per_block=SIZE).requests == 7 * SIZE


def test_the_report_needs_nothing_else_and_escapes_what_it_shows() -> None:
    measured = _measurement()
    text = page(SCENARIO, measured, figures(measured), ["a <note>"])
    assert "3.00×" in text
    assert "a &lt;note&gt;" in text
    assert "src=" not in text
    assert "<script" not in text
    assert picture(SCENARIO, measured, kind="png").startswith(b"\x89PNG")


def test_each_candidates_evidence_is_drawn_to_its_threshold() -> None:
    seen = Canary("a-1", "ckpt-1", "Promoted", "ReplayBetter", 24, 900, 310, 60, 2, 5)
    drawn = replace(seen, saved_ci_bps=(40, 580), evidence=(-0.5, 2.0, 5.0), threshold=4.6)
    measured = replace(_measurement(), canaries=(drawn, replace(seen, id="a-2")))
    text = page(SCENARIO, measured, figures(measured), [])
    assert "+3.1% (+0.4 to +5.8)" in text
    (line,) = re.findall(r'<svg class="line".*?</svg>', text)
    assert "<title>log E 5.00, promoted at 4.60</title>" in line
    # The last one is at the top, above the threshold; the first below 0, at the bottom.
    assert 'points="0,24.6 40.0,27.0 80.0,15.2 120.0,1.0"' in line
    assert 'y1="2.9"' in line
