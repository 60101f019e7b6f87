"""Speculation changes speed only: no token, no distribution, no request."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from aurora_inference.contract import Cursor, Request, Sampling
from aurora_inference.slots.slots import FULL_BPS
from aurora_model.decoder import causal_attend

VOCABULARY = 96
GREEDY = Sampling(temperature=0.0)


def _requests(count: int, *, sampling: Sampling = GREEDY, seed: int = 0) -> list[Request]:
    draws = random.Random(seed)
    return [
        Request(
            id=f"r{number}",
            prompt_tokens=tuple(
                draws.randrange(3, VOCABULARY) for _ in range(draws.randint(1, 40))
            ),
            max_tokens=draws.randint(1, 48),
            sampling=sampling,
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def plain_greedy(target):
    """The target's output without an engine: the full sequence recomputed for each token."""

    @torch.inference_mode()
    def complete(request: Request) -> list[int]:
        tokens = list(request.prompt_tokens)
        while len(tokens) < len(request.prompt_tokens) + request.max_tokens:
            positions = torch.arange(len(tokens)).unsqueeze(0)
            hidden = target.decoder(torch.tensor([tokens]), positions, causal_attend)
            tokens.append(int(target.decoder.logits(hidden[0, -1]).argmax()))
            if tokens[-1] in target.stop_tokens and not request.ignore_eos:
                break
        return tokens[len(request.prompt_tokens) :]

    return complete


@pytest.fixture(scope="module")
def expected(plain_greedy):
    return {request.id: plain_greedy(request) for request in _requests(200)}


@pytest.mark.parametrize("max_batch", [1, 8])
@pytest.mark.parametrize("draft", [None, "good", "bad", "random"])
def test_greedy_output_equals_plain_greedy_output(make_engine, expected, draft, max_batch) -> None:
    harness = make_engine(draft=draft, max_batch=max_batch)
    assert harness.run(*_requests(200)) == expected


def test_greedy_output_is_the_same_whatever_length_the_controller_chooses(
    make_engine, expected
) -> None:
    harness = make_engine(draft="bad", adaptive=True, length=6)
    assert harness.run(*_requests(200)) == expected


def test_a_copy_of_the_target_is_accepted_almost_always(make_engine) -> None:
    harness = make_engine(draft="good")
    harness.run(*_requests(40))
    counters = harness.engine.counters().arms["stable"]
    # Not always: the draft may have been packed with int8 or fp16 weights.
    assert counters.accepted_tokens > 0.8 * counters.drafted_tokens


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draft", "sampling", "seeded"),
    [
        ("bad", Sampling(temperature=3.0), False),
        ("random", Sampling(temperature=4.0, top_k=12), False),
        ("bad", Sampling(temperature=5.0, top_p=0.6), False),
        ("random", Sampling(temperature=3.0), True),
        ("bad", Sampling(temperature=4.0, top_k=12), True),
    ],
    ids=[
        "optimal-temperature",
        "optimal-top-k",
        "optimal-top-p",
        "coupled-temperature",
        "coupled-top-k",
    ],
)
def test_sampled_output_follows_the_exact_distribution(
    make_engine, p_value, draft, sampling, seeded
) -> None:
    prompt, count = (5, 17, 33, 8), 6_000
    harness = make_engine(draft=draft, length=2, max_batch=64)
    # Three tokens: the first comes from the prompt, so that speculation decides the second.
    samplings = [replace(sampling, seed=n if seeded else None) for n in range(count)]
    requests = [
        Request(f"s{n}", prompt, 3, each, ignore_eos=True, record=False)
        for n, each in enumerate(samplings)
    ]
    assert p_value(harness.run(*requests), prompt, sampling) > 1e-4


def test_stop_tokens_end_a_request_unless_they_are_ignored(make_engine, plain_greedy) -> None:
    prompt = next(
        request.prompt_tokens
        for request in _requests(200)
        if plain_greedy(request)[-1] == 2 and request.max_tokens > len(plain_greedy(request))
    )
    stopping = Request("stop", prompt, 60, GREEDY)
    ignoring = Request("ignore", prompt, 60, GREEDY, ignore_eos=True)
    harness = make_engine(draft="good")
    outputs = harness.run(stopping, ignoring)
    assert outputs["stop"][-1] == 2
    assert harness.last["stop"].finish_reason == "stop"
    assert len(outputs["ignore"]) == 60
    assert harness.last["ignore"].finish_reason == "length"


