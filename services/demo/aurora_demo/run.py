"""Runs the demo's scenario against both deployments and measures it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import grpc

from aurora.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from aurora_client import AuroraClientError, Evidence, PastRollout
from aurora_client import Deployment as DeploymentStatus
from aurora_common.errors import UnavailableError
from aurora_common.tls import NO_PROXY
from aurora_demo.deployment import Deployment
from aurora_demo.load import Endpoint
from aurora_demo.measurement import Canary, Guard, Measurement, ServedBlock, ServedRequest
from aurora_demo.offer import Offering
from aurora_demo.scenario import PlannedBlock, Scenario, Side, planned_blocks

_POLL_SECONDS = 0.5
_RPC_SECONDS = 5.0
# The clauses that protect live requests, as the report calls them; empty: by their subject.
_GUARDS = {
    "LiveNotWorse": "acceptance",
    "WithinMargin": "",
    "NoStepCostHarm": "cost of a step",
    "NoAcceptanceHarm": "harm to acceptance",
    "NoGuardrailHarm": "",
    "FewCrashes": "crashes",
}


class Screen(Protocol):
    """Displays the run."""

    def begin_block(self, block: PlannedBlock, side: Side) -> None: ...

    def served(self, request: ServedRequest) -> None: ...

    def end_block(self, block: ServedBlock) -> None: ...

    def rollout(self, line: str) -> None: ...

    def offered(self, title: str) -> None: ...


class Story:
    """One run: the traffic of every block, with the rollouts and training during it."""

    def __init__(
        self,
        scenario: Scenario,
        deployments: dict[Side, Deployment],
        prompts: Sequence[Sequence[str]],
        screen: Screen,
        offering: Offering,
    ) -> None:
        self._scenario = scenario
        self._deployments = deployments
        self._prompts = prompts
        self._screen = screen
        self._offering = offering
        self._phase = 0
        self._requests: list[ServedRequest] = []
        self._blocks: list[ServedBlock] = []
        self._canaries: dict[str, Canary] = {}
        self._begun: dict[str, int] = {}
        # As last seen; the history does not keep how it grew.
        self._evidence: dict[str, Evidence] = {}
        self._trainer: Trainer | None = None

    async def run(self) -> Measurement:
        """Sends every block to its sides; the prompts of block i are `prompts[i]`."""
        endpoints = {
            side: Endpoint(side, deployment.base_url, self._scenario)
            for side, deployment in self._deployments.items()
        }
        self._trainer = Trainer(self._deployments["adapted"])
        watching = asyncio.create_task(self._watch_rollouts())
        try:
            for block in planned_blocks(self._scenario.phases):
                if self._offering.is_over:
                    break
                for side in block.order:
                    await self._serve(block, endpoints[side])
            if watching.done():
                watching.result()
            await asyncio.to_thread(self._note_rollouts)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            for endpoint in endpoints.values():
                await endpoint.close()
            self._trainer.close()
        return Measurement(
            requests=tuple(self._requests),
            blocks=tuple(self._blocks),
            canaries=tuple(self._canaries.values()),
            shift_phase=1,
            requests_per_block=self._scenario.requests_per_block,
        )

    async def _serve(self, block: PlannedBlock, endpoint: Endpoint) -> None:
        assert self._trainer is not None
        self._phase = block.phase
        self._screen.begin_block(block, endpoint.side)
        busy = await self._trainer.busy_seconds()
        started = time.perf_counter()
        served = await endpoint.send(self._prompts[block.number], self._note_request)
        seconds = time.perf_counter() - started
        measured = ServedBlock(
            side=endpoint.side,
            number=block.number,
            phase=block.phase,
            tokens=sum(request.tokens for request in served),
            seconds=seconds,
            training_seconds=max(0.0, await self._trainer.busy_seconds() - busy),
        )
        self._blocks.append(measured)
        self._screen.end_block(measured)

    def _note_request(self, request: ServedRequest) -> None:
        self._requests.append(request)
        self._screen.served(request)

    async def _watch_rollouts(self) -> None:
        while True:
            status = await asyncio.to_thread(self._note_rollouts)
            if status is not None and self._phase >= self._scenario.offering_phase:
                await asyncio.to_thread(self._offer, status)
            await asyncio.sleep(_POLL_SECONDS)

    def _note_rollouts(self) -> DeploymentStatus | None:
        """Polls the operator for the current rollout and finished ones; None: it was away."""
        try:
            status = self._deployments["adapted"].operator.status()
        except (AuroraClientError, UnavailableError):  # it is restarting; the next poll will do
            return None
        now = sum(request.side == "adapted" for request in self._requests)
        rollout = status.rollout
        if rollout is not None:
            self._begun.setdefault(rollout.id, now)
            evidence = rollout.evidence
            line = f"{rollout.id} {rollout.state}"
            if evidence is not None:
                self._evidence[rollout.id] = evidence
                line += (
                    f", log E {evidence.promoting_log_e:+.2f} of {evidence.promotion_threshold:.2f}"
                )
                judged = evidence if evidence.replay is None else evidence.replay
                line += f" after {judged.requests} requests"
            self._screen.rollout(line)
        for past in reversed(status.history):
            if past.id not in self._canaries:
                offered = self._offering.titles.get(past.digest, "")
                canary = _canary(past, self._begun.get(past.id, now), now, offered=offered)
                self._canaries[past.id] = _with_evidence(canary, self._evidence.get(past.id))
        return status

    def _offer(self, status: DeploymentStatus) -> None:
        title = self._offering.publish_due(status)
        if title is not None:
            self._screen.offered(title)


def _with_evidence(canary: Canary, evidence: Evidence | None) -> Canary:
    if evidence is None:
        return canary
    path = evidence.path if evidence.replay is None else evidence.replay.path
    if path is None:
        return canary
    return replace(canary, evidence=path.log_e, threshold=evidence.promotion_threshold)


def _canary(past: PastRollout, first_request: int, last_request: int, *, offered: str) -> Canary:
    return Canary(
        id=past.id,
        checkpoint=past.checkpoint,
        outcome=past.outcome,
        reason=past.reason,
        requests=past.requests,
        effect_bps=past.effect_bps,
        saved_bps=past.saved_bps,
        replayed=past.replayed,
        first_request=first_request,
        last_request=last_request,
        saved_ci_bps=past.saved_ci_bps,
        guards=tuple(_guards(past)),
        offered=offered,
    )


def _guards(past: PastRollout) -> Iterator[Guard]:
    """In the history is what a promotion asks for, and the harm that was found."""
    for clause in past.clauses:
        if clause.name in _GUARDS:
            is_measured = clause.found is not None
            name = _GUARDS[clause.name] or clause.subject
            yield Guard(name, clause.holds if is_measured else None)


class Trainer:
    """Tracks the training time of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        address = deployment.component_address("trainer")
        if address is None:
            raise UnavailableError(f"the {deployment.side} deployment has no trainer")
        self._channel = grpc.insecure_channel(address, options=[NO_PROXY])
        self._stub = trainer_pb2_grpc.TrainerStub(self._channel)  # type: ignore[no-untyped-call]
        self._last = 0.0

    async def busy_seconds(self) -> float:
        """Seconds spent training so far; the last known value while unreachable."""
        try:
            status = await asyncio.to_thread(
                self._stub.GetStatus, trainer_pb2.GetStatusRequest(), timeout=_RPC_SECONDS
            )
        except grpc.RpcError:
            return self._last
        self._last = status.training_seconds
        return self._last

    def close(self) -> None:
        self._channel.close()
