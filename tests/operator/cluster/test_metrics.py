"""What the operator's metrics say of all deployments."""

from dataclasses import replace
from datetime import UTC, datetime

from prometheus_client.parser import text_string_to_metric_families

from aurora_operator.cluster.metrics import Metrics
from aurora_operator.domain.status.deployment import Status, Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def body(name, *conditions, rollout=None, paused=False, spec=None):
    found = [dict(zip(("type", "status", "reason"), each, strict=True)) for each in conditions]
    status = {"conditions": found, "paused": paused}
    if rollout is not None:
        status["rollout"] = rollout
    return {"metadata": {"namespace": "a", "name": name}, "spec": spec or {}, "status": status}


def samples(metrics, name):
    """The values of a metric, by its labels' values in alphabetical order of the labels."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


def test_deployments_are_counted_by_condition_and_named_if_something_is_wrong():
    serving = ("Ready", "True", "Serving")
    bodies = [
        body("one", serving, ("Degraded", "False", "AsExpected")),
        body("two", serving, ("Degraded", "True", "ApplyRefused")),
        body("three", ("Ready", "False", "InferenceNotReady"), ("Degraded", "False", "AsExpected")),
        {"metadata": {"namespace": "a", "name": "new"}, "spec": {}},
    ]
    metrics = Metrics()
    metrics.follow_deployments(lambda: bodies)

    assert samples(metrics, "aurora_operator_deployments") == {(): 4}
    assert samples(metrics, "aurora_operator_conditions") == {
        ("Ready", "Serving", "True"): 2,
        ("Ready", "InferenceNotReady", "False"): 1,
        ("Degraded", "AsExpected", "False"): 2,
        ("Degraded", "ApplyRefused", "True"): 1,
    }
    assert samples(metrics, "aurora_operator_deployment_problem") == {
        ("Degraded", "two", "a", "ApplyRefused"): 1,
        ("Ready", "three", "a", "InferenceNotReady"): 1,
    }


def test_rollouts_in_progress_are_named_unless_paused():
    rollout = {"id": "chat-1", "state": "Pending"}
    bodies = [
        body("live", rollout=rollout),
        body("ended", rollout={"id": "chat-1", "state": "Promoted"}),
        body("paused", rollout=rollout, paused=True),
        body("paused-by-manifest", rollout=rollout, spec={"rollout": {"paused": True}}),
    ]
    metrics = Metrics()
    metrics.follow_deployments(lambda: bodies)

    found = samples(metrics, "aurora_operator_deployment_rollout")
    assert found == {("live", "a", "chat-1", "Pending"): 1}


def test_each_ended_rollout_is_counted_once_and_none_is_zero():
    def verdict(number, outcome):
        return Verdict(f"chat-{number}", "ckpt", "sha256:1", outcome, "", 0, 0, NOW)

    before = Status(history=(verdict(1, "Promoted"),))
    after = replace(before, history=(verdict(2, "RolledBack"), *before.history))
    metrics = Metrics()
    metrics.count_verdicts(before, after)
    metrics.count_verdicts(after, after)

    assert samples(metrics, "aurora_operator_rollouts_total") == {
        ("Promoted",): 0,
        ("RolledBack",): 1,
        ("Inconclusive",): 0,
        ("WouldPromote",): 0,
        ("WouldRollBack",): 0,
    }


def test_attempts_to_notify_are_counted_and_neither_result_is_missing():
    metrics = Metrics()
    assert samples(metrics, "aurora_operator_notifications_total") == {
        ("delivered",): 0,
        ("failed",): 0,
    }
    metrics.count_notification(False)
    metrics.count_notification(False)
    metrics.count_notification(True)
    assert samples(metrics, "aurora_operator_notifications_total") == {
        ("delivered",): 1,
        ("failed",): 2,
    }
