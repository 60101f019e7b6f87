from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aurora_operator.domain.plan.observation import Observation
from aurora_operator.domain.plan.unsent import with_unsent
from aurora_operator.domain.status.deployment import HISTORY_LIMIT, Status, Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def verdict(number):
    at = NOW + timedelta(minutes=number)
    return Verdict(f"chat-{number}", "c", "sha256:a", "RolledBack", "x", 0, 0, at)


def history(newest, count):
    return tuple(verdict(number) for number in range(newest, newest - count, -1))


def sent(*numbers):
    return frozenset(verdict(number).key for number in numbers)


def after(before, ended, *, records=frozenset(), announcements=frozenset()):
    now = before
    for number in ended:
        now = now.with_verdict(verdict(number))
    found = with_unsent(before, now, Observation(records=records, announcements=announcements))
    return found.unrecorded, found.unannounced


@pytest.mark.parametrize("known", [0, 3, HISTORY_LIMIT])
def test_what_ends_is_left_to_be_told_of_in_both_places(known):
    assert after(Status(history=history(30, known)), [31, 32]) == (2, 2)


def test_what_an_earlier_operator_has_seen_end_is_not_told_of():
    assert after(Status(history=history(30, 5)), []) == (0, 0)


def test_each_place_goes_its_own_way_oldest_first():
    before = Status(history=history(30, 5), unrecorded=3, unannounced=2)
    assert after(before, [], records=sent(28)) == (2, 2)
    assert after(before, [], records=sent(28, 29, 30), announcements=sent(29)) == (0, 1)
    # One that overtook an older one does not take it along.
    assert after(before, [], records=sent(29, 30)) == (3, 2)
    assert after(before, [31], records=sent(28), announcements=sent(29, 30)) == (3, 1)


def test_nothing_is_left_where_nothing_can_be_sent():
    before = Status(history=history(30, 5), unrecorded=3, unannounced=2)
    assert after(before, [31], records=None, announcements=None) == (0, 0)


def test_what_the_history_forgets_is_not_left():
    before = Status(history=history(30, HISTORY_LIMIT), unrecorded=HISTORY_LIMIT)
    assert after(before, [31]) == (HISTORY_LIMIT, 1)


def test_the_same_number_of_another_day_is_another_rollout():
    again = replace(verdict(30), at=NOW - timedelta(days=1))
    before = Status(history=(again,), unrecorded=1)
    assert after(before, [], records=sent(30)) == (1, 0)
