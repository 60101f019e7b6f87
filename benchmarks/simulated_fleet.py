"""A fleet under simulated traffic, judged by the operator's own `plan`.

Slots and outcome logs are the ones that engines use, `plan` observes, decides and acts as in a
cluster; only requests, their drafts and the time are simulated. So what is measured is the rule
with its wiring: the order of admission, lost requests, shares, steps, deadlines. Completed requests
are recorded as they end, and those that the candidate did not serve are replayed in the order of
their admission; what is cancelled or lost leaves no record.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from benchmarks.simulated_inference import SimulatedInference
from benchmarks.simulated_judge import Replayed, SimulatedJudge

from aurora_inference.contract import Ending, Served
from aurora_inference.slots.slots import Assignment
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.plan.observation import (
    ComponentView,
    Observation,
    Refusal,
)
from aurora_operator.domain.plan.plan import plan
from aurora_operator.domain.status.deployment import Candidate, Draft, Queue, Rollout, Status
from aurora_operator.domain.status.status_json import status_from_json, status_to_json

START = datetime(2026, 1, 1, tzinfo=UTC)
STABLE = Draft("stable", "sha256:a", "file:///a")
CANDIDATE = Candidate(Draft("candidate", "sha256:b", "file:///b"), 1)
_SERVING = (ComponentView("inference", ready=True),)


@dataclass(frozen=True, slots=True)
class Service:
    """What a draft makes of a request: how long it takes, and what it says of the draft.

    `seconds` until its end, or until its death if it `kills` the inference.
    """

    seconds: float
    drafted_tokens: int
    accepted_tokens: int
    ending: Ending = "completed"
    time_per_output_token_us: int = 20_000
    kills: bool = False
    replayed: Replayed | None = None
    step_time_us: int = 0
    stable_step_time_us: int = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request of a rollout, which has its seed, and how many came before."""

    rollout: int
    number: int


# Serves a request, with the candidate or not.
Serve = Callable[[random.Random, Arrival, bool], Service]


@dataclass(frozen=True, slots=True)
class Setting:
    """A fleet and its operator's luck.

    `lacking_from`: one inference restarts after so many requests and then refuses the stable draft;
    0: none. `turnover`: an inference is replaced whenever
    so many requests have come. `lag_seconds`: the longest time between two reconciles, each of
    which may be the operator's last (`kill_share`: before or after it stores the status) or miss an
    inference (`away_share`).
    """

    serve: Serve
    inferences: int = 2
    requests_per_second: float = 10.0
    lacking_from: int = 0
    turnover: int = 0
    poll_seconds: float = 3.0
    lag_seconds: float = 0.0
    kill_share: float = 0.0
    away_share: float = 0.0


