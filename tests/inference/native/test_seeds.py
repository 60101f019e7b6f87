"""A seed gives one text, whatever drafts, at whatever length, beside whatever else runs."""

from __future__ import annotations

import random

import pytest

from aurora_inference.contract import Request, Sampling

VOCABULARY = 96
SEEDED = [
    Request(
        f"seeded{number}",
        tuple(range(3 + number, 3 + 4 * number + 2)),
        40,
        sampling,
        ignore_eos=True,
    )
    for number, sampling in enumerate(
        [
            Sampling(temperature=2.0, seed=11),
            Sampling(temperature=3.0, top_k=20, seed=-12),
            Sampling(temperature=2.5, top_p=0.8, seed=(1 << 64) - 1),
            Sampling(temperature=2.0, top_p=0.9, top_k=40, seed=0),
        ]
    )
]


def _neighbours(number: int) -> list[Request]:
    """Requests of every kind; others for each number."""
    draws = random.Random(number)
    kinds = [
        Sampling(temperature=0.0),
        Sampling(temperature=1.5),
        Sampling(temperature=2.0, top_p=0.7, seed=number),
        Sampling(temperature=3.0, top_k=5),
    ]
    return [
        Request(
            f"neighbour{number}-{place}",
            tuple(draws.randrange(3, VOCABULARY) for _ in range(draws.randint(1, 40))),
            draws.randint(1, 30),
            draws.choice(kinds),
        )
        for place in range(draws.randint(0, 8))
    ]


def _seeded_texts(harness, number: int) -> dict[str, list[int]]:
    """What the seeded requests say when they arrive among neighbours, in any order."""
    requests = [*SEEDED, *_neighbours(number)]
    random.Random(number).shuffle(requests)
    harness.tokens.clear()
    outputs = harness.run(*requests)
    return {request.id: outputs[request.id] for request in SEEDED}


@pytest.fixture(scope="module")
def alone(make_engine):
    """The same requests one by one, without speculation."""
    harness = make_engine(draft=None, length=0, max_batch=1)
    return {request.id: harness.run(request)[request.id] for request in SEEDED}


@pytest.mark.parametrize("draft", [None, "good", "bad", "random"])
@pytest.mark.parametrize("length", range(7))
def test_a_seeds_text_is_the_same_at_every_speculation_length(
    make_engine, alone, draft, length
) -> None:
    assert _seeded_texts(make_engine(draft=draft, length=length), length) == alone


@pytest.mark.parametrize("max_batch", [1, 2, 5, 8])
@pytest.mark.parametrize("draft", [None, "bad"])
def test_a_seeds_text_is_the_same_in_every_batch(make_engine, alone, draft, max_batch) -> None:
    harness = make_engine(draft=draft, length=6, adaptive=True, max_batch=max_batch)
    for number in range(5):
        assert _seeded_texts(harness, number) == alone


def test_a_seeds_text_is_the_same_across_rollouts(make_engine, make_draft, alone) -> None:
    harness = make_engine(draft="bad", max_batch=6)
    engine = harness.engine
    for number, (candidate, split_bps) in enumerate(
        [("random", 5_000), ("good", 2_000), ("bad", 9_000)]
    ):
        engine.stage("candidate", make_draft(candidate, engine))
        engine.slots.split(f"rollout-{number}", split_bps)
        harness.tokens.clear()
        for request in [*_neighbours(number), *SEEDED]:
            engine.submit(request)
        steps = 0
        while not engine.idle:
            harness.step()
            steps += 1
            if steps == 20:
                engine.promote(f"sha256:{candidate}")
        assert {request.id: harness.tokens[request.id] for request in SEEDED} == alone


def test_seeds_differ_and_so_do_requests_without_one(make_engine) -> None:
    harness = make_engine(draft="bad")
    prompt = (5, 17, 33, 8)

    def texts(seeds: list[int | None]) -> set[tuple[int, ...]]:
        requests = [
            Request(f"{number}", prompt, 30, Sampling(temperature=3.0, seed=seed), ignore_eos=True)
            for number, seed in enumerate(seeds)
        ]
        harness.tokens.clear()
        return {tuple(tokens) for tokens in harness.run(*requests).values()}

    assert len(texts([*range(10)])) == 10
    assert len(texts([None] * 10)) == 10
    assert len(texts([4] * 10)) == 1
