"""An EAGLE-3 head drafts as its teacher-forced reference does, and changes no text."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from aurora_inference.contract import Request, Sampling
from aurora_inference.native.runner.cpu import Cpu
from aurora_inference.native.runner.drafter.eagle3 import Eagle3Drafter
from aurora_inference.slots.slots import FULL_BPS
from aurora_model.decoder import causal_attend
from aurora_model.draft import Eagle3Draft, PackedTokens, load_draft, publish_draft
from aurora_model.weights import load_decoder

VOCABULARY, PROPOSED = 96, 61
GREEDY = Sampling(temperature=0.0)
AHEAD = 4
KINDS = ["shared", "reduced"]


class Exact(Cpu):
    """Leaves drafts in float32, so that what they propose can be computed again."""

    def tune_draft(self, draft) -> None:
        pass


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


def _packed(tokens: list[int]) -> PackedTokens:
    """One sequence, every position of which but the first and the last predicts."""
    count = len(tokens)
    return PackedTokens(
        tokens=torch.tensor([tokens]),
        positions=torch.arange(count)[None],
        lengths=(count,),
        rows=torch.arange(1, count - 1),
    )


def _states(decoder, head: Eagle3Draft, batch: PackedTokens) -> tuple[Tensor, Tensor]:
    """[1, N, V] and [1, N, 3 × hidden]: the target's logits, and what the head reads of it."""
    layers = head.target_layers(decoder.config)
    with torch.no_grad():
        hidden, states = decoder.states(batch.tokens, batch.positions, causal_attend, layers)
        return decoder.logits(hidden), torch.cat(states, dim=-1)


def _whole(head: Eagle3Draft, logits: Tensor) -> Tensor:
    if head.token_ids is None:
        return logits
    whole = torch.full((len(logits), VOCABULARY), -1e9)
    return whole.index_copy(1, head.token_ids, logits)


