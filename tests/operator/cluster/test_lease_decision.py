from hypothesis import given
from hypothesis import strategies as st

from aurora_operator.adapters.lease import Seen, seen, verdict

NOW = 1000.0


def _lease(version: str, holder: str | None = "other", duration: int | None = 15) -> dict:
    return {
        "metadata": {"resourceVersion": version},
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": duration,
            # A remote clock that is a day ahead must not matter.
            "renewTime": "2999-01-01T00:00:00.000000Z",
        },
    }


def test_a_lease_of_another_holder_is_taken_only_after_its_duration():
    first = seen(_lease("1"), None, NOW)
    assert verdict(first, "me", NOW) == "wait"
    assert verdict(seen(_lease("1"), first, NOW + 14.9), "me", NOW + 14.9) == "wait"
    assert verdict(seen(_lease("1"), first, NOW + 15), "me", NOW + 15) == "take"


def test_a_renewal_restarts_the_duration():
    first = seen(_lease("1"), None, NOW)
    renewed = seen(_lease("2"), first, NOW + 14)
    assert renewed.changed_at == NOW + 14
    assert verdict(renewed, "me", NOW + 20) == "wait"


def test_its_own_lease_is_renewed_and_a_released_one_taken_at_once():
    assert verdict(seen(_lease("1", "me"), None, NOW), "me", NOW) == "renew"
    assert verdict(seen(_lease("1", "", 1), None, NOW), "me", NOW) == "take"
    assert verdict(seen(_lease("1", None, None), None, NOW), "me", NOW) == "take"


@given(
    holder=st.sampled_from(["other", "third"]),
    duration=st.integers(1, 60),
    waited=st.floats(0, 120),
)
def test_never_taken_within_its_duration(holder, duration, waited):
    lease = Seen(holder, duration, "1", NOW)
    assert (verdict(lease, "me", NOW + waited) == "take") == (NOW + waited >= NOW + duration)
