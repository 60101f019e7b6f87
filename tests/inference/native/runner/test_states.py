"""What entered the target's layers reaches the drafters that ask for it, at accepted positions."""

from __future__ import annotations

import random

import pytest
import torch

from aurora_inference.contract import Request, Sampling
from aurora_inference.slots.slots import FULL_BPS
from aurora_model.decoder import causal_attend

GREEDY = Sampling(temperature=0.0)


class WatchingDraft:
    """Drafts as another drafter does, and keeps what it observes of `target_layers`."""

    def __init__(self, drafter, target_layers):
        self._drafter = drafter
        self.name, self.digest = f"watching{target_layers}", f"sha256:{target_layers}"
        self.target_layers = target_layers
        self.add, self.remove, self.propose = drafter.add, drafter.remove, drafter.propose
        self.observed = {}

    @property
    def sequences(self):
        return self._drafter.sequences

    def observe(self, read, states):
        assert states.shape[0] == sum(count for _, count in read)
        for (sequence, _), piece in zip(
            read, states.split([count for _, count in read]), strict=True
        ):
            self.observed.setdefault(sequence.request.id, []).append(piece)


def _requests(count: int) -> list[Request]:
    draws = random.Random(0)
    return [
        Request(
            f"r{number}",
            tuple(draws.randrange(3, 96) for _ in range(draws.randint(1, 40))),
            draws.randint(2, 40),
            GREEDY,
            ignore_eos=True,
        )
        for number in range(count)
    ]


@torch.inference_mode()
def _entering(target, tokens: list[int], layers) -> torch.Tensor:
    """[T, layers × hidden]: what enters these layers, computed for all tokens at once."""
    states = target.decoder.states(
        torch.tensor([tokens]), torch.arange(len(tokens))[None], causal_attend, layers
    )[1]
    return torch.cat(states, dim=-1)[0]


def _watched(harness, make_draft, name: str, layers) -> WatchingDraft:
    return WatchingDraft(make_draft(name, harness.engine), layers)


@pytest.mark.parametrize("length", [0, 4])
@pytest.mark.parametrize("max_batch", [1, 5])
def test_states_are_those_of_the_accepted_tokens(
    make_engine, make_draft, target, max_batch, length
) -> None:
    harness = make_engine(draft=None, max_batch=max_batch, length=length)
    draft = _watched(harness, make_draft, "bad", (0, 2))
    harness.engine.stage("stable", draft)
    requests = _requests(30)
    outputs = harness.run(*requests)
    for request in requests:
        tokens = [*request.prompt_tokens, *outputs[request.id]]
        observed = torch.cat(draft.observed[request.id])
        # All but the newest token have been read, and the last step's tokens may go unused.
        assert len(tokens) - 1 <= len(observed) <= len(tokens) - 1 + length
        expected = _entering(target, tokens[:-1], (0, 2))
        torch.testing.assert_close(observed[: len(tokens) - 1], expected, atol=1e-3, rtol=1e-3)


def test_two_drafts_get_their_own_layers_in_one_batch(make_engine, make_draft, target) -> None:
    harness = make_engine(draft=None)
    drafts = {
        "stable": _watched(harness, make_draft, "bad", (1,)),
        "candidate": _watched(harness, make_draft, "good", (0, 1, 2)),
    }
    for slot, draft in drafts.items():
        harness.engine.stage(slot, draft)
    harness.engine.slots.split("rollout-1", FULL_BPS // 2)
    requests = _requests(24)
    outputs = harness.run(*requests)
    for request in requests:
        draft = drafts[harness.last[request.id].report.arm]
        tokens = [*request.prompt_tokens, *outputs[request.id]]
        expected = _entering(target, tokens[:-1], draft.target_layers)
        observed = torch.cat(draft.observed[request.id])[: len(tokens) - 1]
        torch.testing.assert_close(observed, expected, atol=1e-3, rtol=1e-3)
    assert sum(len(draft.observed) for draft in drafts.values()) == len(requests)


def test_nothing_is_kept_if_no_draft_asks(make_engine, target, monkeypatch) -> None:
    asked = []
    states = target.decoder.states

    def watched(tokens, positions, attend, layers=()):
        asked.append(tuple(layers))
        return states(tokens, positions, attend, layers)

    monkeypatch.setattr(target.decoder, "states", watched)
    make_engine(draft="bad").run(*_requests(4))
    assert set(asked) == {()}


@pytest.mark.parametrize("after", [1, 4])
def test_a_draft_that_cannot_take_states_costs_its_requests_their_draft(
    make_engine, make_draft, after
) -> None:
    harness = make_engine(draft=None)
    draft = _watched(harness, make_draft, "good", (1,))
    observe, calls = draft.observe, []

    def fails(read, states):
        calls.append(read)
        if len(calls) > after:
            raise RuntimeError("no memory")
        observe(read, states)

    draft.observe = fails
    harness.engine.stage("stable", draft)
    requests = _requests(12)
    plain = make_engine(draft=None, length=0).run(*requests)
    assert harness.run(*requests) == plain
    counters = harness.engine.counters()
    reports = [harness.last[request.id].report for request in requests]
    assert sum(each.drafted_tokens for each in reports) == counters.arms["stable"].drafted_tokens
    assert harness.engine.runner._rows == {}
    assert draft.sequences == []
