"""What the gateway counts, attributes and records, against vLLM's own figures."""

from __future__ import annotations

import asyncio

import httpx2
import numpy as np
import pytest
from stock.counters import by_position, generates, totals
from stock.server import gathered

from aurora.inference.v1 import inference_pb2 as pb


def message(models, draft) -> pb.Draft:
    return pb.Draft(name=draft.name, digest=draft.digest, uri=models.folder(draft).as_uri())


def stage(stub, models, draft, slot) -> None:
    stub.StageDraft(pb.StageDraftRequest(slot=slot, draft=message(models, draft)), timeout=60)


def split(stub, rollout, bps) -> None:
    stub.SetTraffic(pb.SetTrafficRequest(rollout_id=rollout, candidate_bps=bps), timeout=60)


async def complete(http, prompt, **more) -> httpx2.Response:
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 64, "ignore_eos": True}
    headers = more.pop("headers", {})
    answer = await http.post(
        "/v1/completions", json=body | {"temperature": 0} | more, headers=headers
    )
    assert answer.status_code == 200, answer.text
    return answer


@pytest.fixture
async def http(gateway):
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=120) as client:
        yield client


@pytest.fixture
def stub(gateway):
    with gateway.operator() as found:
        yield found


@pytest.fixture
def twin_stable(stub, models):
    """The twin is stable, and nothing else is there."""
    stub.UnstageDraft(pb.UnstageDraftRequest(), timeout=60)
    stage(stub, models, models.twin, pb.SLOT_STABLE)


async def test_counters_are_vllms_own_under_mixed_load(http, plain, twin_stable):
    before = totals((await http.get("/metrics")).text)

    async def one(number: int) -> None:
        more: dict = {"stream": number % 2 == 0, "max_tokens": 5 + 7 * (number % 9)}
        if number % 3 == 0:
            more |= {"temperature": 0.8, "seed": number}
        if number % 4 == 0:
            more |= {"logprobs": 3}
        if number % 5 == 0:
            # Not a stop string: vLLM's front end finds it while the engine goes on, unreported.
            more |= {"ignore_eos": False, "stop_token_ids": [plain.outputs[number % 16][4]]}
        await complete(http, plain.prompts[number % 16], **more)

    for start in range(0, 48, 8):
        await gathered(*(one(number) for number in range(start, start + 8)))
    after = totals((await http.get("/metrics")).text)
    for name, (own, engines) in after.items():
        assert own - before[name][0] == engines - before[name][1] > 0, name
    page = (await http.get("/metrics")).text
    positions = by_position(page, "vllm:spec_decode_num_accepted_tokens_per_pos_total")
    own = by_position(page, "aurora_spec_accepted_tokens_total")
    assert sum(own.values()) <= sum(positions.values())


async def test_steps_are_counted_for_the_draft_that_proposed(
    http, stub, models, plain, twin_stable
):
    """All of the twin's tokens are accepted and hardly any of the stranger's: the steps tell."""
    stage(stub, models, models.stranger, pb.SLOT_CANDIDATE)

    def arms() -> dict[str, np.ndarray]:
        found = stub.GetCounters(pb.GetCountersRequest(), timeout=30).arms
        return {
            arm.arm: np.array([arm.verify_steps, arm.drafted_tokens, arm.accepted_tokens])
            for arm in found
        }

    before = arms()

    async def one(number: int) -> None:
        salt = f"{number}-{np.random.default_rng().integers(1 << 60)}"
        more = {"stream": number % 2 == 0, "cache_salt": salt, "max_tokens": 200}
        await complete(http, plain.prompts[number], **more)

    async def page() -> str:
        return (await http.get("/metrics")).text

    async def switch() -> None:
        await generates(page, 8 * 20)
        await asyncio.to_thread(split, stub, "r", 10_000)

    for _ in range(4):
        await gathered(switch(), *(one(number) for number in range(8)))
        # Back only when nothing is in flight, for the stranger's cache misleads the twin.
        await asyncio.to_thread(split, stub, "", 0)
    after = arms()
    stable, candidate = (after[arm] - before[arm] for arm in ("stable", "candidate"))
    assert min(stable[0], candidate[0]) > 20
    assert stable[2] / stable[1] > 0.9
    assert candidate[2] / candidate[1] < 0.1