def test_a_cancelled_request_leaves_the_others_alone(make_engine, expected) -> None:
    requests = _requests(12)
    harness = make_engine(draft="bad", max_batch=4)
    for request in requests:
        harness.engine.submit(request)
    for _ in range(6):
        harness.step()
    running = [name for name in harness.tokens if harness.last[name].finish_reason is None]
    cancelled = [running[0], requests[-1].id]  # one that runs, one that waits
    for name in cancelled:
        harness.cancel(name)
        assert harness.last[name].finish_reason == "cancelled"
    while not harness.engine.idle:
        harness.step()
    for request in requests:
        if request.id not in cancelled:
            assert harness.tokens[request.id] == expected[request.id]


def test_requests_in_flight_keep_their_draft_across_a_promotion(make_engine, make_draft) -> None:
    harness = make_engine(draft="bad", max_batch=4)
    engine = harness.engine
    before = [Request(f"before{n}", (3, 4, 5 + n), 40, GREEDY, ignore_eos=True) for n in range(3)]
    after = [Request(f"after{n}", (3, 4, 5 + n), 10, GREEDY, ignore_eos=True) for n in range(3)]
    for request in before:
        engine.submit(request)
    for _ in range(5):
        harness.step()
    engine.stage("candidate", make_draft("good", engine))
    receipt = engine.promote("sha256:good")
    harness.run(*after)
    for request in before:
        assert harness.last[request.id].report.draft == "bad"
        assert len(harness.tokens[request.id]) == 40
    for request in after:
        assert harness.last[request.id].report.draft == "good"
    assert receipt.pause_microseconds < 50_000
    assert engine.slots.candidate is None


