"""What is recorded of answered requests, and when they were admitted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from aurora_inference.contract import SpeculationReport
from aurora_inference.gateway.answer import Report
from aurora_inference.gateway.ledger import Ledger, Serving
from aurora_inference.gateway.question import COMPLETIONS, Client, question
from aurora_inference.gateway.recorder import Recorder
from aurora_inference.slots.outcome_log import OutcomeLog

SERVED = SpeculationReport("s", "sha256:s", "stable", 1, 4, 2)
ANSWER = Report((1, 2), (3, 4), 2, "stop", ((4, 2),))


class Desk:
    """A ledger and a recorder; `sent`: what is recorded, `awaiting` what waits for a capture."""

    def __init__(self):
        self.ledger = Ledger(OutcomeLog("instance"), serving=Serving("stable"))
        self.sent, self.awaiting = [], []
        self.recorder = Recorder(self.sent.append, self.ledger.admissions)

    def ask(self, key, *, record=True, capture=False):
        client = Client(key=key, tenant="", domain="", record=record, capture=capture)
        body = json.dumps({"model": "tiny", "prompt": "hello"}).encode()
        asked = question(COMPLETIONS, body, client, base_models=frozenset({"tiny"}))
        return asked, self.ledger.begin(key, is_recorded=asked.request.record)

    def answer(self, asked, report=ANSWER):
        self.recorder.ended(self.awaiting.append, asked, report, SERVED)

    @property
    def admissions(self):
        return {one.request.id: one.admission for one in self.sent}


@pytest.fixture
def desk():
    return Desk()


def test_a_record_tells_when_it_was_admitted_and_what_is_in_flight(desk):
    (first, _), (second, _) = desk.ask("first"), desk.ask("second")
    desk.answer(second)
    desk.answer(first)
    found = desk.admissions
    assert found["first"].at_us < found["second"].at_us
    assert found["second"].open_since_us == found["first"].at_us
    assert found["first"].open_since_us == 0


@pytest.mark.parametrize(("own", "by_other"), [(None, [False, False]), (1, [False, True])])
def test_a_record_tells_which_steps_another_draft_had_part_in(desk, own, by_other):
    asked, _ = desk.ask("crossing")
    report = replace(ANSWER, steps=((4, 2), (4, 0)))
    served = replace(SERVED, own_steps=own)
    desk.recorder.ended(desk.awaiting.append, asked, report, served)
    assert [step.by_other for step in desk.sent[0].steps] == by_other


def test_an_answer_is_in_flight_until_its_capture_has_come(desk):
    (captured, _), (plain, _) = desk.ask("captured", capture=True), desk.ask("plain")
    desk.answer(captured)
    desk.answer(plain)
    assert list(desk.admissions) == ["plain"]
    (waiting,) = desk.awaiting
    desk.recorder.record(waiting)
    assert desk.admissions["plain"].open_since_us == desk.admissions["captured"].at_us


def test_what_leaves_no_record_holds_up_nothing(desk):
    (broken, _), (_, refused) = desk.ask("broken"), desk.ask("refused")
    desk.ask("private", record=False)
    plain, _ = desk.ask("plain")
    desk.answer(broken, Report(finish_reason="error"))
    desk.ledger.withdraw(refused)
    desk.answer(plain)
    assert desk.admissions["plain"].open_since_us == 0
