"""What is said of Certificates that cert-manager has not issued."""

from datetime import UTC, datetime, timedelta

import pytest

from aurora_operator.domain.objects.issuance import is_issued, issuance_problems

BEGIN = "2026-01-02T03:04:05Z"
LATER = datetime(2026, 1, 2, 3, 4, 15, tzinfo=UTC)
SOON = LATER - timedelta(seconds=1)
MISSING = "Issuing certificate as Secret does not exist"
FAILED = "The certificate request has failed: denied"


def condition(kind, status, message="", generation=2):
    return {
        "type": kind,
        "status": status,
        "message": message,
        "lastTransitionTime": BEGIN,
        "observedGeneration": generation,
    }


READY = condition("Ready", "True", "Certificate is up to date and has not expired")
UNREADY = condition("Ready", "False", MISSING)


def certificate(*conditions, name="chat-trainer-tls"):
    return {
        "metadata": {"name": name, "generation": 2, "creationTimestamp": BEGIN},
        "spec": {"issuerRef": {"kind": "ClusterIssuer", "name": "ours"}},
        "status": {"conditions": list(conditions)},
    }


def test_what_is_ready_is_issued():
    assert is_issued(certificate(READY))
    assert issuance_problems([certificate(READY)], LATER) == []


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        ((UNREADY,), MISSING),
        ((UNREADY, condition("Issuing", "True", "begun")), MISSING),
        ((UNREADY, condition("Issuing", "False", FAILED)), FAILED),
        ((READY, condition("Issuing", "False", FAILED)), FAILED),
        ((READY, condition("Issuing", "True", "renewal was due")), "renewal was due"),
        ((), "cert-manager reports nothing: is it running?"),
        (
            (condition("Ready", "True", "up to date", generation=1),),
            "cert-manager reports nothing: is it running?",
        ),
    ],
    ids=["no Secret", "begun", "failed", "not renewed", "being renewed", "nothing", "stale"],
)
def test_what_is_not_issued_is_named_with_its_issuer_and_what_is_said_of_it(conditions, reason):
    found = certificate(*conditions)

    assert not is_issued(found)
    assert issuance_problems([found], SOON) == []
    (problem,) = issuance_problems([found], LATER)
    assert problem.reason == "CertificateNotIssued"
    assert problem.message == f"ClusterIssuer ours has not issued chat-trainer-tls: {reason}"


def test_one_cause_is_told_once_for_all_that_it_holds_up():
    names = ("chat-trainer-tls", "chat-buffer-tls")

    (problem,) = issuance_problems([certificate(UNREADY, name=name) for name in names], LATER)

    assert problem.message == (
        f"ClusterIssuer ours has not issued chat-buffer-tls, chat-trainer-tls: {MISSING}"
    )


def test_a_certificate_that_nobody_has_looked_at_has_no_status():
    found = certificate()
    del found["status"]

    assert not is_issued(found)
    assert len(issuance_problems([found], LATER)) == 1


def test_what_was_asked_for_anew_is_given_its_time():
    stale = certificate(condition("Ready", "True", "up to date", generation=1))
    stale["metadata"]["managedFields"] = [
        {"operation": "Apply", "time": "2026-01-02T03:04:10Z"},
        {"operation": "Update", "time": "2026-01-02T03:04:30Z"},
    ]
    assert issuance_problems([stale], LATER) == []
    assert issuance_problems([stale], LATER + timedelta(seconds=5)) != []