def test_both_arms_decode_in_one_batch_with_the_same_output(
    make_engine, make_draft, expected
) -> None:
    harness = make_engine(draft="bad", adaptive=True)
    harness.engine.stage("candidate", make_draft("random", harness.engine))
    harness.engine.slots.split("rollout-1", FULL_BPS // 2)
    assert harness.run(*_requests(200)) == expected
    page = harness.engine.slots.outcomes.page("rollout-1", Cursor("", 0), 1000)
    outcomes = page.outcomes
    assert len(outcomes) == 200
    assert [outcome.sequence for outcome in outcomes] == list(range(1, 201))
    arms = {outcome.arm for outcome in outcomes}
    assert arms == {"stable", "candidate"}
    # Both drafts are tried while they are compared, whatever the controller estimates.
    for request in _requests(200):
        report = harness.last[request.id].report
        assert report.drafted_tokens > 0 or len(expected[request.id]) <= 2


@pytest.mark.parametrize("seed", [None, 3])
def test_captured_distributions_are_the_targets_own(make_engine, target, seed) -> None:
    requests = _requests(10, sampling=Sampling(temperature=2.5, top_k=20, seed=seed))
    harness = make_engine(draft="bad")
    outputs = harness.run(*requests)
    assert len(harness.completions) == len(requests)
    for completion in harness.completions:
        request, output = completion.request, list(completion.output_tokens)
        assert output == outputs[request.id]
        tokens = torch.tensor([[*request.prompt_tokens, *output]])
        with torch.inference_mode():
            hidden = target.decoder(
                tokens, torch.arange(tokens.shape[1]).unsqueeze(0), causal_attend
            )
            logits = target.decoder.logits(hidden[0])
        exact = logits.log_softmax(-1)[len(request.prompt_tokens) - 1 : -1]
        ids = torch.from_numpy(completion.distributions.top_ids.astype(np.int64))
        captured = torch.from_numpy(completion.distributions.top_log_probs.astype(np.float32))
        assert ids.shape == (len(output), 64)
        gathered = exact.gather(1, ids)
        likely = gathered > -15
        assert torch.allclose(captured[likely], gathered[likely], atol=2e-2)
        tail = 1 - gathered.exp().sum(-1)
        assert torch.allclose(
            torch.from_numpy(completion.distributions.tail_mass).float(), tail, atol=2e-3
        )
        assert sum(step.accepted + 1 for step in completion.steps) >= len(output) - 1


def test_an_opted_out_request_is_not_recorded(make_engine) -> None:
    harness = make_engine(draft="bad")
    harness.run(Request("private", (3, 4), 10, GREEDY, record=False))
    assert harness.completions == []


def test_a_record_tells_when_it_was_admitted_and_what_was_in_flight(make_engine) -> None:
    harness = make_engine(draft="bad")

    def submit(name: str, tokens: int) -> None:
        is_recorded = name != "private"
        request = Request(name, (3, 4), tokens, GREEDY, ignore_eos=True, record=is_recorded)
        harness.engine.submit(request)

    def run_until(name: str) -> None:
        while name not in {one.request.id for one in harness.completions}:
            harness.step()

    for name, tokens in {"private": 200, "long": 40, "short": 5, "cancelled": 200}.items():
        submit(name, tokens)
    run_until("short")
    submit("later", 60)
    run_until("later")
    harness.cancel("cancelled")
    submit("last", 5)
    run_until("last")
    ends = {one.request.id: one.admission for one in harness.completions}
    assert list(ends) == ["short", "long", "later", "last"]
    admitted = [ends[name].at_us for name in ("long", "short", "later", "last")]
    assert admitted == sorted(admitted)
    assert ends["short"].open_since_us == ends["long"].at_us
    # The one that is cancelled, and is not recorded, came after the short one.
    assert ends["short"].at_us < ends["long"].open_since_us < ends["later"].at_us
    assert ends["last"].open_since_us == 0
    assert len({end.engine for end in ends.values()}) == 1


def test_every_request_ends_when_a_step_fails(make_engine) -> None:
    harness = make_engine(draft="bad", max_batch=2)
    for request in _requests(5):
        harness.engine.submit(request)
    harness.step()
    failed = harness.engine.fail_all()
    assert {one.request_id for one in failed} == {request.id for request in _requests(5)}
    assert {one.finish_reason for one in failed} == {"error"}
    assert harness.engine.idle
    assert harness.engine.counters().arms["stable"].failed_requests == 1


class RaisingDraft:
    """A drafter that raises from its `after`-th proposal on."""

    def __init__(self, drafter, *, after):
        self._drafter, self._left = drafter, after
        self.name, self.digest = "raising", "sha256:raising"
        self.add, self.remove = drafter.add, drafter.remove
        self.target_layers = drafter.target_layers

    @property
    def sequences(self):
        return self._drafter.sequences

    def propose(self, count, sampler):
        proposal = self._drafter.propose(count, sampler)
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("shape mismatch")
        return proposal


def _outcomes(harness):
    return harness.engine.slots.outcomes.page("rollout-1", Cursor("", 0), 1000).outcomes


@pytest.mark.parametrize("after", [0, 5])
def test_a_draft_that_raises_costs_no_request_anything_but_its_draft(
    make_engine, make_draft, after
) -> None:
    requests = _requests(24)
    plain = make_engine(draft=None).run(*requests)
    harness = make_engine(draft="bad")
    engine = harness.engine
    engine.stage("candidate", RaisingDraft(make_draft("good", engine), after=after))
    engine.slots.split("rollout-1", FULL_BPS // 2)
    assert harness.run(*requests) == plain
    outcomes = _outcomes(harness)
    assert len(outcomes) == len(requests)
    assert {each.ending for each in outcomes if each.arm == "stable"} == {"completed"}
    raised = [each for each in outcomes if each.ending == "draft_failed"]
    # Not all of the candidate's: a request too short to draft for does not notice.
    assert raised
    assert engine.counters().arms["candidate"].failed_requests == 0
    assert engine.runner._rows == {}


@pytest.mark.parametrize("seed", [None, 3])
def test_a_draft_that_raises_changes_no_seeded_text(make_engine, make_draft, seed) -> None:
    requests = _requests(20, sampling=Sampling(temperature=2.0, seed=seed))
    plain = make_engine(draft=None).run(*requests)
    harness = make_engine(draft=None)
    engine = harness.engine
    engine.stage("stable", RaisingDraft(make_draft("good", engine), after=3))
    outputs = harness.run(*requests)
    assert set(outputs) == set(plain)
    if seed is not None:
        assert outputs == plain


def test_a_draft_that_cannot_begin_leaves_its_request_alone(make_engine, make_draft) -> None:
    requests = _requests(20)
    plain = make_engine(draft=None).run(*requests)
    harness = make_engine(draft=None)
    drafter = make_draft("good", harness.engine)

    def refuse(sequence):
        raise RuntimeError("no memory")

    drafter.add = refuse
    harness.engine.stage("candidate", drafter)
    harness.engine.slots.split("rollout-1", FULL_BPS // 2)
    assert harness.run(*requests) == plain
    endings = {(each.arm, each.ending) for each in _outcomes(harness)}
    assert endings == {("stable", "completed"), ("candidate", "draft_failed")}


@pytest.mark.parametrize(("answered", "ending"), [(False, "cancelled"), (True, "completed")])
def test_a_cancelled_request_says_whether_its_text_was_complete(
    make_engine, make_draft, answered, ending
) -> None:
    harness = make_engine(draft="bad")
    harness.engine.stage("candidate", make_draft("good", harness.engine))
    harness.engine.slots.split("rollout-1", FULL_BPS // 2)
    harness.engine.submit(Request("r", (3, 4, 5), 100, GREEDY, ignore_eos=True))
    for _ in range(3):
        harness.step()
    harness.cancel("r", answered=answered)
    (outcome,) = _outcomes(harness)
    assert outcome.ending == ending
    assert outcome.served.drafted_tokens > 0


def test_an_outcome_tells_how_long_the_first_token_took(make_engine, make_draft) -> None:
    harness = make_engine(draft="bad")
    harness.engine.stage("candidate", make_draft("good", harness.engine))
    harness.engine.slots.split("rollout-1", FULL_BPS // 2)
    # A prompt of several pieces, and one that is cancelled within its first.
    prompt = tuple(3 + number % 90 for number in range(100))
    harness.run(Request("short", (3, 4), 3, GREEDY), Request("long", prompt, 3, GREEDY))
    harness.engine.submit(Request("cancelled", prompt, 3, GREEDY))
    harness.step()
    harness.cancel("cancelled")
    short, long, cancelled = (each.served.time_to_first_token_us for each in _outcomes(harness))
    assert short > 0
    assert long > 0
    assert cancelled == 0


def test_outcomes_come_in_the_order_of_admission(make_engine, make_draft) -> None:
    harness = make_engine(draft="bad")
    harness.engine.stage("candidate", make_draft("good", harness.engine))
    harness.engine.slots.split("rollout-1", FULL_BPS // 2)
    lengths = [40, 3, 30, 4, 20, 5]
    for number, length in enumerate(lengths):
        harness.engine.submit(Request(f"r{number}", (3, 4, 5), length, GREEDY, ignore_eos=True))
    while "r1" not in harness.last or harness.last["r1"].finish_reason is None:
        harness.step()
    assert _outcomes(harness) == ()
    while not harness.engine.idle:
        harness.step()
    assert [each.sequence for each in _outcomes(harness)] == [1, 2, 3, 4, 5, 6]
    assert {each.ending for each in _outcomes(harness)} == {"completed"}


def test_a_request_that_could_not_begin_holds_up_no_outcome(
    make_engine, make_draft, monkeypatch
) -> None:
    harness = make_engine(draft="bad")
    engine = harness.engine
    engine.stage("candidate", make_draft("good", engine))
    engine.slots.split("rollout-1", FULL_BPS // 2)

    def breaks(*arguments):
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine.runner, "begin", breaks)
        engine.submit(Request("lost", (3, 4), 4, GREEDY))
        with pytest.raises(RuntimeError):
            engine.step()
    harness.run(Request("next", (3, 4), 4, GREEDY, ignore_eos=True))
    assert [each.ending for each in _outcomes(harness)] == ["failed", "completed"]
