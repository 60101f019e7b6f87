from __future__ import annotations

import threading

import pytest

from aurora_client import (
    BadResponseError,
    Component,
    Condition,
    ConflictError,
    DeadlineExceededError,
    Evidence,
    PastRollout,
    PublishedDraft,
    Retry,
    Rollout,
    RolloutState,
    ServedDraft,
    Timeout,
    UnavailableError,
)
from aurora_client._status_json import parse_status
from aurora_client.testing import FakeServer
from aurora_client.testing._book import fail
from aurora_client.testing._operator import FakeOperator

STATUS = {
    "observedGeneration": 7,
    "stable": {"checkpoint": "ckpt-41", "digest": "sha256:41", "acceptanceBps": 6120},
    "rollout": {
        "id": "chat-42",
        "candidate": {"checkpoint": "ckpt-42", "digest": "sha256:42", "trainedThrough": "17-0"},
        "state": "Analyzing",
        "step": 1,
        "plan": {"stepsPercent": [5, 20, 50]},
        "evidence": {
            "requests": 1412,
            "logE": "3.91",
            "logHarm": "-2.5",
            "threshold": "4.61",
            "effectBps": 182,
            "ciBps": [-12, 371],
        },
    },
    "queue": {"sequence": 43, "waiting": {"checkpoint": "ckpt-43", "digest": "sha256:43"}},
    "paused": True,
    "history": [
        {
            "id": "chat-41",
            "checkpoint": "ckpt-40",
            "outcome": "RolledBack",
            "reason": "Aborted",
            "effectBps": -40,
            "requests": 300,
            "at": "2026-01-02T03:04:05Z",
        }
    ],
    "conditions": [{"type": "Ready", "status": "True", "reason": "Up", "message": "all"}],
}
COMPONENT = Component("trainer", None, False, 2, "127.0.0.1:9", "/log", "no target")


def test_a_deployment_is_read_completely(driver):
    with FakeServer() as server:
        server.show(STATUS, [COMPONENT])
        deployment = driver.result(driver.operator(server.address).status())
    assert deployment.stable == ServedDraft(
        checkpoint="ckpt-41", digest="sha256:41", acceptance_bps=6120
    )
    assert deployment.rollout == Rollout(
        id="chat-42",
        state="Analyzing",
        candidate=ServedDraft(checkpoint="ckpt-42", digest="sha256:42", trained_through="17-0"),
        step=1,
        steps_percent=(5, 20, 50),
        evidence=Evidence(
            requests=1412,
            log_e=3.91,
            log_harm=-2.5,
            threshold=4.61,
            effect_bps=182,
            interval_bps=(-12, 371),
        ),
    )
    assert deployment.queued == ServedDraft(checkpoint="ckpt-43", digest="sha256:43")
    assert deployment.is_paused
    assert deployment.history == (
        PastRollout(
            id="chat-41",
            outcome="RolledBack",
            checkpoint="ckpt-40",
            reason="Aborted",
            requests=300,
            effect_bps=-40,
            at="2026-01-02T03:04:05Z",
        ),
    )
    assert deployment.conditions == (
        Condition(type="Ready", status="True", reason="Up", message="all"),
    )
    assert deployment.components == (COMPONENT,)


def test_an_empty_status_has_nothing():
    status = parse_status("")
    assert (status.stable, status.rollout, status.history, status.paused) == (
        None,
        None,
        (),
        False,
    )


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[1", "JSON"),
        ("[]", "status"),
        ('{"stable": 3}', "stable"),
        ('{"stable": {"checkpoint": 3}}', "checkpoint"),
        ('{"rollout": {"step": true}}', "step"),
        ('{"rollout": {"evidence": {"logE": "high"}}}', "logE"),
        ('{"rollout": {"evidence": {"logE": []}}}', "logE"),
        ('{"rollout": {"evidence": {"ciBps": [1]}}}', "ciBps"),
        ('{"rollout": {"plan": {"stepsPercent": 5}}}', "stepsPercent"),
        ('{"history": {}}', "history"),
    ],
)
def test_a_status_of_another_shape_is_refused_by_field(text, field):
    with pytest.raises(BadResponseError, match=field):
        parse_status(text)


def test_a_watch_shows_each_change_once(driver):
    with FakeServer() as server:
        watch = driver.operator(server.address).watch()
        assert driver.next(watch).rollout is None
        server.show(STATUS)
        assert driver.next(watch).rollout.id == "chat-42"
        driver.close_stream(watch)


def test_a_watch_outlives_its_calls(driver, monkeypatch):
    def brief(self, request, context):
        self._book.enter("WatchDeployment", context)
        yield self._deployment
        fail(context, DeadlineExceededError("as the client's own deadline would end it"))

    monkeypatch.setattr(FakeOperator, "WatchDeployment", brief)
    with FakeServer() as server:
        watch = driver.operator(server.address).watch()
        driver.next(watch)

        def show_once_renewed() -> None:
            server.wait_for(lambda: server.calls.count("WatchDeployment") >= 3)
            server.show(STATUS)

        thread = threading.Thread(target=show_once_renewed)
        thread.start()
        # What the renewed calls repeat is not yielded again.
        assert driver.next(watch).rollout.id == "chat-42"
        thread.join()
        driver.close_stream(watch)


def test_a_watch_of_a_silent_server_ends(driver, monkeypatch):
    def silent(self, request, context):
        self._book.enter("WatchDeployment", context)
        self._wait_for_another(self._deployment, context)
        return iter(())

    monkeypatch.setattr(FakeOperator, "WatchDeployment", silent)
    with FakeServer() as server:
        operator = driver.operator(server.address, timeout=Timeout(watch_seconds=0.1))
        with pytest.raises(DeadlineExceededError):
            driver.next(operator.watch())


@pytest.mark.parametrize(
    ("command", "state"),
    [
        ("pause", "Paused"),
        ("resume", "Analyzing"),
        ("abort", "RolledBack"),
        ("promote", "Promoting"),
    ],
)
def test_a_command_reaches_the_rollout(driver, command, state):
    with FakeServer() as server:
        server.show(STATUS)
        rollout = driver.operator(server.address).rollout
        assert driver.result(getattr(rollout, command)()) == RolloutState("chat-42", state)
        assert server.commands == ((command, "chat-42"),)


def test_a_command_without_a_rollout_is_a_conflict(driver):
    with FakeServer() as server, pytest.raises(ConflictError, match="no rollout"):
        driver.result(driver.operator(server.address).rollout.abort())


@pytest.mark.parametrize(("rollout_id", "attempts"), [("", 1), ("chat-42", 2)])
def test_a_command_is_retried_only_if_it_names_its_rollout(driver, rollout_id, attempts):
    with FakeServer() as server:
        server.show(STATUS)
        server.fail(UnavailableError("lost"))
        operator = driver.operator(server.address, retry=Retry(retries=1, initial_seconds=0))
        if attempts == 1:
            with pytest.raises(UnavailableError):
                driver.result(operator.rollout.abort(rollout_id))
        else:
            driver.result(operator.rollout.abort(rollout_id))
        assert server.calls == ("CommandRollout",) * attempts


def test_drafts_are_passed_through(driver):
    drafts = (
        PublishedDraft("ckpt-2", "sha256:2", "sha256:1", "17-0", "candidate", "", 5, 0.5),
        PublishedDraft("ckpt-1", "sha256:1", "", "16-0", "stable", "Promoted", 4, 0.25),
    )
    with FakeServer() as server:
        server.drafts = drafts
        assert driver.result(driver.operator(server.address).drafts()) == drafts
