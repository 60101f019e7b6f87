"""Rollouts of a simulated world, on all cores, and how each ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from benchmarks.simulated_fleet import Setting, SimulatedFleet

from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.rollout.replay import Replay, read
from aurora_operator.domain.rollout.state import (
    Analyzing,
    Observed,
    Promoted,
    Promoting,
    RolledBack,
    State,
    advance,
)
from aurora_operator.domain.rollout.time_saved import is_faster
from aurora_operator.domain.status.deployment import Rollout

_CHUNK = 25
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
Method = Literal["Replay", "Canary"]


def deployment(method: Method, *, guardrails: bool) -> AuroraDeployment:
    """The rollouts' terms: every default, at level 0.01."""
    rollout: dict[str, object] = {"analysis": {"method": method}}
    if not guardrails:
        rollout["guardrails"] = []
    manifest = {
        "apiVersion": "aurora.dev/v1alpha1",
        "kind": "AuroraDeployment",
        "metadata": {"name": "chat"},
        "spec": {
            "target": {"uri": "file:///models/target"},
            "buffer": {"embedded": {}},
            "modelStore": {"pvc": {"claimName": "models"}},
            "rollout": rollout,
        },
    }
    return parse_manifest(json.dumps(manifest), "benchmark")


@dataclass(frozen=True, slots=True)
class Result:
    """How a rollout ended at level 0.01 and at 0.05; None while undecided.

    `requests` were judged, and `replayed`, until it was decided at 0.01. `faster_after` so many
    were replayed that replay, for the first time, proved the candidate faster at 0.01; None: it
    never did. `saved_bps`, what replay showed when it was decided.
    """

    strict: State | None
    lax: State | None
    requests: int
    replayed: int
    faster_after: int | None
    saved_bps: int
    largest_share_bps: int
    failed_requests: int


@dataclass(frozen=True, slots=True)
class Task:
    """Some rollouts of one world; with `in_a_row`, every so many are of one candidate after the
    other.
    """

    setting: Setting
    requests: int
    seeds: range
    method: Method
    guardrails: bool
    in_a_row: int = 1


def run(task: Task) -> list[Result]:
    """Runs each rollout to its verdict, or until all requests have come."""
    terms = deployment(task.method, guardrails=task.guardrails)
    return [_result(terms, task, seed) for seed in task.seeds]


def _result(terms: AuroraDeployment, task: Task, seed: int) -> Result:
    fleet = SimulatedFleet(terms, task.setting, seed, attempts=seed % task.in_a_row)
    decided: Rollout | None = None
    lax: State | None = None
    faster_after: int | None = None
    last: Rollout | None = None
    for last in fleet.run(task.requests):
        if decided is None or not is_promoted(decided.state):
            decided = last
        if not isinstance(lax, Promoting | RolledBack):
            lax = _at_lax_level(last)
        if faster_after is None:
            faster_after = _faster_after(last)
    if last is not None and task.setting.kill_share:
        _check_restarts(fleet, last)
    replay = decided.evidence.replay if decided is not None else None
    return Result(
        strict=None if last is None else last.state,
        lax=lax,
        requests=0 if decided is None else decided.evidence.requests,
        replayed=0 if replay is None else replay.requests,
        faster_after=faster_after,
        saved_bps=0 if replay is None else replay.saved_bps,
        largest_share_bps=fleet.largest_share_bps,
        failed_requests=fleet.failed_requests,
    )


def _at_lax_level(rollout: Rollout) -> State:
    """What would be decided at 0.05."""
    if not isinstance(rollout.state, Analyzing):
        return rollout.state
    return advance(
        rollout.state,
        plan=replace(rollout.plan, alpha="0.05"),
        evidence=rollout.evidence,
        observed=Observed(staged=True),
        now=_NOW,
    )


def _faster_after(rollout: Rollout) -> int | None:
    """How many requests were replayed, if they prove that the candidate is faster."""
    replay, terms = rollout.evidence.replay, rollout.plan
    if replay is None or not is_faster(
        replay, threshold=terms.promotion_threshold, min_effect=terms.min_effect
    ):
        return None
    return replay.requests


def _check_restarts(fleet: SimulatedFleet, rollout: Rollout) -> None:
    """An operator that was killed again and again must know what one that never was knows."""
    found = rollout.evidence.replay
    if found is None:
        return
    expected = read(
        Replay(rollout.candidate.trained_through),
        fleet.judge.scores[: found.requests],
        through=found.after,
        min_effect=rollout.plan.min_effect,
    )
    if found != expected:
        raise RuntimeError(f"restarts changed the evidence: {found}, not {expected}")


class Runs:
    """Rollouts of many worlds, on all cores."""

    def __init__(self, pool: ProcessPoolExecutor, method: Method, rollouts: int) -> None:
        self._pool = pool
        self._method: Method = method
        self._rollouts = rollouts

    def of(
        self,
        settings: Mapping[str, Setting],
        *,
        requests: int,
        guardrails: bool,
        in_a_row: int = 1,
    ) -> Iterator[tuple[str, list[Result]]]:
        """Each world's name and results, in order, as soon as they are there."""
        starts = range(0, self._rollouts, _CHUNK)
        chunks = [range(start, min(start + _CHUNK, self._rollouts)) for start in starts]
        tasks = [
            Task(setting, requests, seeds, self._method, guardrails, in_a_row)
            for setting in settings.values()
            for seeds in chunks
        ]
        found = self._pool.map(run, tasks)
        for name in settings:
            yield name, [result for _ in chunks for result in next(found)]


def is_promoted(state: State | None) -> bool:
    return isinstance(state, Promoting | Promoted)
