"""Which draft a verify step is counted for."""

from __future__ import annotations

import pytest

from aurora_inference.contract import Cursor
from aurora_inference.gateway.answer import Report
from aurora_inference.gateway.ledger import Ledger, Serving
from aurora_inference.gateway.pair import Block
from aurora_inference.slots.outcome_log import OutcomeLog

STABLE, CANDIDATE = Serving("stable", "s", "sha256:s"), Serving("candidate", "c", "sha256:c")
FIRST, SECOND = (
    Block("r", 1, arm, 5000, "sha256:a", "sha256:b") for arm in ("stable", "candidate")
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(clock):
    log = OutcomeLog("instance")
    log.follow("r")
    return Ledger(log, clock=clock, serving=STABLE)


def ended(ledger, request, *steps, tokens=9, reason="length"):
    served = []
    ledger.end(request, Report((1,), (), tokens, reason, steps), served.append)
    return served


def drafted(ledger, arm):
    counts = ledger.arms[arm]
    return counts.verify_steps, counts.drafted_tokens, counts.accepted_tokens


def outcomes(ledger):
    return ledger.outcomes.page("r", Cursor("", 0), 100).outcomes


def test_steps_before_a_switch_are_the_former_drafts(ledger):
    request = ledger.begin("a")
    ledger.switching()
    ledger.switched(CANDIDATE, {"a": 2}, None)
    (report,) = ended(ledger, request, (4, 4), (4, 3), (4, 1), (2, 0))
    assert drafted(ledger, "stable") == (2, 8, 7)
    assert drafted(ledger, "candidate") == (2, 6, 1)
    assert ledger.arms["candidate"].accepted_per_position == [1]
    assert (report.arm, report.draft_digest, report.steps) == ("stable", "sha256:s", 4)
    assert (report.drafted_tokens, report.accepted_tokens) == (14, 8)
    assert report.own_steps == 2


def test_several_switches_divide_a_request(ledger):
    request = ledger.begin("a")
    for serving, done in ((CANDIDATE, 1), (STABLE, 3), (CANDIDATE, 3)):
        ledger.switched(serving, {"a": done}, None)
    ended(ledger, request, (1, 1), (2, 2), (2, 1), (8, 8))
    assert drafted(ledger, "stable") == (1, 1, 1)
    assert drafted(ledger, "candidate") == (3, 12, 11)


def test_a_request_that_had_not_begun_is_the_new_drafts(ledger):
    request = ledger.begin("a")
    ledger.switched(CANDIDATE, {}, None)
    (report,) = ended(ledger, request, (4, 2))
    assert report.arm == "candidate"
    assert ledger.arms["candidate"].requests == 1
    assert ledger.arms["stable"].requests == 0


def test_a_request_that_ends_while_a_switch_is_under_way_is_counted_once_it_is_known(ledger):
    both, former = ledger.begin("both"), ledger.begin("former")
    ledger.switching()
    assert not ended(ledger, both, (4, 4), (4, 0))
    assert not ended(ledger, former, (4, 4))
    served = []
    ledger.end(ledger.begin("late"), Report(), served.append)
    ledger.switched(CANDIDATE, {"both": 1}, None)
    assert drafted(ledger, "stable") == (2, 8, 8)
    assert drafted(ledger, "candidate") == (1, 4, 0)
    assert len(served) == 1


def test_a_request_answered_only_after_the_switch_was_asked_for_is_the_new_drafts(ledger, clock):
    before, after = ledger.begin("before"), ledger.begin("after")
    before.arrived(clock.now)
    clock.now += 1
    ledger.switching()
    after.arrived(clock.now)
    ledger.switched(CANDIDATE, {}, None)
    ended(ledger, after, (4, 2))
    ended(ledger, before, (4, 3))
    assert drafted(ledger, "candidate") == (1, 4, 2)
    assert drafted(ledger, "stable") == (1, 4, 3)


def test_a_failed_switch_changes_nothing(ledger):
    request = ledger.begin("a")
    ledger.switching()
    ended(ledger, request, (4, 4))
    ledger.switched(None, {}, None)
    assert ledger.serving == STABLE
    assert drafted(ledger, "stable") == (1, 4, 4)


def test_steps_of_which_a_grammar_ruled_out_the_draft_count_as_in_vllm(ledger):
    ended(ledger, ledger.begin("a"), (0, 0), (4, 1), tokens=5)
    assert drafted(ledger, "stable") == (2, 4, 1)
    assert ledger.arms["stable"].output_tokens == 5


def test_unreported_failed_and_refused_requests(ledger):
    ledger.end(ledger.begin("gone"), Report(), lambda _: None)
    ended(ledger, ledger.begin("failed"), reason="error")
    ledger.withdraw(ledger.begin("refused"))
    counts = ledger.arms["stable"]
    assert (counts.requests, counts.failed_requests, ledger.unreported_requests) == (2, 1, 1)
    assert ledger.running == 0


def test_a_pairs_evidence_is_of_requests_begun_in_its_blocks_and_cut_at_the_switch(ledger, clock):
    ledger.block = FIRST
    crossing, within = ledger.begin("crossing"), ledger.begin("within")
    clock.now += 0.5
    within.arrived(100.5)
    within.arrived(101.3)
    ended(ledger, within, (4, 2), tokens=5)
    ledger.switched(CANDIDATE, {"crossing": 1}, SECOND)
    failed = ledger.begin("failed")
    ended(ledger, failed, (4, 3), reason="error")
    ledger.close_pair(SECOND)
    assert not outcomes(ledger)
    ended(ledger, crossing, (4, 4), (4, 0))

    stable, candidate = outcomes(ledger)
    assert (stable.arm, stable.pair, stable.requests) == ("stable", 1, 2)
    assert (stable.served.drafted_tokens, stable.served.accepted_tokens) == (8, 6)
    assert stable.failed_requests == 0
    assert stable.served.time_per_output_token_us == pytest.approx(200_000, abs=1)
    assert (candidate.arm, candidate.pair, candidate.requests) == ("candidate", 1, 1)
    assert (candidate.served.drafted_tokens, candidate.served.accepted_tokens) == (4, 3)
    assert (candidate.failed_requests, candidate.ending) == (1, "failed")
    assert stable.served.time_to_first_token_us == pytest.approx(500_000, abs=1)
    assert candidate.served.time_per_output_token_us == 0
    assert candidate.served.time_to_first_token_us == 0
    assert [one.sequence for one in (stable, candidate)] == [1, 2]


def test_a_request_that_begins_only_in_the_next_block_is_that_ones(ledger):
    ledger.block = FIRST
    ended(ledger, ledger.begin("a"), (4, 1))
    waiting = ledger.begin("waiting")
    ledger.switched(CANDIDATE, {}, SECOND)
    ended(ledger, waiting, (4, 4))
    ledger.close_pair(SECOND)
    stable, candidate = outcomes(ledger)
    assert (stable.requests, candidate.requests) == (1, 1)
    assert candidate.served.accepted_tokens == 4


def test_a_discarded_pair_and_one_without_an_arm_are_no_evidence(ledger):
    ledger.block = FIRST
    request = ledger.begin("a")
    ledger.discard_pair(FIRST)
    ended(ledger, request, (4, 1))
    ledger.close_pair(FIRST)
    ledger.block = Block("r", 2, "stable", 5000, "sha256:a", "sha256:b")
    ended(ledger, ledger.begin("b"), (4, 1))
    ledger.close_pair(ledger.block)
    assert not outcomes(ledger)
