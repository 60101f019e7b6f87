"""Shares of a gradient add up to the batch's, and invalid ones are refused with the reason."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import pytest
import torch

from aurora.trainer.v1 import gradient_pb2, gradient_pb2_grpc
from aurora_common.errors import InvalidInputError
from aurora_common.grpc_server import MESSAGE_OPTIONS, GrpcServer
from aurora_model.draft import StandaloneDraft, random_draft, small_draft_config
from aurora_trainer.data.batch import pack, smallest_entries
from aurora_trainer.learning.gradient import LocalGradient, differentiate
from aurora_trainer.learning.objective import objective_named
from aurora_trainer.replica.call import Outgoing, answer
from aurora_trainer.replica.parameter import blank_draft, gradients, parameters
from aurora_trainer.replica.servicer import GRADIENT_SERVICE, GradientServicer
from aurora_trainer.replica.share import ShareTask, batch_tensors, config_text
from aurora_trainer.replica.shares import shares
from aurora_trainer.replica.tensor_file import pieces


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def draft(target, request):
    config = replace(small_draft_config(target.decoder.config), tie_word_embeddings=request.param)
    return random_draft(config, seed=1)


def uneven(samples):
    """Samples of several lengths and k."""
    return [
        replace(
            sample,
            tokens=sample.tokens[number % 3 :],
            top_ids=sample.top_ids[:, : 5 + number % 3],
            log_probs=sample.log_probs[:, : 5 + number % 3],
        )
        for number, sample in enumerate(samples)
    ]


@pytest.mark.parametrize("objective", ["LK", "ForwardKL"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shares_gradients_add_up_to_the_batchs(draft, make_samples, count, objective):
    samples = uneven(make_samples(7))
    loss = objective_named(objective)
    whole = LocalGradient(loss).differentiate(draft, samples)
    expected = {name: each.clone() for name, each in gradients(draft).items()}
    draft.zero_grad()
    positions = sum(sample.output_count for sample in samples)
    entries = smallest_entries(samples)
    measures = [
        differentiate(
            draft, pack([samples[i] for i in part], entries=entries), loss, positions=positions
        )
        for part in shares([len(sample.tokens) for sample in samples], [0] * count)
    ]
    for name, found in gradients(draft).items():
        torch.testing.assert_close(found, expected[name], atol=1e-6, rtol=1e-4)
    assert sum(each.loss for each in measures) == pytest.approx(whole.loss, abs=1e-5)
    assert sum(each.acceptance for each in measures) == pytest.approx(whole.acceptance, abs=1e-5)


def test_a_blank_draft_has_the_drafts_parameters(draft):
    blank = blank_draft(StandaloneDraft, draft.config)
    assert {name: each.shape for name, each in parameters(blank).items()} == {
        name: each.shape for name, each in parameters(draft).items()
    }


def outgoing(draft, samples, **changes) -> Outgoing:
    batch = pack(samples)
    share = Outgoing(
        draft_kind=draft.kind,
        draft_config=config_text(draft),
        objective="LK",
        positions=len(batch.rows),
        lengths=batch.lengths,
        batch=batch_tensors(batch),
    )
    return replace(share, **changes)


async def asked(channel, share, weights):
    room = {name: torch.ones_like(each) for name, each in weights.items()}
    return await answer(channel, share, weights, into=room)


@asynccontextmanager
async def served():
    servicer = GradientServicer()
    server = GrpcServer("127.0.0.1:0", drain_seconds=0.1)
    server.add(gradient_pb2_grpc.add_GradientServicer_to_server, servicer)
    port = await server.start([GRADIENT_SERVICE])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=MESSAGE_OPTIONS) as channel:
        yield channel, servicer
    await server.stop()


async def computed(channel, draft, samples):
    return await asked(channel, outgoing(draft, samples), parameters(draft))


async def test_a_replica_computes_what_we_would(draft, make_samples):
    samples = make_samples(3)
    async with served() as (channel, servicer):
        for _ in range(2):
            found = await computed(channel, draft, samples)
            draft.zero_grad()
            measure = LocalGradient(objective_named("LK")).differentiate(draft, samples)
            assert found.measure == measure
            for name, expected in gradients(draft).items():
                torch.testing.assert_close(found.gradients[name], expected)
            with torch.no_grad():
                draft.norm.weight += 0.1
        assert servicer.computed == 2


def without(name):
    return lambda tensors: {key: each for key, each in tensors.items() if key != name}


def with_changed(name, change):
    return lambda tensors: {**tensors, name: change(tensors[name])}


def of_one_too_few_rows(tensors):
    return {name: each if name == "tokens" else each[:-1].clone() for name, each in tensors.items()}


def of_many_entries(tensors):
    rows = len(tensors["rows"])
    more = {"top_ids": torch.int64, "log_probs": torch.float32}
    return tensors | {name: torch.zeros(rows, 65, dtype=dtype) for name, dtype in more.items()}


def without_rows(tensors):
    return {name: each if name == "tokens" else each[:0].clone() for name, each in tensors.items()}


BATCHES = {
    "no rows": (without("rows"), "allowed is"),
    "more": (lambda tensors: {**tensors, "more": torch.zeros(1)}, "allowed is"),
    "float tokens": (with_changed("tokens", lambda each: each.float()), "allowed is"),
    "flat tokens": (with_changed("tokens", lambda each: each[0].clone()), "tokens has shape"),
    "scalar": (with_changed("top_ids", lambda each: each[0, 0].clone()), "top_ids has shape"),
    "high token": (with_changed("tokens", lambda each: each + 64), "vocabulary of 64"),
    "low token": (with_changed("top_ids", lambda each: each - 64), "vocabulary of 64"),
    "rows beyond": (with_changed("rows", lambda each: each + 1), "rows do not increase"),
    "rows before": (with_changed("rows", lambda each: each - 10), "rows do not increase"),
    "rows twice": (with_changed("rows", lambda each: each.sort().values * 0), "do not increase"),
    "no tails": (with_changed("tail_mass", lambda each: each[:-1].clone()), "tail_mass has shape"),
    "many entries": (of_many_entries, "there are 65 top-k entries: allowed is 1 to 64"),
    "empty": (without_rows, "there are 0 rows"),
}


@pytest.mark.parametrize("name", BATCHES)
async def test_an_invalid_batch_is_refused_and_the_next_computed(target, make_samples, name):
    change, message = BATCHES[name]
    draft = random_draft(small_draft_config(target.decoder.config), seed=1)
    samples = make_samples(2)
    share = outgoing(draft, samples)
    share = replace(share, batch=change(share.batch))
    await refused_with(message, draft, samples, share)


TASKS = {
    "objective": ({"objective": "Kindness"}, "objective is 'Kindness': allowed is"),
    "unknown kind": ({"draft_kind": "psychic"}, "'psychic': supported is eagle3, standalone"),
    "a head": ({"draft_kind": "eagle3"}, "draft_kind is 'eagle3', which only trains at its target"),
    "no json": ({"draft_config": "{"}, "draft_config is not a config.json"),
    "a list": ({"draft_config": "[1]"}, "draft_config is not a config.json"),
    "deep": ({"draft_config": "[" * 20_000}, "draft_config is not a config.json"),
    "long": ({"draft_config": " " * 100_000}, "draft_config has 100000 characters"),
    "no config": ({"draft_config": '{"model_type": "gpt"}'}, "model_type is 'gpt'"),
    "no positions": ({"positions": 0}, "positions is 0: allowed is 1 to"),
    "fewer positions": ({"positions": 1}, "rows: allowed is 1 to 1"),
    "no lengths": ({"lengths": ()}, "sequences is 0: allowed is 1 to"),
    "an empty sequence": ({"lengths": (46, 0)}, "shortest sequence is 0"),
    "lengths beyond": ({"lengths": (23, 24)}, "tokens has shape [1, 46], not [1, 47]"),
    "tokens without end": ({"lengths": (2**32 - 1,) * 9}, "allowed is 1 to"),
    "no batch": ({"batch": {}}, "the batch has {}: allowed is"),
    "a large batch": ({"batch": {"rows": torch.zeros(1 << 18)}}, "have more bytes than allowed"),
}


@pytest.mark.parametrize("name", TASKS)
async def test_an_invalid_task_is_refused_and_the_next_computed(target, make_samples, name):
    changes, message = TASKS[name]
    draft = random_draft(small_draft_config(target.decoder.config), seed=1)
    samples = make_samples(2)
    await refused_with(message, draft, samples, outgoing(draft, samples, **changes))


async def test_a_model_that_is_too_large_is_refused_before_it_is_made(target, make_samples):
    draft = random_draft(small_draft_config(target.decoder.config), seed=1)
    samples = make_samples(2)
    config = json.loads(config_text(draft))
    for change, message in (
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"vocab_size": 10**14}, "does not fit into memory"),
    ):
        share = outgoing(draft, samples, draft_config=json.dumps(config | change))
        await refused_with(message, draft, samples, share)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {**tensors, "more": torch.zeros(1)}, "'more'"),
        (with_changed("norm.weight", lambda each: each[:3].clone()), "'norm.weight'"),
        (with_changed("norm.weight", lambda each: each.long()), "'norm.weight'"),
        (without("norm.weight"), "'norm.weight'"),
    ],
)
async def test_weights_are_those_of_the_config(target, make_samples, change, message):
    draft = random_draft(small_draft_config(target.decoder.config), seed=1)
    samples = make_samples(2)
    async with served() as (channel, _):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await asked(channel, outgoing(draft, samples), change(parameters(draft)))
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "the weights do not fit the draft's config" in refusal.value.details()
        assert message in refusal.value.details()
        assert (await computed(channel, draft, samples)).measure.loss > 0


def test_however_large_the_vocabulary_the_batch_is_bounded(target):
    config = replace(small_draft_config(target.decoder.config), vocab_size=150_000)
    task = ShareTask(StandaloneDraft, config, "LK", positions=1, lengths=(10,))
    assert task.most_entries == 1024
    assert task.batch_limit_bytes < 10 * 1024 * 12 + 10_000


async def test_an_answer_that_is_not_finite_is_refused(target, make_samples):
    draft = random_draft(small_draft_config(target.decoder.config), seed=1)
    samples = make_samples(2)
    weights = parameters(draft) | {"norm.weight": torch.full_like(draft.norm.weight, torch.nan)}
    async with served() as (channel, _):
        with pytest.raises(InvalidInputError, match="is not finite"):
            await asked(channel, outgoing(draft, samples), weights)
        assert (await computed(channel, draft, samples)).measure.loss > 0


async def refused_with(message, draft, samples, share):
    async with served() as (channel, servicer):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await asked(channel, share, parameters(draft))
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert message in refusal.value.details()
        assert servicer.computed == 0
        assert (await computed(channel, draft, samples)).measure.loss > 0


def content(tensors) -> bytes:
    return b"".join(pieces(tensors))


def requests_for(draft, samples):
    share, weights = outgoing(draft, samples), content(parameters(draft))
    task = gradient_pb2.Task(
        draft_config=share.draft_config,
        objective=share.objective,
        positions=share.positions,
        lengths=share.lengths,
    )
    request = gradient_pb2.ComputeRequest
    return [request(task=task), request(batch=content(share.batch)), request(weights=weights)]


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a lock knows no events
            await asyncio.sleep(0)


async def stream(*messages):
    for message in messages:
        yield message


async def test_anything_but_a_task_with_its_pieces_is_refused(target, make_samples):
    draft = random_draft(small_draft_config(target.decoder.config), seed=1)
    samples = make_samples(2)
    task, batch, weights = requests_for(draft, samples)
    streams = (
        ([], "the first message holds None"),
        ([batch], "the first message holds batch"),
        ([task, batch, task, weights], "a later message holds task"),
        ([task, batch], "the weights end before their last tensor"),
        ([task, weights], "the batch's tensors are not a safetensors file"),
        ([task, batch, weights, weights], "the weights go on after their last tensor"),
    )
    async with served() as (channel, _):
        stub = gradient_pb2_grpc.GradientStub(channel)
        for messages, expected in streams:
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                async for _ in stub.Compute(stream(*messages), timeout=30):
                    pass
            assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert expected in refusal.value.details()
        assert (await computed(channel, draft, samples)).measure.loss > 0


async def test_a_second_share_at_the_same_time_is_refused(target, make_samples):
    draft = random_draft(small_draft_config(target.decoder.config), seed=1)
    samples = make_samples(2)
    task, batch, weights = requests_for(draft, samples)
    hold, begun = asyncio.Event(), asyncio.Event()

    async def held():
        yield task
        yield batch
        begun.set()
        await hold.wait()
        yield weights

    async with served() as (channel, servicer):
        stub = gradient_pb2_grpc.GradientStub(channel)
        call = stub.Compute(held(), timeout=30)
        await asyncio.wait_for(begun.wait(), 30)
        await until(servicer._seat.locked)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await computed(channel, draft, samples)
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        hold.set()
        parts = [response.WhichOneof("part") async for response in call]
        assert parts[:2] == ["accepted", "result"]
        assert set(parts[2:]) == {"gradient"}
        assert (await computed(channel, draft, samples)).measure.loss > 0


async def test_a_cancelled_call_releases_the_seat(target, make_samples):
    draft = random_draft(small_draft_config(target.decoder.config), seed=1)
    samples = make_samples(2)
    task, batch, weights = requests_for(draft, samples)
    async with served() as (channel, servicer):
        stub = gradient_pb2_grpc.GradientStub(channel)
        for messages in ([task, batch], [task, batch, weights]):
            call = stub.Compute(timeout=30)
            for message in messages:
                await call.write(message)
            await until(servicer._seat.locked)
            call.cancel()
            await until(lambda: not servicer._seat.locked())
        assert (await computed(channel, draft, samples)).measure.loss > 0