async def test_a_trajectory_has_the_targets_distributions(
    http, gateway, models, plain, twin_stable
):
    headers = {"x-aurora-domain": "captured", "x-aurora-tenant": "acme"}
    answer = (
        await complete(
            http,
            plain.prompts[0],
            headers=headers,
            logprobs=5,
            return_tokens_as_token_ids=True,
            return_token_ids=True,
        )
    ).json()["choices"][0]
    (made,) = await asyncio.to_thread(gateway.buffer.of, "captured")
    assert list(made.prompt_tokens) == plain.prompts[0]
    assert list(made.output_tokens) == answer["token_ids"] == plain.outputs[0][:64]
    assert (made.tenant, made.draft_digest, made.arm) == ("acme", models.twin.digest, "stable")
    assert sum(1 + step.accepted for step in made.steps) + 1 >= 64
    k = made.target.k
    ids = np.frombuffer(made.target.token_ids, "<u4").reshape(-1, k)
    log_probs = np.frombuffer(made.target.log_probs, "<f2").reshape(-1, k).astype(np.float32)
    tail = np.frombuffer(made.target.tail_mass, "<f2").astype(np.float32)
    assert (k, len(ids)) == (64, 64)
    np.testing.assert_allclose(np.exp(log_probs).sum(1) + tail, 1, atol=2e-3)
    for row, top in enumerate(answer["logprobs"]["top_logprobs"]):
        own = dict(zip(ids[row].tolist(), log_probs[row].tolist(), strict=True))
        for token, value in top.items():
            assert own[int(token.removeprefix("token_id:"))] == pytest.approx(value, abs=0.01)


async def test_a_trajectory_takes_few_bytes(http, gateway, plain, twin_stable):
    for number in range(4):
        headers = {"x-aurora-domain": "bytes"}
        await complete(http, plain.prompts[number], max_tokens=160, headers=headers)
    for made in await asyncio.to_thread(gateway.buffer.of, "bytes", 4):
        tokens = len(made.output_tokens)
        captured = made.ByteSize()
        made.ClearField("target")
        assert captured / tokens <= 450
        assert made.ByteSize() / (tokens + len(made.prompt_tokens)) <= 10


async def test_what_opts_out_is_not_recorded(http, gateway, plain, twin_stable):
    await complete(
        http, plain.prompts[0], headers={"x-aurora-domain": "out", "x-aurora-no-train": "1"}
    )
    await complete(http, plain.prompts[0], headers={"x-aurora-domain": "after"})
    await asyncio.to_thread(gateway.buffer.of, "after")
    assert not [one for one in gateway.buffer.trajectories if one.domain == "out"]


async def test_a_switchback_canary_tells_a_better_draft_from_a_worse(
    http, stub, models, plain, twin_stable
):
    stage(stub, models, models.cousin, pb.SLOT_CANDIDATE)
    done = asyncio.Event()

    async def load(number: int) -> None:
        while not done.is_set():
            await complete(http, plain.prompts[number], max_tokens=32, stream=number % 2 == 0)

    def page() -> pb.ListOutcomesResponse:
        return stub.ListOutcomes(pb.ListOutcomesRequest(rollout_id="canary"), timeout=30)

    async def watch() -> None:
        async with asyncio.timeout(60):
            while len((await asyncio.to_thread(page)).outcomes) < 6:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        done.set()

    split(stub, "canary", 5000)
    await gathered(watch(), *(load(number) for number in range(6)))
    stub.UnstageDraft(pb.UnstageDraftRequest(), timeout=60)
    outcomes = page().outcomes
    for stable, candidate in zip(outcomes[::2], outcomes[1::2], strict=False):
        assert (stable.arm, candidate.arm) == ("stable", "candidate")
        assert stable.pair == candidate.pair > 0
        assert min(stable.requests, candidate.requests) > 5
        rates = [one.accepted_tokens / one.drafted_tokens for one in (stable, candidate)]
        assert rates[0] > 0.9 > rates[1]