class SimulatedFleet:
    """One rollout of CANDIDATE against STABLE, from its staging on."""

    def __init__(
        self, deployment: AuroraDeployment, setting: Setting, seed: int, *, attempts: int = 0
    ) -> None:
        """`attempts`: how many candidates were tried before, since the last promotion."""
        self.failed_requests = 0
        self.largest_share_bps = 0
        self.judge = SimulatedJudge()
        self._seed = seed
        self._deployment = deployment
        self._setting = setting
        self._draw = random.Random(seed)
        self._now = 0.0
        self._names = (f"inference-{number}" for number in itertools.count())
        self._inferences = [self._new() for _ in range(setting.inferences)]
        self._status = Status(stable=STABLE, queue=Queue(1, CANDIDATE), attempts=attempts)
        # Ends of requests: when, a tie-breaker, where, in which life, what.
        self._ends: list[tuple[float, int, SimulatedInference, int, Assignment, Service]] = []
        self._next_poll = 0.0
        self._refusals: tuple[Refusal, ...] = ()

    def _new(self) -> SimulatedInference:
        return SimulatedInference(next(self._names), lambda: self._now)

    def run(self, requests: int) -> Iterator[Rollout]:
        """The rollout after each reconcile, until it ends or so many requests were served."""
        setting = self._setting
        for number in range(requests):
            arrival = self._now + self._draw.expovariate(setting.requests_per_second)
            yield from self._until(arrival)
            if self._is_over:
                return
            self._now = arrival
            self._admit(number)
            if setting.turnover and number % setting.turnover == setting.turnover - 1:
                self._inferences[0].leaving = True
                self._inferences.append(self._new())
            if setting.lacking_from and number == setting.lacking_from:
                self._lose_stable(self._inferences[0])
        while self._ends and not self._is_over:
            yield from self._until(self._next_poll + setting.poll_seconds)

    @property
    def _is_over(self) -> bool:
        return self._status.rollout is not None and not self._status.rollout.is_live

    def _until(self, time: float) -> Iterator[Rollout]:
        """What happens before `time`, while the rollout is live."""
        while not self._is_over:
            ends_at = self._ends[0][0] if self._ends else math.inf
            if min(ends_at, self._next_poll) >= time:
                return
            if ends_at <= self._next_poll:
                self._end()
                continue
            self._now = self._next_poll
            self._reconcile()
            if self._status.rollout is not None:
                yield self._status.rollout
            lag = self._draw.random() * self._setting.lag_seconds
            self._next_poll = self._now + self._setting.poll_seconds + lag

    def _lose_stable(self, inference: SimulatedInference) -> None:
        inference.die(self._now)
        self._refusals = (
            Refusal(inference.name, STABLE.digest, "no such file", lasting=True, may_retry=False),
        )

    def _admit(self, number: int) -> None:
        able = [each for each in self._inferences if self._serves(each)]
        if not able:
            return
        inference = able[int(self._draw.random() * len(able))]
        assignment = inference.slots.assign(self._draw.random())
        self.largest_share_bps = max(self.largest_share_bps, inference.slots.candidate_bps)
        arrival = Arrival(self._seed, number)
        service = self._setting.serve(self._draw, arrival, assignment.arm == "candidate")
        if assignment.draft is None:
            service = replace(service, drafted_tokens=0, accepted_tokens=0, replayed=None)
        inference.in_flight += 1
        inference.admissions.begin(str(number))
        at = self._now + service.seconds
        heapq.heappush(self._ends, (at, number, inference, inference.life, assignment, service))

    def _serves(self, inference: SimulatedInference) -> bool:
        return not inference.leaving and inference.down_until <= self._now

    def _end(self) -> None:
        self._now, number, inference, life, assignment, service = heapq.heappop(self._ends)
        if life != inference.life:
            return
        if service.kills:
            self.failed_requests += inference.in_flight
            inference.die(self._now)
            return
        inference.in_flight -= 1
        self.failed_requests += service.ending == "failed"
        served = Served(
            drafted_tokens=service.drafted_tokens,
            accepted_tokens=service.accepted_tokens,
            time_per_output_token_us=service.time_per_output_token_us,
            step_time_us=service.step_time_us,
            stable_step_time_us=service.stable_step_time_us,
        )
        inference.slots.end(assignment, service.ending, served)
        admission = inference.admissions.end(str(number))
        assert admission is not None
        if service.ending in ("completed", "draft_failed"):
            replayed = service.replayed if assignment.arm == "stable" else None
            self.judge.record(self._now, admission, replayed)

    def _reconcile(self) -> None:
        """Plans until nothing is left to do, unless the operator dies."""
        for _ in range(10):
            decision = plan(
                self._deployment,
                self._status,
                self._observation(),
                START + timedelta(seconds=self._now),
            )
            if self._is_killed():
                return
            settled = decision.status.decided == self._status.decided and not decision.actions
            self._status = decision.status
            if self._is_killed():
                return
            by_name = {each.name: each for each in self._inferences}
            for action in decision.actions:
                by_name[action.inference].apply(action)
            if settled:
                break
        drained = [each for each in self._inferences if each.leaving and not each.in_flight]
        self._inferences = [each for each in self._inferences if each not in drained]

    def _is_killed(self) -> bool:
        """Whether the operator dies now; the next one knows what was stored."""
        if not self._happens(self._setting.kill_share):
            return False
        self._status = status_from_json(status_to_json(self._status))
        return True

    def _happens(self, share: float) -> bool:
        return share > 0 and self._draw.random() < share

    def _observation(self) -> Observation:
        up = [each for each in self._inferences if each.down_until <= self._now]
        seen = [each for each in up if not self._happens(self._setting.away_share)]
        rollout = self._status.live_rollout
        return Observation(
            inferences=tuple(each.view() for each in seen if not each.leaving),
            expected=frozenset(each.name for each in up if not each.leaving),
            existing=frozenset(each.name for each in self._inferences),
            batches=tuple(
                each.batch(rollout)
                for each in seen
                if rollout is not None and each.slots.outcomes.rollout_id == rollout.id
            ),
            replay=None if rollout is None else self.judge.batch(rollout),
            refusals=self._refusals,
            components=_SERVING,
        )
