"""A claim template stays as it is, and the claim made from it grows."""

import pytest

from aurora_operator.domain.objects.drift import needs_apply, stamped
from aurora_operator.domain.objects.volume import Growth, growth_cause, growths, with_live_claims


def stateful_set(storage):
    template = {
        "metadata": {"name": "redis"},
        "spec": {"resources": {"requests": {"storage": storage}}},
    }
    return {
        "kind": "StatefulSet",
        "metadata": {"name": "chat-buffer"},
        "spec": {"volumeClaimTemplates": [template]},
    }


def test_a_larger_size_leaves_the_template():
    live = stamped(stateful_set("1Gi"))
    desired = stamped(stateful_set("2Gi"))
    kept = with_live_claims(desired, live)
    assert kept["spec"] == live["spec"]
    assert needs_apply(kept, live)
    assert not needs_apply(kept, {**live, "metadata": kept["metadata"]})
    assert growths(desired, live) == [Growth("redis-chat-buffer-0", "2Gi")]


@pytest.mark.parametrize("size", ["1Gi", "1024Mi", "1073741824", "512Mi"])
def test_a_size_that_is_no_larger_is_no_growth(size):
    assert growths(stateful_set(size), stateful_set("1Gi")) == []


def test_what_has_no_claims_stays():
    desired = {"kind": "ServiceAccount", "metadata": {"name": "chat"}}
    assert with_live_claims(desired, desired) is desired
    assert growths(desired, desired) == []


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"capacity": {"storage": "2Gi"}}, ""),
        ({"capacity": {"storage": "3Gi"}}, ""),
        ({"capacity": {"storage": "1Gi"}}, "not enlarged yet"),
        (
            {
                "capacity": {"storage": "1Gi"},
                "conditions": [{"type": "FileSystemResizePending", "message": "restart a\npod"}],
            },
            "restart a pod",
        ),
        (
            {
                "capacity": {"storage": "1Gi"},
                "allocatedResourceStatuses": {"storage": "ControllerResizeInfeasible"},
            },
            "ControllerResizeInfeasible",
        ),
    ],
)
def test_why_a_claim_has_not_grown(status, says):
    cause = growth_cause({"status": status}, "2Gi")
    assert bool(cause) == bool(says)
    assert says in cause
