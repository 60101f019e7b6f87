from __future__ import annotations

import pytest

from aurora_client import (
    ArmCounters,
    BadRequestError,
    ConflictError,
    Counters,
    Draft,
    NgramCounters,
)
from aurora_client.testing import FakeServer

CANDIDATE = Draft("ckpt-2", "sha256:" + "2" * 64, "file:///models/ckpt-2")


def test_a_staged_draft_gets_traffic_and_is_promoted(driver):
    with FakeServer() as server:
        client = driver.client(server.address)
        driver.result(client.drafts.stage(CANDIDATE))
        driver.result(client.drafts.set_traffic(500, rollout_id="chat-2"))
        status = driver.result(client.status())
        assert (status.candidate, status.candidate_bps, status.rollout_id) == (
            CANDIDATE,
            500,
            "chat-2",
        )
        assert driver.result(client.drafts.promote(CANDIDATE.digest)) == 250e-6
        status = driver.result(client.status())
        assert (status.stable, status.candidate) == (CANDIDATE, None)


def test_a_draft_is_unstaged(driver):
    with FakeServer() as server:
        client = driver.client(server.address)
        driver.result(client.drafts.stage(CANDIDATE))
        driver.result(client.drafts.unstage())
        assert driver.result(client.status()).candidate is None


def test_another_candidate_is_not_promoted(driver):
    with FakeServer() as server:
        client = driver.client(server.address)
        with pytest.raises(ConflictError, match="the candidate is not"):
            driver.result(client.drafts.promote(CANDIDATE.digest))


def test_the_stable_slot_can_be_staged(driver):
    with FakeServer() as server:
        client = driver.client(server.address)
        driver.result(client.drafts.stage(CANDIDATE, slot="stable"))
        assert driver.result(client.status()).stable == CANDIDATE


def test_invalid_slots_and_shares_are_refused_locally(driver):
    with FakeServer() as server:
        client = driver.client(server.address)
        with pytest.raises(BadRequestError, match="slot"):
            driver.result(client.drafts.stage(CANDIDATE, slot="third"))
        with pytest.raises(BadRequestError, match="10001"):
            driver.result(client.drafts.set_traffic(10_001))
        assert server.calls == ()


def test_counters_are_passed_through(driver):
    arms = (ArmCounters("candidate", 1, 2, 3, 8, 6, 6),)
    counters = Counters("i", arms, 7, 8, 9, 10, NgramCounters(11, 16, 4))
    with FakeServer() as server:
        server.counters = counters
        received = driver.result(driver.client(server.address).counters())
    assert received == counters
    assert received.arms[0].acceptance_rate == 0.75
    assert received.arms[0].mean_acceptance_length == 3.0
    assert received.ngram.acceptance_rate == 0.25
