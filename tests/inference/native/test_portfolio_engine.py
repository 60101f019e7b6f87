"""Drafts retained beside the slots: who drafts for what, and that no token depends on it."""

from __future__ import annotations

import random

import pytest

from aurora_common.errors import ConflictError
from aurora_inference.contract import Cursor, DraftReference, Request, Sampling
from aurora_inference.slots.slots import MAX_RETAINED

GREEDY = Sampling(temperature=0.0)
GOOD, RANDOM, BAD = "sha256:good", "sha256:random", "sha256:bad"


def requests(count: int, *, domain: str = "a", tokens: int = 40, seed: int = 0) -> list[Request]:
    draws = random.Random(f"{domain}{seed}")
    return [
        Request(
            id=f"{domain}{seed}-{number}",
            prompt_tokens=tuple(draws.randrange(3, 96) for _ in range(draws.randint(2, 40))),
            max_tokens=tokens,
            sampling=GREEDY,
            ignore_eos=True,
            domain=domain,
        )
        for number in range(count)
    ]


@pytest.fixture
def promoted(make_engine, make_draft):
    """The initial draft was good for domain a; one that is bad there was promoted since."""
    harness = make_engine(draft="good")
    harness.run(*requests(6))
    engine = harness.engine
    assert engine.stage_resident("retained", DraftReference("good", GOOD, "file:///good"))
    engine.stage("candidate", make_draft("random", engine))
    engine.promote(RANDOM)
    return harness


def served(harness, *batch: Request) -> list[tuple[str, float]]:
    """The draft that each request began with, and its acceptance."""
    harness.run(*batch)
    reports = [harness.last[each.id].report for each in batch]
    return [
        (each.draft_digest, each.accepted_tokens / max(each.drafted_tokens, 1)) for each in reports
    ]


def mislead(harness) -> None:
    """The record of domain a says that all of the random draft's tokens were accepted."""
    for _ in range(60):
        trial = harness.engine.portfolio.begin(
            "a", [RANDOM], max_tokens=9, explore=False, bounded=True
        )
        harness.engine.portfolio.observe(trial, 4, 4, 5)


def test_a_domain_that_returns_finds_its_draft_at_once(promoted):
    ((digest, acceptance),) = served(promoted, *requests(1, seed=1))
    assert digest == GOOD
    assert acceptance > 0.7


def test_a_domain_without_a_record_begins_with_the_stable_draft(promoted):
    ((digest, acceptance),) = served(promoted, *requests(1, domain="b"))
    assert digest == RANDOM
    assert acceptance < 0.3


def test_a_request_changes_to_the_draft_that_is_better_for_it(promoted):
    """The stable draft is thought to be best, until it is measured."""
    mislead(promoted)
    (request,) = requests(1, seed=2, tokens=120)
    ((digest, _),) = served(promoted, request)
    assert digest == RANDOM
    steps = promoted.completions[-1].steps
    assert steps[0].draft_digest == ""
    assert steps[-1].draft_digest == GOOD
    late = [step for step in steps if step.draft_digest == GOOD]
    assert sum(step.accepted for step in late) > 0.7 * sum(step.drafted for step in late)


def test_no_token_depends_on_who_drafts(make_engine, promoted):
    """Requests change their drafts and end beside each other."""
    mislead(promoted)
    batch = [*requests(10, domain="a", seed=3), *requests(6, domain="b", seed=3)]
    random.Random(0).shuffle(batch)
    assert promoted.run(*batch) == make_engine(draft=None).run(*batch)
    assert any(step.draft_digest for each in promoted.completions for step in each.steps)


def test_the_arm_is_drawn_before_the_draft(promoted, make_draft):
    engine = promoted.engine
    engine.stage("candidate", make_draft("bad", engine))
    engine.slots.split("r1", 5000)
    batch = requests(40, seed=4, tokens=8)
    drafts = dict(zip((each.id for each in batch), served(promoted, *batch), strict=True))
    page = engine.slots.outcomes.page("r1", Cursor("", 0), 100)
    assert len(page.outcomes) == 40
    assert {each.stable_digest for each in page.outcomes} == {RANDOM}
    arms = [promoted.last[each.id].report.arm for each in batch]
    assert {"stable", "candidate"} == set(arms)
    for request, arm in zip(batch, arms, strict=True):
        assert drafts[request.id][0] == (GOOD if arm == "stable" else BAD)


def test_what_is_released_serves_no_new_request(promoted):
    engine = promoted.engine
    (running,) = requests(1, seed=5)
    engine.submit(running)
    promoted.step()
    engine.release(GOOD)
    assert engine.status().retained == ()
    assert served(promoted, *requests(1, seed=6))[0][0] == RANDOM
    while not engine.idle:
        promoted.step()
    assert promoted.last[running.id].report.draft_digest == GOOD


def test_a_retained_draft_that_fails_costs_its_request_its_drafts_and_is_not_chosen_again(
    promoted, monkeypatch
):
    def fails(count, sampler):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(promoted.engine._drafters[GOOD], "propose", fails)
    batch = requests(2, seed=7)
    assert served(promoted, batch[0])[0][0] == GOOD
    assert served(promoted, batch[1])[0][0] == RANDOM


def test_the_status_says_who_serves_how_much(promoted):
    promoted.run(*requests(4, seed=8))
    (retained,) = promoted.engine.status().retained
    assert (retained.draft.digest, retained.draft.uri) == (GOOD, "file:///good")
    assert 9000 <= retained.share_bps <= 10_000


def test_only_so_many_are_retained(promoted):
    for number in range(MAX_RETAINED - 1):
        promoted.engine.slots.stage("retained", DraftReference("x", f"sha256:{number}"))
    with pytest.raises(ConflictError, match="release one first"):
        promoted.engine.slots.stage("retained", DraftReference("x", "sha256:x"))
