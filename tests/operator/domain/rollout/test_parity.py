"""When an engine accepts less of a draft than its weights predict."""

import pytest

from aurora_operator.domain.rollout.parity import Agreement, disparity


@pytest.mark.parametrize(
    ("requests", "tested", "accepted", "predicted", "variance", "is_found"),
    [
        # Never accepted: the fault that is reported most.
        (8, 256, 0, 140.0, 60.0, True),
        # Too little to say so.
        (7, 4000, 0, 2400.0, 900.0, False),
        (80, 255, 0, 140.0, 60.0, False),
        # Greedy requests are determined, up to ties: three points are let pass.
        (20, 1000, 600, 630.0, 0.0, False),
        (20, 1000, 600, 631.0, 0.0, True),
        # Four points, which chance may be: √240 = 15.5, and five times that is 77.
        (20, 1000, 560, 600.0, 240.0, False),
        (200, 10_000, 5_600, 6_000.0, 2_400.0, True),
        # More than predicted is none.
        (200, 10_000, 9_000, 6_000.0, 2_400.0, False),
    ],
)
def test_a_gap_is_found_if_chance_does_not_explain_it(
    requests, tested, accepted, predicted, variance, is_found
):
    found = disparity(Agreement("sha256:a", requests, tested, accepted, predicted, variance))

    assert (found is not None) == is_found


def test_it_names_both_rates_and_what_to_look_at():
    found = disparity(Agreement("sha256:a", 8, 400, 2, 250.0, 90.0))

    assert found is not None
    assert found.startswith("of 400 tokens that it drafted in 8 requests, 0.5% were accepted, and")
    assert "predict 62.5%" in found
    for cause in ("eagle_aux_hidden_state_layer_ids", "rope", "d2t", "dtype"):
        assert cause in found
