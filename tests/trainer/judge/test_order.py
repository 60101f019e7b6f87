"""Which recorded requests are judged when: in the order of their admission, whatever happens."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import count

import pytest

from aurora.buffer.v1 import buffer_pb2
from aurora_common.stream_id import stream_order
from aurora_trainer.judge import order as module
from aurora_trainer.judge.order import AdmissionOrder, rereads_from

SECOND = 1_000_000


@dataclass(frozen=True)
class Record:
    """Times in seconds; `open_since` 0: nothing else is in flight."""

    recorded: float
    admitted: float
    open_since: float = 0
    engine: str = "a"
    number: int = 0

    @property
    def id(self):
        return f"{round(self.recorded * 1000)}-{self.number}"

    @property
    def admission(self):
        return buffer_pb2.Admission(
            engine=self.engine,
            at_us=round(self.admitted * SECOND),
            open_since_us=round(self.open_since * SECOND),
        )


def read(*records, begin=""):
    """When each was admitted, for each record those that it releases."""
    order = AdmissionOrder(begin)
    return [
        [each.admitted for each in order.read(record.id, record.admission, record)]
        for record in records
    ]


def test_a_request_waits_for_those_admitted_before_it():
    short, shorter = Record(110, 103, open_since=101), Record(111, 102, open_since=101)
    assert read(short, shorter, Record(120, 101)) == [[], [], [101, 102, 103]]


def test_those_admitted_before_all_in_flight_are_released():
    assert read(Record(110, 101, open_since=102), Record(111, 103, open_since=102)) == [[101], []]


def test_a_request_waits_for_those_of_other_engines():
    long = Record(130, 101, engine="b")
    known = Record(105, 100, open_since=101, engine="b")
    assert read(known, Record(110, 102), long) == [[100], [], [101, 102]]


def test_an_engine_in_which_nothing_is_in_flight_holds_up_nothing():
    assert read(Record(105, 100, engine="b"), Record(110, 106)) == [[100], [106]]


def test_a_request_that_is_lost_with_its_engine_holds_up_others_for_a_minute():
    dying = Record(100, 90, open_since=91, engine="b")
    held, later, released = Record(110, 105), Record(159, 150), Record(160, 155)
    assert read(dying, held, later, released) == [[90], [], [], [105, 150, 155]]


def test_a_request_that_hangs_holds_up_others_for_ten_minutes():
    records = [Record(now, now - 5, open_since=91) for now in range(100, 800, 30)]
    found = read(*records)
    assert not any(found[:20])
    # 600 seconds after it was admitted itself, one by one.
    assert found[20:] == [[95], [125], [155], [185]]


def test_a_request_is_held_back_for_a_bounded_number_of_records(monkeypatch):
    monkeypatch.setattr(module, "MOST_RECORDS", 3)
    records = [Record(100 + number / 10, 95 + number / 10, open_since=91) for number in range(5)]
    assert read(*records) == [[], [], [], [95], [95.1]]


def test_only_requests_admitted_after_the_beginning_count():
    early = Record(131, 99, open_since=101)
    assert read(early, Record(132, 102), begin="100000-5") == [[], [102]]
    assert AdmissionOrder("100000-5").is_early(early.admission)
    assert not AdmissionOrder("").is_early(early.admission)


def test_a_record_of_an_older_engine_is_released_at_once():
    order = AdmissionOrder("100000-0")
    assert order.read("101000-0", buffer_pb2.Admission(), "old") == ["old"]
    held = Record(102, 101.5, open_since=101)
    assert order.read(held.id, held.admission, "new") == []
    assert order.read("103000-0", buffer_pb2.Admission(), "old") == ["old"]


def test_a_record_that_comes_again_counts_once():
    first, other = Record(110, 105), Record(111, 106, open_since=104)
    again = Record(112, 105, number=1)
    assert read(first, again) == [[105], []]
    # Nor does it say anew what was in flight.
    assert read(first, other, again, Record(113, 107, open_since=104)) == [[105], [], [], []]
    assert read(first, Record(170.001, 105)) == [[105], [105]]
    assert read(first, Record(112, 105, engine="b")) == [[105], [105]]


def test_a_clock_that_is_ahead_holds_back_nothing_for_long():
    ahead = Record(110, 5000, open_since=4990, engine="ahead")
    assert read(ahead, Record(111, 105)) == [[5000], [105]]


def traffic(seed, *, requests=300):
    """Records of three engines, of which one dies; some hang, some leave no record."""
    draw, now, numbers = random.Random(seed), 1000.0, count()
    ends = []
    for _ in range(requests):
        now += draw.expovariate(1 / 4)
        seconds = draw.lognormvariate(2.5, 1.2) if draw.random() < 0.97 else 2000
        engine = draw.choice("abc")
        is_lost = draw.random() < 0.1 or (engine == "c" and now + seconds > 1500)
        if engine != "c" or now < 1500:
            ends.append((now + seconds, now, engine, is_lost))
    records = []
    for end, admitted, engine, is_lost in sorted(ends):
        open_since = [a for e, a, which, _ in ends if which == engine and a <= end < e]
        if not is_lost:
            record = Record(end, admitted, min(open_since, default=0), engine, next(numbers))
            records.append(record)
            if draw.random() < 0.1:
                late = draw.choice([0.5, 20, 59])
                records.append(replace(record, recorded=end + late, number=next(numbers)))
    return sorted(records, key=lambda each: stream_order(each.id))


@pytest.mark.parametrize("seed", range(5))
def test_a_reader_that_starts_anywhere_goes_on_alike(seed):
    records = traffic(seed)
    begin = records[20].id
    order = AdmissionOrder(begin)
    released = [order.read(each.id, each.admission, each) for each in records[21:]]
    assert sum(map(len, released)) > 150
    assert any(len(each) > 5 for each in released)
    for place in range(0, len(released), 3):
        after = records[20 + place].id
        again, found = AdmissionOrder(begin), []
        start = rereads_from(begin, after)
        for each in records:
            if stream_order(each.id) > stream_order(start):
                due = again.read(each.id, each.admission, each)
                if stream_order(each.id) > stream_order(after):
                    found.append(due)
        assert found == released[place:]


@pytest.mark.parametrize("seed", range(5))
def test_each_request_is_released_once_and_none_is_forgotten(seed):
    records = traffic(seed)
    order = AdmissionOrder("")
    released = [one for each in records for one in order.read(each.id, each.admission, each)]
    admitted = [(each.engine, each.admitted) for each in released]
    assert len(set(admitted)) == len(admitted)
    end = records[-1].recorded
    settled = {(each.engine, each.admitted) for each in records if each.recorded < end - 660}
    assert settled <= set(admitted)


def test_the_first_of_many_that_begin_at_once_are_like_all():
    draw = random.Random(0)
    seconds = [draw.lognormvariate(3, 0.8) for _ in range(400)]
    admitted = [1000 + number / 100 for number in range(400)]
    ends = sorted((at + each, at) for at, each in zip(admitted, seconds, strict=True))
    records = []
    for number, (end, at) in enumerate(ends):
        still = min((a for e, a in ends[number + 1 :]), default=0)
        records.append(Record(end, at, still, number=number))
    order = AdmissionOrder("")
    released = [one for each in records for one in order.read(each.id, each.admission, each)]

    def mean_seconds(some):
        return sum(each.recorded - each.admitted for each in some) / len(some)

    assert mean_seconds(records[:100]) < 0.4 * mean_seconds(records)
    assert [each.admitted for each in released] == admitted
    assert mean_seconds(released[:100]) == pytest.approx(mean_seconds(records), rel=0.15)


def test_what_is_read_again_begins_no_earlier_than_the_comparison():
    assert rereads_from("", "") == ""
    assert rereads_from("", "5-0") == ""
    assert rereads_from("1000000-3", "1000001-0") == "1000000-3"
    assert rereads_from("1000000-3", "2000000-0") == "1335000-0"
