"""When certificates are renewed, over the years."""

from datetime import UTC, datetime, timedelta

import pytest

from aurora_operator.domain.certificate import (
    COMPONENTS,
    LEAF_LIFETIME,
    OPERATOR,
    SPREADING,
    Step,
    Succession,
    Validity,
    admitted_names,
    dns_name,
    due_step,
    leaf_validity,
)
from aurora_operator.domain.manifest.spec import Metadata

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
YEAR = Validity(BEGIN, BEGIN + timedelta(days=365))


@pytest.mark.parametrize(
    ("days", "is_due"), [(0, False), (243, False), (244, True), (400, True), (-1, True)]
)
def test_two_thirds_of_a_life(days, is_due):
    assert YEAR.is_due(BEGIN + timedelta(days=days)) is is_due


def test_a_leaf_does_not_outlive_its_authority():
    assert leaf_validity(YEAR, BEGIN).end == BEGIN + LEAF_LIFETIME
    late = BEGIN + timedelta(days=360)
    assert leaf_validity(YEAR, late).end == YEAR.end
    assert leaf_validity(YEAR, late).begin < late


DUE = BEGIN + timedelta(days=250)


@pytest.mark.parametrize(
    ("succession", "followed", "now", "step"),
    [
        (None, False, BEGIN, Step.CREATE),
        (Succession(YEAR), True, BEGIN, Step.KEEP),
        (Succession(YEAR), False, BEGIN, Step.KEEP),
        (Succession(YEAR), True, DUE, Step.ADD_NEXT),
        (Succession(YEAR, has_next=True), False, DUE, Step.KEEP),
        (Succession(YEAR, has_next=True), True, DUE, Step.NOTE),
        (Succession(YEAR, has_next=True, since=DUE), True, DUE + SPREADING / 2, Step.KEEP),
        (Succession(YEAR, has_next=True, since=DUE), True, DUE + SPREADING, Step.SWITCH),
        (Succession(YEAR, has_next=True, since=DUE), False, DUE + SPREADING, Step.KEEP),
        (Succession(YEAR, has_previous=True), False, DUE, Step.KEEP),
        (Succession(YEAR, has_previous=True), True, DUE, Step.NOTE),
        (Succession(YEAR, has_previous=True, since=DUE), True, DUE + SPREADING / 2, Step.KEEP),
        (Succession(YEAR, has_previous=True, since=DUE), True, DUE + SPREADING, Step.RETIRE),
        (Succession(YEAR, has_next=True, since=DUE), True, YEAR.end, Step.CREATE),
    ],
)
def test_one_authority_follows_another(succession, followed, now, step):
    assert due_step(succession, followed=followed, now=now) is step


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        ("inference", "chat-inference.serving.svc"),
        ("buffer", "chat-buffer.serving.svc"),
        ("trainer", "chat-trainer.serving.svc"),
        (OPERATOR, "chat-operator.serving.svc"),
    ],
)
def test_each_has_one_name_with_its_namespace(peer, name):
    assert dns_name("chat", peer, namespace="serving") == name


@pytest.mark.parametrize(
    ("component", "names"),
    [
        ("inference", ("chat-operator.serving.svc",)),
        ("buffer", ("chat-inference.serving.svc", "chat-trainer.serving.svc")),
        ("trainer", ("chat-operator.serving.svc",)),
    ],
)
def test_only_peers_of_the_deployment_may_call(component, names):
    assert admitted_names(Metadata(name="chat", namespace="serving"), component) == names


def test_no_two_deployments_share_a_name():
    places = [
        (name, namespace)
        for name in ("chat", "chat-operator", "operator", "operator-operator")
        for namespace in ("serving", "svc", "operator")
    ]
    found = [
        dns_name(name, peer, namespace=namespace)
        for name, namespace in places
        for peer in (*COMPONENTS, OPERATOR)
    ]
    assert len(set(found)) == len(found)
