"""The worker: positions, restarts, bounds, refusals, pairs side by side, and when it rests."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import asynccontextmanager
from weakref import WeakSet

import pytest
from prometheus_client import CollectorRegistry

from aurora.buffer.v1 import buffer_pb2
from aurora_common.errors import CheckpointError, ConflictError, UnavailableError
from aurora_common.stream_id import stream_order
from aurora_trainer.judge import judge as module
from aurora_trainer.judge import order
from aurora_trainer.judge.comparison import JudgedDraft, Pair, Score, Unjudged
from aurora_trainer.judge.judge import Judge, Timing
from aurora_trainer.judge.metrics import JudgeMetrics
from aurora_trainer.judge.parity import Agreement

SOON = Timing(poll_seconds=0.001)
STABLE = JudgedDraft("sha256:stable", "file:///stable")
PAIR = Pair(STABLE, JudgedDraft("sha256:candidate", "file:///candidate"))
OTHER = Pair(STABLE, JudgedDraft("sha256:other", "file:///other"))
THIRD = Pair(STABLE, JudgedDraft("sha256:the third", "file:///third"))
PAGE = 4


class Stream:
    """Entries 1-0, 2-0, …; every third was served by a candidate."""

    problem = ""

    def __init__(self, count=0):
        self.count = count
        self.reads = []
        self.closed = False

    async def read(self, after):
        self.reads.append(after)
        begin = stream_order(after)[0]
        return [
            buffer_pb2.Entry(id=f"{number}-0")
            for number in range(begin + 1, min(self.count, begin + PAGE) + 1)
        ]

    async def close(self):
        self.closed = True


class Scorer:
    def __init__(self, pair, drafts):
        self.pair = pair
        self.drafts = drafts
        self.agreements = (Agreement(pair.stable.digest, tested=9),)

    def score(self, entry):
        number = stream_order(entry.id)[0]
        self.drafts.threads.add(threading.current_thread())
        self.drafts.scored.append((self.pair, number))
        if number % 3 == 0:
            return Unjudged.CANDIDATE_SERVED
        digits = len(self.pair.candidate.digest)
        return Score(entry.id, "a", 10, stable_steps=number, candidate_steps=number / digits)


class Drafts:
    """Loads any pair, unless `errors` says why not; `scored`: what any pair was scored on."""

    def __init__(self, scorer=Scorer):
        self.scorer = scorer
        self.errors = {}
        self.loads = []
        self.scored = []
        self.threads = set()
        self._scorers = WeakSet()

    def load(self, pair):
        self.threads.add(threading.current_thread())
        self.loads.append(pair)
        if pair in self.errors:
            raise self.errors[pair]
        scorer = self.scorer(pair, self)
        self._scorers.add(scorer)
        return scorer

    @property
    def in_memory(self):
        return {scorer.pair for scorer in self._scorers}

    def numbers(self, pair):
        """What a pair was scored on, in that order."""
        return [number for scored, number in self.scored if scored == pair]


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Asked:
    """A judge with what it stands on."""

    def __init__(self, stream, drafts, timing):
        self.stream, self.drafts, self.clock = stream, drafts, Clock()
        self.registry = CollectorRegistry()
        self.judge = Judge(
            stream, drafts, JudgeMetrics(self.registry), timing=timing, clock=self.clock
        )

    def ask(self, after="", *, begin="", pair=PAIR, limit=100):
        return self.judge.list_scores(pair, begin=begin, after=after, limit=limit)

    def unavailable(self):
        """Why it cannot answer yet; empty if it can."""
        try:
            self.ask()
        except UnavailableError as error:
            return str(error)
        return ""

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - a judge knows no events
                await asyncio.sleep(0.001)

    async def until_read(self, through, after="", **options):
        """The answer once everything through an entry was read."""
        await self.until(lambda: self.ask(after, **options).next_after == f"{through}-0")
        return self.ask(after, **options)


@asynccontextmanager
async def judging(count=0, *, stream=None, drafts=None, timing=SOON):
    asked = Asked(stream or Stream(count), drafts or Drafts(), timing)
    running = asyncio.create_task(asked.judge.run())
    try:
        yield asked
    finally:
        running.cancel()
        await asyncio.wait({running})
        await asked.judge.close()
        assert running.cancelled()


def numbers(answer):
    return [stream_order(score.id)[0] for score in answer.scores]


async def test_scores_come_in_order_and_the_position_passes_what_has_none():
    async with judging(6) as asked:
        assert asked.ask() == module.Scores((), next_after="", refusal="")
        answer = await asked.until_read(6)
        assert numbers(answer) == [1, 2, 4, 5]
        assert answer.refusal == ""
        asked.stream.count = 8
        assert numbers(await asked.until_read(8, after="6-0")) == [7, 8]


async def test_a_page_ends_at_its_last_score():
    async with judging(7) as asked:
        await asked.until_read(7)
        answer = asked.ask(limit=2)
        assert (numbers(answer), answer.next_after) == ([1, 2], "2-0")
        answer = asked.ask("2-0", limit=2)
        assert (numbers(answer), answer.next_after) == ([4, 5], "5-0")
        answer = asked.ask("5-0", limit=2)
        assert (numbers(answer), answer.next_after) == ([7], "7-0")


async def test_the_same_question_has_the_same_answer():
    async with judging(8) as asked:
        answer = await asked.until_read(8)
        assert asked.ask() == answer
        assert len(asked.drafts.loads) == 1


async def test_a_restarted_judge_gives_the_same_scores():
    async with judging(8) as asked:
        await asked.until_read(8)
        expected = asked.ask("4-0")
    async with judging(8) as asked:
        assert await asked.until_read(8, after="4-0") == expected


async def test_an_earlier_position_begins_again_with_the_same_drafts():
    async with judging(8) as asked:
        everything = await asked.until_read(8)
        assert numbers(asked.ask("5-0")) == [7, 8]
        assert asked.ask("1-0").scores == ()
        assert (await asked.until_read(8, after="1-0")).scores == everything.scores[1:]
        assert asked.drafts.loads == [PAIR]


async def test_a_position_beyond_what_was_read_is_where_it_goes_on():
    async with judging(4) as asked:
        await asked.until_read(4)
        asked.ask("6-0")
        asked.stream.count = 8
        assert numbers(await asked.until_read(8, after="6-0")) == [7, 8]


async def test_another_pair_has_scores_of_its_own():
    async with judging(4) as asked:
        first = await asked.until_read(4)
        assert asked.ask(pair=OTHER).scores == ()
        second = await asked.until_read(4, pair=OTHER)
        assert numbers(second) == numbers(first)
        assert second.scores != first.scores
        assert asked.drafts.loads == [PAIR, OTHER]
        greedy = Pair(OTHER.stable, OTHER.candidate, greedy_drafts=True)
        assert asked.ask(pair=greedy).scores == ()


async def test_two_pairs_go_on_side_by_side():
    async with judging(40) as asked:
        received = {PAIR: [], OTHER: []}
        after = {PAIR: "", OTHER: "10-0"}
        async with asyncio.timeout(10):
            while set(after.values()) != {"40-0"}:
                for pair in after:
                    answer = asked.ask(after[pair], pair=pair, limit=3)
                    received[pair] += numbers(answer)
                    after[pair] = answer.next_after
                await asyncio.sleep(0)
        assert received[PAIR] == [number for number in range(1, 41) if number % 3]
        assert received[OTHER] == [number for number in range(11, 41) if number % 3]
        # Neither began anew.
        assert asked.drafts.loads == [PAIR, OTHER]
        assert asked.drafts.numbers(PAIR) == list(range(1, 41))
        assert asked.drafts.numbers(OTHER) == list(range(11, 41))


async def test_a_long_backlog_keeps_no_other_pair_waiting(monkeypatch):
    # Its entries are but a millisecond apart.
    for name in ("LONGEST_SECONDS", "SILENT_SECONDS", "_SLACK_SECONDS"):
        monkeypatch.setattr(order, name, 0)
    async with judging(4000) as asked:
        asked.ask()
        await asked.until(lambda: asked.drafts.scored)
        before = len(asked.drafts.scored)
        await asked.until_read(4000, after="3998-0", pair=OTHER)
        assert asked.drafts.scored.index((OTHER, 3999)) - before <= 2 * PAGE
        before = len(asked.drafts.scored)
        asked.stream.count = 4001
        await asked.until_read(4001, after="4000-0", pair=OTHER)
        assert asked.drafts.scored.index((OTHER, 4001)) - before <= 2 * PAGE
        assert asked.drafts.numbers(PAIR)[-1] < 4000


async def test_an_earlier_position_leaves_the_other_pair_where_it_is():
    async with judging(8) as asked:
        expected = await asked.until_read(8)
        await asked.until_read(8, after="5-0", pair=OTHER)
        assert asked.ask("1-0", pair=OTHER).scores == ()
        assert asked.ask() == expected
        assert numbers(await asked.until_read(8, after="1-0", pair=OTHER)) == [2, 4, 5, 7, 8]
        assert asked.ask() == expected
        assert asked.drafts.loads == [PAIR, OTHER]
        assert asked.drafts.numbers(PAIR) == list(range(1, 9))


async def test_a_third_pair_replaces_the_one_asked_about_longest_ago():
    async with judging(4) as asked:
        await asked.until_read(4, pair=OTHER)
        await asked.until_read(4, pair=PAIR)
        expected = asked.ask(pair=OTHER)
        await asked.until_read(4, pair=THIRD)
        assert asked.drafts.in_memory == {OTHER, THIRD}
        assert asked.ask(pair=OTHER) == expected
        assert asked.ask(pair=PAIR).scores == ()
        await asked.until_read(4, pair=PAIR)
        assert asked.drafts.in_memory == {OTHER, PAIR}
        assert asked.drafts.loads == [OTHER, PAIR, THIRD, PAIR]


class Busy(Stream):
    """Five by five, the first of each is admitted first and ends last; ids are seconds apart."""

    async def read(self, after):
        self.reads.append(after)
        begin = stream_order(after)[0] // 1000
        return [self._entry(each) for each in range(begin + 1, min(self.count, begin + PAGE) + 1)]

    def _entry(self, number):
        first = (number - 1) // 5 * 5 * 1_000_000 + 1
        place = (number - 1) % 5
        admission = buffer_pb2.Admission(
            engine="a",
            at_us=first if place == 4 else first + place + 1,
            open_since_us=0 if place == 4 else first,
        )
        return buffer_pb2.Entry(
            id=f"{number * 1000}-0", trajectory=buffer_pb2.Trajectory(admission=admission)
        )


async def test_requests_are_judged_in_the_order_of_their_admission():
    async with judging(stream=Busy(9)) as asked:
        answer = await asked.until_read(9000)
        judged = [number // 1000 for number in asked.drafts.numbers(PAIR)]
        assert judged == [5, 1, 2, 3, 4]
        # 3 was served by the candidate.
        assert [score.stable_steps for score in answer.scores] == [5000, 1000, 2000, 4000]
        assert numbers(answer) == [5000] * 4
        asked.stream.count = 10
        assert numbers(await asked.until_read(10000, after="9000-0")) == [10000] * 3


async def test_requests_that_are_judged_at_one_position_come_together():
    async with judging(stream=Busy(10)) as asked:
        await asked.until_read(10000)
        for limit in (1, 3, 4):
            answer = asked.ask(limit=limit)
            assert (numbers(answer), answer.next_after) == ([5000] * 4, "5000-0")
        assert numbers(asked.ask(limit=5)) == [5000] * 4 + [10000] * 3
        assert asked.ask("5000-0", limit=1).next_after == "10000-0"


@pytest.mark.parametrize("after", [f"{number}000-0" for number in range(15)])
async def test_a_judge_that_restarts_in_between_judges_what_was_held_back(after):
    async with judging(stream=Busy(15)) as asked:
        expected = (await asked.until_read(15000)).scores
    async with judging(stream=Busy(15)) as asked:
        found = (await asked.until_read(15000, after)).scores
        wanted = [each for each in expected if stream_order(each.id) > stream_order(after)]
        assert list(found) == wanted
        # What the caller has is read again, not scored again.
        assert len(asked.drafts.scored) == 5 * len({each.id for each in wanted})


async def test_requests_admitted_before_the_comparison_began_are_not_judged():
    async with judging(stream=Busy(10)) as asked:
        answer = await asked.until_read(10000, after="3000-0", begin="3000-0")
        assert numbers(answer) == [10000] * 3
        labels = {"reason": "early"}
        counted = asked.registry.get_sample_value("aurora_trainer_unjudged_requests_total", labels)
        assert counted == 2
        # The comparison that began with the oldest is another one.
        assert len((await asked.until_read(10000)).scores) == 7


def slow_drafts(release):
    """Drafts that score nothing until it is set."""

    class Slow(Scorer):
        def score(self, entry):
            scored = super().score(entry)
            assert release.wait(10)
            return scored

    return Drafts(Slow)


async def test_an_earlier_position_ends_what_was_begun_at_a_later_one():
    release = threading.Event()
    async with judging(4, drafts=slow_drafts(release)) as asked:
        await asked.until(lambda: asked.ask("1-0") and asked.drafts.scored)
        asked.ask()
        release.set()
        assert numbers(await asked.until_read(4)) == [1, 2, 4]
        assert asked.drafts.numbers(PAIR) == [2, 1, 2, 3, 4]


async def test_a_pair_that_was_replaced_is_scored_no_further():
    release = threading.Event()
    async with judging(4, drafts=slow_drafts(release)) as asked:
        await asked.until(lambda: asked.ask() and asked.drafts.scored)
        asked.ask(pair=OTHER)
        asked.ask(pair=THIRD)
        release.set()
        await asked.until_read(4, pair=THIRD)
        assert asked.drafts.numbers(PAIR) == [1]
        assert asked.drafts.in_memory == {OTHER, THIRD}


async def test_it_holds_a_bounded_number_of_scores(monkeypatch):
    monkeypatch.setattr(module, "KEPT_SCORES", 4)
    async with judging(1000) as asked:
        answer = await asked.until_read(8)
        assert numbers(answer) == [1, 2, 4, 5, 7, 8]
        for _ in range(20):
            assert asked.ask() == answer
            await asyncio.sleep(0.001)
        assert asked.stream.reads == ["", "4-0"]
        received, after = [], ""
        async with asyncio.timeout(10):
            while len(received) < 100:
                answer = asked.ask(after)
                received += numbers(answer)
                after = answer.next_after
                await asyncio.sleep(0)
        assert received[:100] == [number for number in range(1, 151) if number % 3][:100]


async def test_refused_drafts_are_tried_again_later(caplog):
    drafts = Drafts()
    drafts.errors[PAIR] = CheckpointError("draft checkpoint x is refused: not there")
    with caplog.at_level(logging.INFO):
        async with judging(4, drafts=drafts) as asked:
            await asked.until(asked.unavailable)
            assert asked.unavailable() == "draft checkpoint x is refused: not there"
            drafts.errors.clear()
            asked.clock.now += 9
            for _ in range(20):
                assert asked.unavailable()
                await asyncio.sleep(0.001)
            assert drafts.loads == [PAIR]
            asked.clock.now += 2
            await asked.until(lambda: not asked.unavailable())
            answer = await asked.until_read(4)
            assert (numbers(answer), answer.refusal) == ([1, 2, 4], "")
    said = [record.message for record in caplog.records]
    assert said == ["drafts are not compared", "drafts loaded for comparison"]


async def test_drafts_that_can_never_be_compared_are_not_loaded_again():
    drafts = Drafts()
    drafts.errors[PAIR] = ConflictError("their shapes differ")
    async with judging(4, drafts=drafts) as asked:
        await asked.until(lambda: asked.ask().refusal)
        for _ in range(10):
            asked.clock.now += 20
            assert asked.ask().refusal == "their shapes differ"
            await asyncio.sleep(0.001)
        assert drafts.loads == [PAIR]


@pytest.mark.parametrize("error", [ConflictError("not these"), CheckpointError("not there")])
async def test_a_refused_pair_leaves_the_other(error):
    drafts = Drafts()
    drafts.errors[PAIR] = error

    def refusal():
        return asked.unavailable() or asked.ask().refusal

    async with judging(4, drafts=drafts) as asked:
        await asked.until_read(4, pair=OTHER)
        await asked.until(refusal)
        asked.stream.count = 8
        answer = await asked.until_read(8, pair=OTHER)
        assert (numbers(answer), answer.refusal) == ([1, 2, 4, 5, 7, 8], "")
        assert refusal() == str(error)
        assert drafts.loads == [OTHER, PAIR]


async def test_a_request_that_cannot_be_scored_keeps_no_other_from_it(caplog, monkeypatch):
    score = Scorer.score

    def poisoned(scorer, entry):
        if entry.id == "2-0":
            raise RuntimeError("its prompt is 17 4 92")
        return score(scorer, entry)

    monkeypatch.setattr(Scorer, "score", poisoned)
    async with judging(5) as asked:
        assert numbers(await asked.until_read(5)) == [1, 4, 5]
    labels = {"reason": "failed"}
    assert asked.registry.get_sample_value("aurora_trainer_unjudged_requests_total", labels) == 1
    assert "17 4 92" not in caplog.text


async def test_it_rests_if_nobody_asks_and_forgets_the_drafts():
    timing = Timing(poll_seconds=0.001, unload_seconds=30.05)
    async with judging(4, timing=timing) as asked:
        await asked.until_read(4)
        asked.clock.now += 30.001
        reads = -1
        while reads != len(asked.stream.reads):
            reads = len(asked.stream.reads)
            await asyncio.sleep(0.01)
        asked.clock.now += 1
        asked.stream.count = 5
        await asked.until(lambda: not asked.drafts.in_memory)
        assert len(asked.stream.reads) == reads
        # What it found is kept, and it goes on where it was.
        assert numbers(asked.ask()) == [1, 2, 4]
        assert numbers(await asked.until_read(5)) == [1, 2, 4, 5]
        assert asked.drafts.loads == [PAIR, PAIR]


async def test_it_rests_with_a_pair_that_nobody_asks_about_and_goes_on_with_the_other():
    timing = Timing(poll_seconds=0.001, unload_seconds=60.0)
    async with judging(4, timing=timing) as asked:
        await asked.until_read(4)
        await asked.until_read(4, pair=OTHER)
        asked.clock.now += 31
        asked.stream.count = 5
        await asked.until_read(5, pair=OTHER)
        assert asked.drafts.in_memory == {PAIR, OTHER}
        asked.clock.now += 30
        asked.stream.count = 6
        await asked.until_read(6, pair=OTHER)
        await asked.until(lambda: asked.drafts.in_memory == {OTHER})
        assert asked.drafts.numbers(PAIR) == [1, 2, 3, 4]
        assert numbers(await asked.until_read(6)) == [1, 2, 4, 5]
        assert asked.drafts.loads == [PAIR, OTHER, PAIR]


async def test_all_work_is_done_by_one_thread_apart_from_the_event_loop():
    async with judging(8) as asked:
        await asked.until_read(8)
        await asked.until_read(8, pair=OTHER)
        assert len(asked.drafts.threads) == 1
        assert threading.main_thread() not in asked.drafts.threads


async def test_the_event_loop_goes_on_while_a_request_is_scored():
    release = threading.Event()
    async with judging(1, drafts=slow_drafts(release)) as asked:
        await asked.until(lambda: asked.ask() and asked.stream.reads)
        assert asked.ask().next_after == ""
        # An earlier position meanwhile, or another pair: what is being scored is of no use to them.
        assert asked.ask("1-0").next_after == "1-0"
        assert asked.ask("0-1").next_after == "0-1"
        assert asked.ask(pair=OTHER).next_after == ""
        release.set()
        assert numbers(await asked.until_read(1, after="0-1")) == [1]
        assert numbers(await asked.until_read(1, pair=OTHER)) == [1]


async def test_what_was_done_is_counted():
    async with judging(6) as asked:
        await asked.until_read(6)
        assert asked.registry.get_sample_value("aurora_trainer_judged_requests_total") == 4
        unjudged = asked.registry.get_sample_value(
            "aurora_trainer_unjudged_requests_total", {"reason": "candidate_served"}
        )
        assert unjudged == 2
        assert asked.registry.get_sample_value("aurora_trainer_judging_seconds_total") > 0


async def test_closing_it_closes_the_source():
    async with judging() as asked:
        pass
    assert asked.stream.closed


@pytest.mark.parametrize("problem", ["", "the buffer is away"])
async def test_its_problem_is_the_sources(problem):
    async with judging() as asked:
        asked.stream.problem = problem
        assert asked.judge.problem == problem
