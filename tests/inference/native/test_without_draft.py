"""Requests without a draft are drafted for by n-grams, which count for no draft."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from aurora_inference.contract import Cursor, Request, Sampling
from aurora_inference.slots.slots import FULL_BPS

VOCABULARY = 96
GREEDY = Sampling(temperature=0.0)
# Repeats itself, so that every request of it is drafted for.
REPEATING = (7, 11, 13, 17, 19, 23) * 5


def _requests(count: int, *, prompt=REPEATING, sampling=GREEDY, max_tokens=40) -> list[Request]:
    return [
        Request(f"r{number}", (3 + number, *prompt), max_tokens, sampling, ignore_eos=True)
        for number in range(count)
    ]


class RaisingDraft:
    """A drafter that raises at once, or after one proposal."""

    def __init__(self, drafter, *, after=0):
        self._drafter, self._left = drafter, after
        self.name, self.digest = "raising", "sha256:raising"
        self.add, self.remove = drafter.add, drafter.remove
        self.target_layers = drafter.target_layers

    @property
    def sequences(self):
        return self._drafter.sequences

    def propose(self, count, sampler):
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("shape mismatch")
        return self._drafter.propose(count, sampler)


@pytest.fixture
def drafting(make_engine, monkeypatch):
    """Makes an engine that drafts `length` tokens wherever anything matches."""

    def make(*, length=4, **options):
        harness = make_engine(draft=None, length=length, **options)

        def choose(digests, matches, *, minimum):
            return length if any(digests) or matches else 0

        monkeypatch.setattr(harness.engine.speculation, "choose", choose)
        return harness

    return make


@pytest.mark.parametrize("max_batch", [1, 8])
def test_greedy_text_is_that_without_speculation(make_engine, drafting, max_batch) -> None:
    prompts = [
        Request(f"{number}", tuple(range(3, 4 + number % 9)) * 4, 30, GREEDY)
        for number in range(200)
    ]
    harness = drafting(max_batch=max_batch)
    assert harness.run(*prompts) == make_engine(draft=None, length=0).run(*prompts)
    counters = harness.engine.counters()
    assert 0 < counters.ngram.accepted_tokens < counters.ngram.drafted_tokens


def test_what_ngrams_draft_counts_for_no_draft(drafting) -> None:
    harness = drafting()
    requests = _requests(4)
    harness.run(*requests)
    counters = harness.engine.counters()
    stable = counters.arms["stable"]
    assert (stable.drafted_tokens, stable.accepted_tokens, stable.verify_steps) == (0, 0, 0)
    assert stable.output_tokens == 4 * 40
    reports = [harness.last[request.id].report for request in requests]
    for report in reports:
        assert (report.draft, report.draft_digest) == ("", "")
        assert (report.drafted_tokens, report.accepted_tokens) == (0, 0)
        assert report.steps + report.ngram_accepted_tokens >= 39
    assert sum(each.ngram_drafted_tokens for each in reports) == counters.ngram.drafted_tokens
    assert sum(each.ngram_accepted_tokens for each in reports) == counters.ngram.accepted_tokens
    assert counters.ngram.accepted_per_position[0] <= counters.ngram.verify_steps
    for completion in harness.completions:
        assert {step.drafted for step in completion.steps} == {0}
        drafted = sum(step.ngram_drafted for step in completion.steps)
        assert drafted == completion.report.ngram_drafted_tokens > 0
    assert harness.engine.status().stable is None


def test_without_a_stable_draft_its_arm_has_drafted_nothing(drafting, make_draft) -> None:
    harness = drafting()
    harness.engine.stage("candidate", make_draft("bad", harness.engine))
    harness.engine.slots.split("rollout-1", FULL_BPS // 2)
    harness.run(*_requests(24))
    outcomes = harness.engine.slots.outcomes.page("rollout-1", Cursor("", 0), 100).outcomes
    drafted = {arm: [0, 0] for arm in ("stable", "candidate")}
    for outcome in outcomes:
        assert outcome.ending == "completed"
        drafted[outcome.arm][0] += outcome.served.drafted_tokens
        drafted[outcome.arm][1] += outcome.served.accepted_tokens
    assert drafted["stable"] == [0, 0]
    arms, ngram = harness.engine.counters().arms, harness.engine.counters().ngram
    candidate = arms["candidate"]
    assert drafted["candidate"] == [candidate.drafted_tokens, candidate.accepted_tokens]
    assert ngram.drafted_tokens > 0
    assert [*harness.engine.speculation._acceptance] == ["sha256:bad"]


@pytest.mark.parametrize("after", [0, 3])
def test_a_failed_drafts_requests_go_on_with_ngrams(
    make_engine, drafting, make_draft, after
) -> None:
    requests = _requests(6)
    harness = drafting()
    engine = harness.engine
    engine.stage("candidate", RaisingDraft(make_draft("good", engine), after=after))
    engine.slots.split("rollout-1", FULL_BPS)
    assert harness.run(*requests) == make_engine(draft=None, length=0).run(*requests)
    outcomes = engine.slots.outcomes.page("rollout-1", Cursor("", 0), 100).outcomes
    assert {each.ending for each in outcomes} == {"draft_failed"}
    counters = engine.counters()
    candidate = counters.arms["candidate"]
    # Each of the few steps before it failed had at most the whole batch.
    assert candidate.verify_steps <= after * len(requests)
    assert sum(each.served.drafted_tokens for each in outcomes) == candidate.drafted_tokens
    assert counters.ngram.drafted_tokens > 0
    for request in requests:
        report = harness.last[request.id].report
        assert report.draft_digest == "sha256:raising"
        assert report.ngram_drafted_tokens > 0
    assert engine.runner._rows == {}
    assert engine.runner._ngram.sequences == []


def test_a_text_that_repeats_nothing_is_not_drafted_for(drafting) -> None:
    harness = drafting()
    harness.engine.submit(Request("r", tuple(range(3, 40)), 60, GREEDY, ignore_eos=True))
    while not harness.engine.idle:
        harness.step()
        tokens = [*range(3, 40), *harness.tokens.get("r", [])]
        if len(set(tokens)) == len(tokens):
            assert harness.engine.counters().ngram.drafted_tokens == 0


def test_without_speculation_nothing_is_drafted(make_engine) -> None:
    harness = make_engine(draft=None, length=0)
    harness.run(*_requests(3))
    counters = harness.engine.counters()
    assert counters.ngram.drafted_tokens == 0
    assert counters.arms["stable"].output_tokens == 3 * 40


def test_a_draft_keeps_its_requests_from_being_matched(make_engine) -> None:
    harness = make_engine(draft="bad")
    harness.run(*_requests(4))
    assert harness.engine.counters().ngram.verify_steps == 0
    assert harness.engine.counters().arms["stable"].verify_steps > 0


def test_the_controller_finds_out_that_copying_pays(make_engine) -> None:
    harness = make_engine(draft=None, adaptive=True, length=6)
    harness.run(*_requests(6, max_tokens=120))
    report = [harness.last[f"r{number}"].report for number in range(6)]
    # A greedy random model soon goes round in circles.
    assert sum(each.ngram_accepted_tokens for each in report) > 0.3 * 6 * 120


@pytest.mark.parametrize("seed", [None, 3])
def test_sampled_and_greedy_rows_share_a_batch(make_engine, drafting, seed) -> None:
    greedy = _requests(4)
    sampled = [
        replace(each, id=f"s{each.id}", sampling=Sampling(temperature=2.0, seed=seed))
        for each in _requests(4)
    ]
    outputs = drafting().run(*greedy, *sampled)
    plain = make_engine(draft=None, length=0).run(*greedy, *sampled)
    for request in [*greedy, *(sampled if seed is not None else [])]:
        assert outputs[request.id] == plain[request.id]


def _likely_prompt(pair_probs, sampling: Sampling) -> tuple[tuple[int, ...], float]:
    """A prompt of all tokens, so that any first token matches, whose proposals are likely."""
    best: tuple[tuple[int, ...], float] = ((), 0.0)
    for seed in range(24):
        prompt = tuple(np.random.default_rng(seed).permutation(VOCABULARY).tolist())
        first, second = pair_probs(prompt, sampling)
        # Its last token has nothing but itself behind it.
        follower = torch.tensor([*prompt[1:], prompt[-1]])[torch.tensor(prompt).argsort()]
        likely = float((first * second.gather(1, follower[:, None])[:, 0]).sum())
        best = max(best, (prompt, likely), key=lambda found: found[1])
    return best


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampling", "seeded"),
    [
        (Sampling(temperature=3.0, top_k=12), False),
        (Sampling(temperature=4.0, top_p=0.6), True),
    ],
    ids=["optimal", "coupled"],
)
def test_sampled_output_follows_the_exact_distribution(
    drafting, pair_probs, p_value, sampling, seeded
) -> None:
    prompt, likely = _likely_prompt(pair_probs, sampling)
    count = 6_000
    requests = [
        Request(
            f"{n}",
            prompt,
            3,
            replace(sampling, seed=n if seeded else None),
            ignore_eos=True,
            record=False,
        )
        for n in range(count)
    ]
    harness = drafting(length=2, max_batch=64)
    assert p_value(harness.run(*requests), prompt, sampling) > 1e-4
    # The test would notice nothing if nothing were accepted.
    assert likely > 0.02
    accepted = harness.engine.counters().ngram.accepted_per_position[0]
    assert abs(accepted / count - likely) < 4 * (likely / count) ** 0.5
