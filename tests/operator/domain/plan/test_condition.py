"""Who may send requests, and what tools ask that know conditions alone."""

from datetime import UTC, datetime

import pytest
from support.desired import SPECS, deployment

from aurora_operator.domain.plan.condition import conditions
from aurora_operator.domain.plan.observation import (
    ComponentView,
    Observation,
    Problem,
    ReplayBatch,
    Scale,
)
from aurora_operator.domain.rollout.parity import Agreement
from aurora_operator.domain.status.deployment import Status, Training

NOW = datetime(2026, 1, 1, tzinfo=UTC)
READY = ComponentView("inference", ready=True)
STARTING = ComponentView("inference", ready=False)


def scale(ready, wanted=1, updated=1):
    return Scale(wanted=wanted, replicas=wanted, ready=ready, updated=updated, selector="")


def found(observed, **security):
    """The conditions by their types."""
    made, status = deployment(security=security), Status()
    return {each.type: each for each in conditions(status, observed, now=NOW, deployment=made)}


@pytest.mark.parametrize(
    ("security", "guarded", "reason"),
    [
        ({}, False, "Unguarded"),
        ({"authSecretRef": {"name": "tokens"}}, True, "TokensRequired"),
        ({"clientPeers": [{"podSelector": {}}]}, True, "PeersLimited"),
    ],
)
def test_a_cluster_is_warned_of_open_ports(security, guarded, reason):
    condition = found(Observation(scale=scale(1)), **security)["ClientsGuarded"]

    assert (condition.status, condition.reason) == (guarded, reason)
    assert ("set security.authSecretRef or security.clientPeers" in condition.message) != guarded


def test_it_says_why_nothing_was_published_while_nothing_else_goes_on():
    trainer = Training("Training", NOW, 48, 60, withheld="too little is accepted")
    observed = Observation(components=(READY,))
    status = Status(trainer=trainer)
    progressing = next(
        each for each in conditions(status, observed, now=NOW) if each.type == "Progressing"
    )
    assert (progressing.status, progressing.reason) == (False, "Idle")
    assert progressing.message == "the last round published nothing: too little is accepted"
    assert found(observed)["Progressing"].message == ""


def test_a_draft_of_which_an_engine_accepts_less_than_its_weights_predict_is_named_once():
    agreements = (
        Agreement("sha256:a", 40, 1000, 600, 610.0, 200.0),
        Agreement("sha256:b", 40, 1000, 0, 610.0, 200.0),
    )
    batch = ReplayBatch("chat-0", agreements=agreements)
    degraded = found(Observation(components=(READY,), replay=batch, watch=batch))["Degraded"]

    assert (degraded.status, degraded.reason) == (True, "AcceptanceDisparity")
    assert degraded.message.startswith("draft sha256:b: of 1000 tokens that it drafted in 40 ")
    assert "sha256:a" not in degraded.message
    assert degraded.message.count("sha256:b") == 1


def test_one_machine_is_not():
    assert "ClientsGuarded" not in found(Observation(components=(READY,)))


def test_an_invalid_manifest_says_nothing_new_of_its_clients():
    observed = Observation(scale=scale(1))
    status = Status(conditions=tuple(found(observed).values()))

    after = conditions(status, observed, now=NOW)

    assert [each.type for each in after] == [each.type for each in status.conditions]


@pytest.mark.parametrize(
    ("observed", "reconciling", "stalled"),
    [
        (Observation(components=(READY,), scale=scale(1)), "", ""),
        (Observation(components=(STARTING,), scale=scale(0)), "ComponentsStarting", ""),
        (
            Observation(components=(READY,), scale=scale(1, updated=0)),
            "InferenceUpdating",
            "",
        ),
        # A failing trainer leaves what serves alone.
        (
            Observation(
                components=(READY, ComponentView("trainer", ready=False, failing=True)),
                scale=scale(1),
            ),
            "",
            "",
        ),
        (
            Observation(
                components=(ComponentView("inference", ready=False, failing=True),),
                scale=scale(0),
            ),
            "",
            "ComponentFailing",
        ),
        (
            Observation(
                components=(READY,),
                scale=scale(1),
                problems=(Problem("ApplyRefused", "a quota"),),
            ),
            "",
            "ApplyRefused",
        ),
    ],
)
def test_tools_learn_whether_it_gets_there(observed, reconciling, stalled):
    conditions = found(observed)

    for kind, reason in (("Reconciling", reconciling), ("Stalled", stalled)):
        condition = conditions[kind]
        assert condition.status == bool(reason)
        assert condition.reason == (reason or "AsExpected")


def test_an_inference_that_does_not_serve_says_why_itself():
    failing = ComponentView("inference", ready=False, failing=True, message="is not ready")
    observed = Observation(
        components=(failing,),
        expected=frozenset({"b"}),
        absences={
            "a": "answers UNAVAILABLE: the engine does not have Aurora's plugin",
            "b": "slow",
        },
    )

    message = found(observed)["Degraded"].message

    assert (
        "is not ready; a answers UNAVAILABLE: the engine does not have Aurora's plugin" in message
    )
    assert "slow" not in message


def test_an_attached_engine_that_is_not_there_is_named():
    failing = ComponentView("inference", ready=False, failing=True, message="no pod has app=vllm")
    none = Scale(wanted=0, replicas=0, ready=0, updated=0, selector="")

    ready = found(Observation(components=(failing,), scale=none))["Ready"]

    assert (ready.status, ready.reason) == (False, "InferenceNotReady")
    assert ready.message == "no pod has app=vllm"


def test_an_attached_engine_checks_its_clients_keys():
    made = deployment(**SPECS["attached"])
    observed = Observation(scale=scale(1))
    every = conditions(Status(), observed, now=NOW, deployment=made)

    (guarded,) = [each for each in every if each.type == "ClientsGuarded"]
    assert (guarded.status, guarded.reason) == (True, "EngineKeysRequired")
