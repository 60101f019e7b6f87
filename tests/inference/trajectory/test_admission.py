"""Requests in flight, by when they were admitted."""

from __future__ import annotations

from aurora_inference.trajectory.admission import Admissions


def test_a_record_tells_since_when_the_oldest_other_one_is_in_flight():
    times = iter((100, 200, 300))
    admissions = Admissions(lambda: next(times))
    for name in "abc":
        admissions.begin(name)
    ends = {name: admissions.end(name) for name in "bac"}
    assert {name: (end.at_us, end.open_since_us) for name, end in ends.items()} == {
        "b": (200, 100),
        "a": (100, 300),
        "c": (300, 0),
    }


def test_no_two_are_admitted_at_once_even_if_the_clock_is_set_back():
    times = iter((100, 100, 40, 300))
    admissions = Admissions(lambda: next(times))
    for name in "abcd":
        admissions.begin(name)
    assert [admissions.end(name).at_us for name in "abcd"] == [100, 101, 102, 300]


def test_what_was_not_admitted_has_no_admission():
    admissions = Admissions()
    assert admissions.end("a") is None
    admissions.begin("a")
    assert admissions.end("a") is not None
    assert admissions.end("a") is None


def test_each_run_of_an_engine_has_a_name_of_its_own():
    first, second = Admissions(), Admissions()
    for admissions in (first, second):
        admissions.begin("a")
    assert first.end("a").engine != second.end("a").engine