def _trained(decoder, head: Eagle3Draft, texts: list[list[int]]) -> Eagle3Draft:
    """Distils the target into a head, as far as a second or two allow."""
    owned = [each for each in head.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(owned, lr=3e-3)
    draws = random.Random(0)
    for _ in range(120):
        optimizer.zero_grad()
        for text in draws.sample(texts, 4):
            batch = _packed(text)
            logits, states = _states(decoder, head, batch)
            found = head.unrolled(batch, states, steps=3)
            wanted = logits[0, batch.rows][found.rows].softmax(-1)
            proposed = _whole(head, head.logits(found.features)).log_softmax(-1)
            (-(wanted * proposed).sum(-1).mean() / 4).backward()
        optimizer.step()
    return head


@pytest.fixture(scope="module")
def decoder(model_folders):
    """The target's weights as they are, which gradients can pass through."""
    return load_decoder(model_folders["target"], dtype=torch.float32).requires_grad_(False)


@pytest.fixture(scope="module")
def heads(decoder, target, make_engine, tmp_path_factory):
    """{kind: folder}: published heads, trained a little, and one from a random start."""
    texts = [
        [*request.prompt_tokens, *output]
        for request, output in _texts(make_engine(draft=None, length=0)).items()
    ]
    root = tmp_path_factory.mktemp("heads")
    torch.manual_seed(3)
    start = Eagle3Draft.random(decoder.config, seed=1)
    reduced = Eagle3Draft(replace(start.config, draft_vocab_size=PROPOSED, owns_head=True))
    reduced.load_state_dict(start.state_dict(), strict=False)
    ids = torch.randperm(VOCABULARY)[:PROPOSED].sort().values
    reduced.d2t.copy_(ids - torch.arange(PROPOSED))
    folders = {}
    for name, head in (
        ("shared", start),
        ("reduced", reduced),
        ("day0", Eagle3Draft.random(decoder.config, seed=2)),
    ):
        head.attach(decoder)
        if name != "day0":
            _trained(decoder, head, texts)
        folders[name], _ = publish_draft(head, root, name=name, target=target.identity)
    return folders


def _texts(harness) -> dict[Request, list[int]]:
    requests = _requests(60, seed=5)
    outputs = harness.run(*requests)
    return {each: outputs[each.id] for each in requests if len(outputs[each.id]) > 3}


@pytest.fixture
def drafter_of(heads, target):
    def make(name: str, engine) -> Eagle3Drafter:
        room = engine.runner.drafter_room._replace(device=Exact())
        return Eagle3Drafter.load(heads[name], digest="", target=target, room=room)

    return make


@pytest.fixture
def with_head(make_engine, drafter_of):
    def make(name: str, **options):
        harness = make_engine(draft=None, **options)
        harness.engine.stage("stable", drafter_of(name, harness.engine))
        return harness

    return make


@pytest.fixture(scope="module")
def proposed(heads, target, decoder):
    """proposed(name, tokens)[place, ahead]: the token drafted for a place, so far ahead."""
    loaded = {
        name: load_draft(folder, target=target.identity, dtype=torch.float32)[0]
        for name, folder in heads.items()
    }

    @torch.inference_mode()
    def computed(name: str, tokens: list[int]) -> dict[tuple[int, int], int]:
        head = loaded[name]
        head.attach(decoder)
        if len(tokens) < 2 * AHEAD:
            return {}
        batch = _packed(tokens)
        found = head.unrolled(batch, _states(decoder, head, batch)[1], steps=AHEAD)
        drafted = _whole(head, head.logits(found.features)).argmax(-1)
        places = batch.rows[found.rows] + 1
        keys = zip(places.tolist(), found.steps.tolist(), strict=True)
        return dict(zip(keys, drafted.tolist(), strict=True))

    return computed


def _check_steps(completion, drafted) -> int:
    """Every step accepted what the reference says; how many tokens were drafted.

    Of texts that are too short the reference says nothing.
    """
    if not drafted:
        return 0
    tokens = [*completion.request.prompt_tokens, *completion.output_tokens]
    place, count = len(completion.request.prompt_tokens) + 1, 0
    # A stop token may cut off the last step.
    for step in completion.steps[:-1]:
        accepted = 0
        while accepted < step.drafted and (
            drafted[place + accepted, accepted] == tokens[place + accepted]
        ):
            accepted += 1
        assert step.accepted == accepted
        place += step.accepted + 1
        count += step.drafted
    return count


@pytest.fixture(scope="module")
def plain(make_engine):
    """The outputs of 200 requests without speculation."""
    return make_engine(draft=None, length=0).run(*_requests(200))


@pytest.mark.parametrize("max_batch", [1, 8])
@pytest.mark.parametrize("name", [*KINDS, "day0"])
def test_greedy_text_is_that_without_speculation(with_head, plain, name, max_batch) -> None:
    harness = with_head(name, max_batch=max_batch)
    assert harness.run(*_requests(200)) == plain
    counters = harness.engine.counters().arms["stable"]
    if name != "day0":
        assert counters.accepted_tokens > 0.08 * counters.drafted_tokens


def test_a_head_is_served_by_its_kind(make_engine, heads, plain) -> None:
    harness = make_engine(draft=None)
    drafter = harness.engine.runner.load_drafter(heads["reduced"], "")
    assert isinstance(drafter, Eagle3Drafter)
    assert "eagle3" in harness.engine.runner.draft_kinds
    harness.engine.stage("stable", drafter)
    requests = _requests(200)[:40]
    assert harness.run(*requests) == {each.id: plain[each.id] for each in requests}
    assert harness.engine.counters().arms["stable"].accepted_tokens > 0


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("max_batch", [1, 8])
def test_what_is_accepted_is_what_teacher_forcing_says(
    with_head, proposed, name, max_batch
) -> None:
    harness = with_head(name, max_batch=max_batch, length=AHEAD)
    harness.run(*_requests(60))
    drafted = 0
    for completion in harness.completions:
        tokens = [*completion.request.prompt_tokens, *completion.output_tokens]
        drafted += _check_steps(completion, proposed(name, tokens))
    assert drafted > 1_000


@pytest.mark.parametrize("pause", [1, 90])
def test_rows_that_did_not_draft_catch_up(with_head, proposed, monkeypatch, pause) -> None:
    harness = with_head("shared", max_batch=4, length=AHEAD)
    numbers = iter(range(100_000))

    def choose(digests, matches, *, minimum):
        return AHEAD if next(numbers) % (pause + 3) >= pause else 0

    monkeypatch.setattr(harness.engine.speculation, "choose", choose)
    long = [
        replace(each, max_tokens=150, ignore_eos=True, prompt_tokens=each.prompt_tokens[:20])
        for each in _requests(9)
    ]
    harness.run(*long)
    drafted = 0
    for completion in harness.completions:
        tokens = [*completion.request.prompt_tokens, *completion.output_tokens]
        drafted += _check_steps(completion, proposed("shared", tokens))
    assert drafted > 0


def test_two_heads_draft_in_one_batch(make_engine, drafter_of, proposed, plain) -> None:
    harness = make_engine(draft=None, length=AHEAD)
    engine = harness.engine
    names = {"stable": "shared", "candidate": "reduced"}
    for slot, name in names.items():
        engine.stage(slot, drafter_of(name, engine))
    engine.slots.split("rollout-1", FULL_BPS // 2)
    requests = _requests(80)
    assert harness.run(*requests) == {each.id: plain[each.id] for each in requests}
    drafted = dict.fromkeys(names, 0)
    for completion in harness.completions:
        tokens = [*completion.request.prompt_tokens, *completion.output_tokens]
        arm = completion.report.arm
        drafted[arm] += _check_steps(completion, proposed(names[arm], tokens))
    assert min(drafted.values()) > 300


def test_a_promotion_leaves_requests_in_flight_their_head(make_engine, drafter_of) -> None:
    harness = make_engine(draft=None, length=AHEAD, max_batch=4)
    engine = harness.engine
    engine.stage("stable", drafter_of("shared", engine))
    requests = [replace(each, max_tokens=40, ignore_eos=True) for each in _requests(3)]
    for request in requests:
        engine.submit(request)
    for _ in range(5):
        harness.step()
    candidate = drafter_of("reduced", engine)
    engine.stage("candidate", candidate)
    engine.promote(candidate.digest)
    later = replace(requests[0], id="later")
    harness.run(later)
    assert {harness.last[each.id].report.draft.split("-")[0] for each in requests} == {"shared"}
    assert harness.last["later"].report.draft.startswith("reduced")
    assert harness.tokens["later"] == harness.tokens[requests[0].id]


def test_a_reduced_vocabulary_proposes_its_own_tokens_alone(with_head, monkeypatch) -> None:
    harness = with_head("reduced")
    (drafter,) = harness.engine._drafters.values()
    proposals = []
    propose = drafter.propose

    def watched(*arguments):
        proposals.append(propose(*arguments))
        return proposals[-1]

    monkeypatch.setattr(drafter, "propose", watched)
    outputs = harness.run(*_requests(20, sampling=Sampling(temperature=6.0)))
    allowed = set(drafter._token_ids.tolist())
    assert any(token not in allowed for tokens in outputs.values() for token in tokens)
    lacking = [token for token in range(VOCABULARY) if token not in allowed]
    assert proposals
    for proposal in proposals:
        assert (proposal.probs[..., lacking] == 0).all()
        torch.testing.assert_close(proposal.probs.sum(-1), torch.ones(proposal.probs.shape[:-1]))


@pytest.mark.parametrize("name", [*KINDS, "day0"])
def test_a_seed_gives_the_text_that_it_gives_without_a_draft(make_engine, with_head, name) -> None:
    requests = [
        replace(each, sampling=Sampling(temperature=2.0, top_p=0.9, seed=number))
        for number, each in enumerate(_requests(24))
    ]
    plain = make_engine(draft=None, length=0, max_batch=1).run(*requests)
    assert with_head(name, adaptive=True).run(*requests) == plain


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("sampling", "seeded"),
    [
        (Sampling(temperature=3.0, top_k=12), True),
        (Sampling(temperature=10.0, top_p=0.6), False),
    ],
    ids=["coupled", "optimal"],
)
def test_sampled_text_follows_the_exact_distribution(
    with_head, p_value, name, sampling, seeded
) -> None:
    prompt, count = (5, 17, 33, 8), 6_000
    harness = with_head(name, length=2, max_batch=64)
    requests = [
        Request(
            f"s{n}",
            prompt,
            3,
            replace(sampling, seed=n if seeded else None),
            ignore_eos=True,
            record=False,
        )
        for n in range(count)
    ]
    assert p_value(harness.run(*requests), prompt, sampling) > 1e-4
    assert harness.engine.counters().arms["stable"].accepted_tokens > 0
