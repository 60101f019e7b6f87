"""How often a rollout promotes a draft that is not better, and how soon it sees one that is.

Each rollout is one of `simulated_fleet`: the operator's own `plan` over simulated requests. Both
levels are read from the same rollouts: the second is what `advance` decides with its own terms.

- `false_promotion_upper_05`, `false_promotion_upper_01`: in the worst of the null worlds, in which
  the candidate's acceptance is the stable draft's, the exact (Clopper-Pearson) 95% upper bound of
  the share of rollouts that ever promote it. Guardrails are off: they can only promote less.
- `longer_answers_…`, `mixed_effects_…`, `shorter_drafts_promoted_share`: the worlds in which the
  acceptance of requests is better and the draft is not faster. There a rollout that judges by
  acceptance promotes what it should not; no bound is claimed for them.
- `median_requests_plus1` … `minus20`: requests judged until a candidate better or worse by so many
  points is promoted or rolled back, at level 0.01; what is undecided counts as the most tried.
- `plus…_promoted_share`, `minus…_rolled_back_share`: how many are, within that.
- `minus10_…`, `minus20_reach_half_share`: rollouts of such a candidate that gave it half the
  traffic.
- `crash_loop_failed_requests`, `raising_draft_judged_requests`: what a candidate that kills an
  inference at every request costs until it is rolled back; and after how many requests one that
  raises an error at each is, which fails none.

    python -m benchmarks.judgement [--quick] [--rollouts N] [--effect-rollouts N]
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing import get_context

from benchmarks.judgement_world import (
    BEYOND_ACCEPTANCE,
    CRASH_LOOP,
    EFFECTS,
    NULL_WORLDS,
    RAISING,
    effect_world,
)
from benchmarks.option import Count, parse
from benchmarks.report import Figure, exact_figure, median_figure, write_report
from benchmarks.simulated_fleet import Setting, SimulatedFleet

from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.rollout.state import (
    Analyzing,
    Observed,
    Promoted,
    Promoting,
    RolledBack,
    State,
    advance,
)

_CHUNK = 25
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def deployment(*, guardrails: bool) -> AuroraDeployment:
    """The rollouts' terms: every default, at level 0.01."""
    rollout: dict[str, object] = {"analysis": {"method": "Canary"}}
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
    """How a rollout ended at level 0.01 and at 0.05; None while undecided."""

    strict: State | None
    lax: State | None
    requests: int
    largest_share_bps: int
    failed_requests: int


@dataclass(frozen=True, slots=True)
class Task:
    """Some rollouts of one world."""

    setting: Setting
    requests: int
    seeds: range
    guardrails: bool


def run(task: Task) -> list[Result]:
    """Runs each rollout to its verdict, or until all requests have come."""
    terms = deployment(guardrails=task.guardrails)
    return [_result(terms, task, seed) for seed in task.seeds]


def _result(terms: AuroraDeployment, task: Task, seed: int) -> Result:
    fleet = SimulatedFleet(terms, task.setting, seed)
    state: State | None = None
    lax: State | None = None
    judged = 0
    for rollout in fleet.run(task.requests):
        state, judged = rollout.state, rollout.evidence.requests
        if isinstance(state, Analyzing) and not isinstance(lax, Promoting | RolledBack):
            lax = advance(
                state,
                plan=replace(rollout.plan, alpha="0.05"),
                evidence=rollout.evidence,
                observed=Observed(staged=True),
                now=_NOW,
            )
        elif not isinstance(lax, Promoting | RolledBack):
            lax = state
    return Result(state, lax, judged, fleet.largest_share_bps, fleet.failed_requests)


class Runs:
    """Rollouts of many worlds, on all cores."""

    def __init__(self, pool: ProcessPoolExecutor, rollouts: int) -> None:
        self._pool = pool
        self._rollouts = rollouts

    def of(
        self, settings: Mapping[str, Setting], *, requests: int, guardrails: bool
    ) -> Iterator[tuple[str, list[Result]]]:
        """Each world's name and results, in order, as soon as they are there."""
        starts = range(0, self._rollouts, _CHUNK)
        chunks = [range(start, min(start + _CHUNK, self._rollouts)) for start in starts]
        tasks = [
            Task(setting, requests, seeds, guardrails)
            for setting in settings.values()
            for seeds in chunks
        ]
        found = self._pool.map(run, tasks)
        for name in settings:
            yield name, [result for _ in chunks for result in next(found)]


def upper_bound(count: int, total: int) -> float:
    """The exact one-sided 95% bound of a share (Clopper and Pearson 1934)."""
    low, high = count / total, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _at_most(count, total, middle) > 0.05:
            low = middle
        else:
            high = middle
    return high


