"""Stands in for inference: the real slots' contract, and traffic that it makes up itself.

A draft's acceptance is the `acceptance` in its aurora.json; one without is refused. With its
`slowdown` a token takes so many times longer. Each promotion is written to stderr.
"""

import asyncio
import random
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from aurora.inference.v1 import inference_pb2, inference_pb2_grpc
from aurora_common import leash
from aurora_common.checkpoint import read_manifest
from aurora_common.errors import CheckpointError, ConflictError
from aurora_common.grpc_server import GrpcServer, stop_signal

DRAFTED_TOKENS = 20
TOKEN_US = 20_000


class Inference(inference_pb2_grpc.InferenceServicer):
    def __init__(self):
        self.instance = uuid.uuid4().hex
        self.draw = random.Random(11)
        self.stable = self.candidate = None
        self.acceptance = {}
        self.slowdown = {}
        self.rollout_id, self.candidate_bps = "", 0
        self.outcomes = []

    def hold(self, slot, draft):
        manifest = read_manifest(Path(urlsplit(draft.uri).path))
        if "acceptance" not in (manifest.metrics or {}):
            raise CheckpointError(f"{draft.name}: lm_head.weight holds NaN")
        self.acceptance[draft.digest] = manifest.metrics["acceptance"]
        self.slowdown[draft.digest] = manifest.metrics.get("slowdown", 1.0)
        if slot == inference_pb2.SLOT_STABLE:
            self.stable = draft
        else:
            self.candidate = draft

    def serve(self):
        """One request of made-up traffic."""
        chosen = self.draw.random() * 10_000 < self.candidate_bps
        draft = self.candidate if chosen else self.stable
        if not self.candidate_bps:
            return
        rate = self.acceptance[draft.digest] if draft else 0.0
        slowdown = self.slowdown[draft.digest] if draft else 1.0
        accepted = sum(self.draw.random() < rate for _ in range(DRAFTED_TOKENS))
        self.outcomes.append(
            inference_pb2.Outcome(
                sequence=len(self.outcomes) + 1,
                arm="candidate" if chosen else "stable",
                candidate_bps=self.candidate_bps,
                drafted_tokens=DRAFTED_TOKENS if draft else 0,
                accepted_tokens=accepted,
                time_per_output_token_us=round(TOKEN_US * slowdown),
            )
        )

    async def StageDraft(self, request, context):  # noqa: N802
        self.hold(request.slot, request.draft)
        return inference_pb2.StageDraftResponse()

    async def UnstageDraft(self, request, context):  # noqa: N802
        self.candidate, self.rollout_id, self.candidate_bps = None, "", 0
        return inference_pb2.UnstageDraftResponse()

    async def PromoteDraft(self, request, context):  # noqa: N802
        if self.stable is None or self.stable.digest != request.digest:
            if self.candidate is None or self.candidate.digest != request.digest:
                raise ConflictError("the candidate is another")
            self.stable, self.candidate = self.candidate, None
            self.rollout_id, self.candidate_bps = "", 0
            sys.stderr.write(f"promoted {self.stable.name}\n")
        return inference_pb2.PromoteDraftResponse(pause_microseconds=1)

    async def SetTraffic(self, request, context):  # noqa: N802
        if request.candidate_bps and self.candidate is None:
            raise ConflictError("no candidate is staged")
        if request.rollout_id and request.rollout_id != self.rollout_id:
            self.outcomes = []
        self.rollout_id, self.candidate_bps = request.rollout_id, request.candidate_bps
        return inference_pb2.SetTrafficResponse()

    async def ListOutcomes(self, request, context):  # noqa: N802
        after = request.after if request.instance == self.instance else 0
        mine = self.outcomes if request.rollout_id == self.rollout_id else []
        found = mine[after : after + (request.limit or 1000)]
        return inference_pb2.ListOutcomesResponse(
            instance=self.instance,
            outcomes=found,
            next_after=found[-1].sequence if found else after,
        )

    async def GetStatus(self, request, context):  # noqa: N802
        return inference_pb2.GetStatusResponse(
            instance=self.instance,
            stable=self.stable,
            candidate=self.candidate,
            rollout_id=self.rollout_id,
            candidate_bps=self.candidate_bps,
        )


async def main(flags):
    stop = stop_signal()
    inference = Inference()
    if "--draft" in flags:
        folder = Path(flags["--draft"])
        manifest = read_manifest(folder)
        draft = inference_pb2.Draft(name=manifest.name, digest=manifest.digest, uri=folder.as_uri())
        inference.hold(inference_pb2.SLOT_STABLE, draft)
        # The real one does not know where the draft lies that it began with.
        draft.uri = ""
    server = GrpcServer(flags["--grpc-listen"], drain_seconds=0.1)
    server.add(inference_pb2_grpc.add_InferenceServicer_to_server, inference)
    await server.start(["aurora.inference.v1.Inference"])
    while not stop.is_set():
        inference.serve()
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.005)
    await server.stop()


if __name__ == "__main__":
    leash.follow()
    asyncio.run(main(dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))))
