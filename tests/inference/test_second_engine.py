"""An engine that is not the native one serves both fronts: it fulfils the contract, no more."""

from __future__ import annotations

import httpx2
import pytest

from aurora.inference.v1 import inference_pb2
from aurora_inference.contract import (
    ArmCounters,
    Capabilities,
    EngineCounters,
    EngineStatus,
    Progress,
    Receipt,
    Served,
    SpeculationReport,
)
from aurora_inference.grpc.servicer import InferenceServicer
from aurora_inference.http.app import openai_app
from aurora_inference.serving.gate import Gate, Serving
from aurora_inference.serving.metrics import RequestMetrics
from aurora_inference.serving.text_service import ServedModel, TextService
from aurora_inference.slots.outcome_log import OutcomeLog
from aurora_inference.slots.slots import Slots

INSTANCE = "echo-1"
DRAFT = inference_pb2.Draft(name="ckpt-1", digest="sha256:" + "1" * 64, uri="file:///ckpt-1")


class EchoEngine:
    """Answers with the prompt's own tokens; its drafts are names alone."""

    def __init__(self):
        self.slots = Slots(OutcomeLog(INSTANCE))
        self.counts = {"stable": ArmCounters(), "candidate": ArmCounters()}

    def submit(self, request, sink):
        assignment = self.slots.assign(0.0)
        self.counts[assignment.arm].requests += 1
        served = Served(4, 3, time_to_first_token_us=7000, time_per_output_token_us=900)
        self.slots.end(assignment, "completed", served)
        draft = assignment.draft
        report = SpeculationReport(draft.name, draft.digest, assignment.arm, 1, 4, 3)
        sink(Progress(request.id, request.prompt_tokens[: request.max_tokens], "length", report))

    def cancel(self, request_id, *, answered=False):
        """A request has ended by the time it could be cancelled."""

    def problem(self):
        return ""

    async def capabilities(self):
        return Capabilities(2, ("PerRequest",), (), ("echo",))

    async def status(self):
        slots = self.slots
        rollout_id = slots.outcomes.rollout_id
        return EngineStatus(
            INSTANCE, slots.stable, slots.candidate, rollout_id, slots.candidate_bps, 4
        )

    async def counters(self):
        return EngineCounters(INSTANCE, self.counts, running=0, waiting=0)

    async def stage(self, slot, draft):
        self.slots.stage(slot, draft)

    async def unstage(self):
        self.slots.unstage()

    async def promote(self, digest):
        self.slots.promote(digest)
        return Receipt(3)

    async def split(self, rollout_id, candidate_bps, *, crossed=False):
        self.slots.split(rollout_id, candidate_bps)

    async def outcomes(self, rollout_id, *, cursor, limit):
        return self.slots.outcomes.page(rollout_id, cursor, limit)

    async def drain(self):
        """Nothing waits to be read."""


@pytest.fixture
def gate(tokenizer):
    engine = EchoEngine()
    model = ServedModel("echo", 64, len(tokenizer), 0, 1_700_000_000)
    text = TextService(engine, tokenizer, model, RequestMetrics("echo"))
    opened = Gate()
    opened.open(Serving(text, engine, "sha256:target", "sha256:tokenizer", None))
    return opened


async def test_a_canary_runs_on_it_from_staging_to_promotion(gate):
    servicer = InferenceServicer(gate)
    transport = httpx2.ASGITransport(openai_app(gate, opt_out_header="x-aurora-no-train"))
    await servicer.StageDraft(
        inference_pb2.StageDraftRequest(slot=inference_pb2.SLOT_CANDIDATE, draft=DRAFT), None
    )
    await servicer.SetTraffic(
        inference_pb2.SetTrafficRequest(rollout_id="chat-1", candidate_bps=5000), None
    )
    async with httpx2.AsyncClient(transport=transport, base_url="http://aurora") as client:
        body = {"model": "echo", "prompt": "hello", "max_tokens": 8}
        answer = (await client.post("/v1/completions", json=body)).json()

    assert answer["choices"][0]["text"] == "hello"
    assert answer["aurora"]["arm"] == "candidate"
    page = await servicer.ListOutcomes(
        inference_pb2.ListOutcomesRequest(rollout_id="chat-1", instance=INSTANCE), None
    )
    (outcome,) = page.outcomes
    assert (outcome.time_to_first_token_us, outcome.time_per_output_token_us) == (7000, 900)
    promoted = await servicer.PromoteDraft(
        inference_pb2.PromoteDraftRequest(digest=DRAFT.digest), None
    )
    assert promoted.pause_microseconds == 3
    status = await servicer.GetStatus(inference_pb2.GetStatusRequest(), None)
    assert (status.stable.digest, status.HasField("candidate")) == (DRAFT.digest, False)