def _at_most(count: int, total: int, probability: float) -> float:
    """The probability of at most `count` of `total`."""
    if probability >= 1:
        return float(count >= total)
    hit, miss = math.log(probability), math.log1p(-probability)
    return sum(
        math.exp(
            math.lgamma(total + 1)
            - math.lgamma(number + 1)
            - math.lgamma(total - number + 1)
            + number * hit
            + (total - number) * miss
        )
        for number in range(count + 1)
    )


def is_promoted(state: State | None) -> bool:
    return isinstance(state, Promoting | Promoted)


def share(results: Sequence[Result], holds: Callable[[Result], bool]) -> float:
    return sum(map(holds, results)) / len(results)


def null_figures(found: Iterable[tuple[str, Sequence[Result]]]) -> dict[str, Figure]:
    """The worst upper bound of either level; each world's on a line of its own."""
    strict, lax = {}, {}
    for name, results in found:
        counts = [
            sum(is_promoted(state) for state in states)
            for states in zip(*((each.strict, each.lax) for each in results), strict=True)
        ]
        strict[name], lax[name] = (upper_bound(count, len(results)) for count in counts)
        print(
            f"{name}: promoted {counts[1]} at .05, {counts[0]} at .01 of {len(results)}; "
            f"at most {lax[name]:.4f}, {strict[name]:.4f}",
            flush=True,
        )
    return {
        "false_promotion_upper_05": exact_figure(max(lax.values()), "share"),
        "false_promotion_upper_01": exact_figure(max(strict.values()), "share"),
    }


def effect_figures(found: Iterable[tuple[str, Sequence[Result]]], most: int) -> dict[str, Figure]:
    """How soon and how often candidates better or worse by some points are told."""
    figures = {}
    for name, results in found:
        is_better = name.startswith("plus")

        def decided(result: Result, *, is_better: bool = is_better) -> bool:
            state = result.strict
            return is_promoted(state) if is_better else isinstance(state, RolledBack)

        counts = [each.requests if decided(each) else most for each in results]
        figures[f"median_requests_{name}"] = median_figure(counts, "requests")
        verdict = "promoted_share" if is_better else "rolled_back_share"
        figures[f"{name}_{verdict}"] = exact_figure(share(results, decided), "share")
        if name in ("minus10", "minus20"):
            figures[f"{name}_reach_half_share"] = exact_figure(
                share(results, lambda each: each.largest_share_bps >= 5000), "share"
            )
    return figures


def harm_figures(crashing: Sequence[Result], raising: Sequence[Result]) -> dict[str, Figure]:
    """What broken candidates cost; all of them must be rolled back."""
    for results in (crashing, raising):
        left = [each.strict for each in results if not isinstance(each.strict, RolledBack)]
        if left:
            raise RuntimeError(f"{len(left)} broken candidates were not rolled back: {left[0]}")
    return {
        "crash_loop_failed_requests": median_figure(
            [each.failed_requests for each in crashing], "requests"
        ),
        "raising_draft_judged_requests": median_figure(
            [each.requests for each in raising], "requests"
        ),
    }


def main() -> None:
    """Simulates, prints, and writes out/bench/judgement.json."""
    options = parse(
        __doc__,
        {
            "rollouts": Count(2000, 2, "of each null world"),
            "requests": Count(1000, 400, "of each null rollout"),
            "effect_rollouts": Count(100, 2, "of each effect"),
            "effect_requests": Count(4000, 1500, "of each rollout with an effect"),
        },
    )
    effects = {
        f"{'plus' if sign > 0 else 'minus'}{points}": effect_world(sign * points)
        for points in EFFECTS
        for sign in (1, -1)
    }
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        nulls = Runs(pool, options.rollouts)
        few = Runs(pool, options.effect_rollouts)
        figures = null_figures(nulls.of(NULL_WORLDS, requests=options.requests, guardrails=False))
        beyond = few.of(BEYOND_ACCEPTANCE, requests=options.effect_requests, guardrails=False)
        for name, results in beyond:
            figures[f"{name}_promoted_share"] = exact_figure(
                share(results, lambda each: is_promoted(each.strict)), "share"
            )
        figures |= effect_figures(
            few.of(effects, requests=options.effect_requests, guardrails=True),
            options.effect_requests,
        )
        broken = dict(
            few.of(
                {"crashing": CRASH_LOOP, "raising": RAISING},
                requests=options.effect_requests,
                guardrails=True,
            )
        )
        figures |= harm_figures(broken["crashing"], broken["raising"])
    write_report("judgement", figures)


if __name__ == "__main__":
    main()
