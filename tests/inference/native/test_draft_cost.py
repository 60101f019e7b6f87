"""What a step takes with each draft, measured apart from the others in its batch."""

import pytest
import torch

from aurora_inference.contract import Cursor, Request, Sampling
from aurora_inference.native.draft_cost import DraftCosts, OwnTime
from aurora_inference.native.runner.drafter.standalone import StandaloneDrafter
from aurora_model.weights import load_decoder

# Of one row, and of another draft's.
ROWS = ["stable", "candidate"]


def step(costs, *, stable=0.01, candidate=0.03, digests=ROWS, lengths=(4, 4), target=0.1):
    """The times of a step's rows."""
    drafting = {"stable": stable, "candidate": candidate}
    drafting = {digest: each for digest, each in drafting.items() if digest in digests}
    found = costs.measured(
        list(digests),
        list(lengths),
        drafting=drafting,
        seconds=target + sum(drafting.values()),
        stable="stable",
    )
    return [
        (
            pytest.approx(each.alone),
            None if each.with_stable is None else pytest.approx(each.with_stable),
        )
        for each in found
    ]


def test_each_row_has_the_step_without_the_other_s_proposal():
    costs = DraftCosts()
    step(costs)
    step(costs)
    assert step(costs) == [(0.11, None), (0.13, 0.11)]


def test_two_drafts_are_compared_at_the_same_rows_and_tokens_alone():
    costs = DraftCosts()
    for _ in range(3):
        step(costs, digests=["stable"], lengths=[4])
        step(costs, digests=["candidate"] * 2, lengths=[4, 4])
        step(costs, digests=["candidate"], lengths=[2])
        found = step(costs, digests=["candidate"], lengths=[4])
    assert found == [(0.13, 0.11)]
    assert step(costs, digests=["candidate"] * 2, lengths=[4, 4]) == [(0.13, None)] * 2
    assert step(costs, digests=["candidate"], lengths=[2]) == [(0.13, None)]


def test_the_first_of_a_shape_prepares_it_and_does_not_count():
    costs = DraftCosts()
    step(costs, stable=5.0, candidate=5.0)
    assert step(costs) == [(0.11, None), (0.13, 0.11)]


def test_a_row_without_a_draft_pays_for_none():
    costs = DraftCosts()
    assert step(costs, digests=[None, "candidate"], lengths=[0, 4])[0] == (0.1, None)


def test_drafts_that_left_are_forgotten():
    costs = DraftCosts()
    for _ in range(3):
        step(costs)
    costs.forget_all_but({"candidate"})
    assert step(costs)[1] == (0.13, None)


def test_one_stall_does_not_make_a_draft_slow():
    costs, time = DraftCosts(), OwnTime()
    for _ in range(100):
        step(costs, candidate=0.01)
    drafting = {"stable": 0.01, "candidate": 50.0}
    times = costs.measured(ROWS, [4, 4], drafting=drafting, seconds=50.11, stable="stable")
    time.add(list(times)[1])
    assert time.compared == pytest.approx(4 * time.with_stable)


class Slowed(StandaloneDrafter):
    """The same weights and more work: each forward pass is made six times."""

    def _next_logits(self, tokens, starts):
        for _ in range(5):
            super()._next_logits(tokens, starts)
        return super()._next_logits(tokens, starts)


@pytest.mark.parametrize("max_batch", [1, 8])
def test_a_slowed_draft_of_equal_weights_is_told_by_its_steps(
    make_engine, model_folders, max_batch
):
    """Its steps cost more, its acceptance is the same; the other arm does not pay for it."""
    harness = make_engine(draft="good", max_batch=max_batch)
    engine = harness.engine
    decoder = load_decoder(model_folders["good"], dtype=torch.float32)
    engine.stage(
        "candidate", Slowed("slowed", "sha256:slowed", decoder, engine.runner.drafter_room)
    )
    engine.slots.split("r1", 5000)
    harness.run(
        *(
            Request(f"r{number}", (5, 6, 7 + number), 24, Sampling(0.0), ignore_eos=True)
            for number in range(48)
        )
    )
    page = engine.slots.outcomes.page("r1", Cursor("", 0), 1000)
    served = {arm: [each.served for each in page.outcomes if each.arm == arm] for arm in ROWS}
    ratios = sorted(
        each.step_time_us / each.stable_step_time_us
        for each in served["candidate"]
        if each.stable_step_time_us
    )
    assert len(ratios) >= 8
    assert ratios[len(ratios) // 2] > 1.1
    assert all(each.stable_step_time_us == 0 for each in served["stable"])
    arms = engine.counters().arms
    per_token = {arm: arms[arm].drafting_seconds / arms[arm].drafted_tokens for arm in ROWS}
    assert per_token["candidate"] > 2 * per_token["stable"]
