"""How often a rollout promotes a draft that is not better, and how soon it sees one that is.

Each rollout is one of `simulated_fleet`: the operator's own `plan` over simulated requests, which
are recorded and replayed as the trainer's judge does. Both levels are read from the same rollouts:
the second is what `advance` decides with its own terms. Figures of the rule that judges by live
traffic alone begin with `canary_`.

- `false_promotion_upper_05`, `false_promotion_upper_01`: in the worst of the null worlds, in which
  the candidate is not faster, the exact (Clopper-Pearson) 95% upper bound of the share of rollouts
  that ever promote it. Guardrails are off: they can only promote less.
- `copies_promoted_share`: of rows of 30 copies of the stable draft, one tried after the other,
  those of which any is promoted at 0.01; `copies_promoted_upper_01`, `…_05`: the exact bound.
- `mixed_effects_…`, `mixed_effects_in_flight_…`, `collapse_promoted_share`: a candidate that is
  faster on most requests and slower in all; guardrails are off.
- `slower_promoted_share`, `median_requests_slower`: a candidate of equal acceptance whose steps
  take 10% longer, and after how many live requests it is refused; the worse of all of its requests
  and of 30% being timed.
- `harmed_domain_…`, `users_in_a_row_…`, `better_early_promoted_share`, `…_rolled_back_share`: one
  that is faster in all and slower in a domain, faster or slower for forty requests of each user in
  turn, or faster only at first; no bound is claimed.
- `median_requests_plus1` … `minus20`: requests replayed until they prove that a candidate accepted
  more often by so many points is faster, or until one accepted less often is refused, at level
  0.01; what is undecided counts as the most tried. The operator looks every 3 seconds, which are 30
  requests.
- `median_live_requests_plus2`: live requests judged until such a candidate is promoted.
- `plus…_promoted_share`, `minus…_rolled_back_share`: how many are; `plus1_undecided_share`.
  `minus…_gain_too_small_share`: those among the refused that were not found to be harmful.
- `minus10_…`, `minus20_reach_half_share`: rollouts of such a candidate that gave it half the
  traffic.
- `shown_gain_bias_share`: by how much more than the truth those promoted at +2 points are shown to
  save.
- `crash_loop_failed_requests`, `raising_draft_judged_requests`: what a candidate that kills an
  inference at every request costs until it is rolled back; and after how many requests one that
  raises an error at each is, which fails none.
- `canary_…`: the same by live traffic alone, where requests are those judged.
  `canary_longer_answers_…`, `canary_mixed_effects_…`, `canary_shorter_drafts_promoted_share`:
  worlds in which the acceptance of requests is better and the draft is not faster.

    python -m benchmarks.judgement [--quick] [--rollouts N] [--effect-rollouts N]
        [--canary-rollouts N]
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.judgement_world import BEYOND_ACCEPTANCE, EFFECTS, NULL_WORLDS, effect_world
from benchmarks.option import Count, parse
from benchmarks.recorded_request import saving
from benchmarks.replay_world import (
    AMBIGUOUS,
    HARMFUL,
    REPLAY_CRASH_LOOP,
    REPLAY_NULL_WORLDS,
    REPLAY_RAISING,
    SLOWER,
    replay_effect_population,
    replay_effect_world,
)
from benchmarks.report import Figure, exact_figure, median_figure, write_report
from benchmarks.rollout_run import Result, Runs
from benchmarks.simulated_fleet import Setting

from aurora_operator.domain.rollout.state import Inconclusive, Promoted, Promoting, RolledBack

Found = Iterable[tuple[str, Sequence[Result]]]
# Tried one after the other, as in a month without a promotion.
COPIES = 30
_NOISE = "noise"


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


def is_promoted(result: Result) -> bool:
    return isinstance(result.strict, Promoting | Promoted)


def is_promoted_laxly(result: Result) -> bool:
    return isinstance(result.lax, Promoting | Promoted)


def is_gain_too_small(result: Result) -> bool:
    return isinstance(result.strict, Inconclusive) and result.strict.reason == "GainTooSmall"


def is_refused(result: Result) -> bool:
    return isinstance(result.strict, RolledBack) or is_gain_too_small(result)


def share(results: Sequence[Result], holds: Callable[[Result], bool]) -> Figure:
    return exact_figure(sum(map(holds, results)) / len(results), "share")


def told(found: Found) -> Iterator[tuple[str, Sequence[Result], tuple[float, float]]]:
    """Each world with its upper bounds at 0.05 and 0.01, printed as soon as they are known."""
    for name, results in found:
        lax = sum(map(is_promoted_laxly, results))
        strict = sum(map(is_promoted, results))
        bounds = (upper_bound(lax, len(results)), upper_bound(strict, len(results)))
        refused = sum(map(is_refused, results))
        faster = sum(each.faster_after is not None for each in results)
        print(
            f"{name}: promoted {lax} at .05, {strict} at .01 of {len(results)}; at most "
            f"{bounds[0]:.4f}, {bounds[1]:.4f}; at .01 {refused} refused, {faster} ever faster",
            flush=True,
        )
        yield name, results, bounds


def null_figures(found: Found, *, prefix: str = "") -> dict[str, Figure]:
    """The worst upper bound of either level."""
    bounds = [bound for _, _, bound in told(found)]
    lax, strict = (max(level) for level in zip(*bounds, strict=True))
    return {
        f"{prefix}false_promotion_upper_05": exact_figure(lax, "share"),
        f"{prefix}false_promotion_upper_01": exact_figure(strict, "share"),
    }


def copies_figures(results: Sequence[Result]) -> dict[str, Figure]:
    """Of rows of copies, those of which any was promoted."""
    rows = [results[start : start + COPIES] for start in range(0, len(results), COPIES)]
    strict = sum(any(map(is_promoted, row)) for row in rows)
    lax = sum(any(map(is_promoted_laxly, row)) for row in rows)
    print(f"copies: promoted {lax} at .05, {strict} at .01 of {len(rows)} rows", flush=True)
    return {
        "copies_promoted_share": exact_figure(strict / len(rows), "share"),
        "copies_promoted_upper_01": exact_figure(upper_bound(strict, len(rows)), "share"),
        "copies_promoted_upper_05": exact_figure(upper_bound(lax, len(rows)), "share"),
    }


def promoted_figures(found: Found, *, prefix: str = "") -> dict[str, Figure]:
    return {
        f"{prefix}{name}_promoted_share": share(results, is_promoted)
        for name, results, _ in told(found)
    }


def slower_figures(found: Found, most: int) -> dict[str, Figure]:
    """Of the worlds in which a step takes longer, the worst."""
    worlds = [results for _, results, _ in told(found)]
    promoted = [share(results, is_promoted) for results in worlds]
    refused = [
        median_figure([judged_until(each, is_better=False) or most for each in results], "requests")
        for results in worlds
    ]
    return {
        "slower_promoted_share": max(promoted, key=lambda each: each.value),
        "median_requests_slower": max(refused, key=lambda each: each.value),
    }


def ambiguous_figures(found: Found) -> dict[str, Figure]:
    figures = {}
    for name, results, _ in told(found):
        figures[f"{name}_promoted_share"] = share(results, is_promoted)
        figures[f"{name}_rolled_back_share"] = share(results, is_refused)
    return figures


def replayed_until(result: Result, *, is_better: bool) -> int | None:
    """Requests replayed until they tell, if they do."""
    if is_better:
        return result.faster_after
    return result.replayed if is_refused(result) else None


def judged_until(result: Result, *, is_better: bool) -> int | None:
    """Live requests judged until the verdict, if there is one."""
    holds = is_promoted if is_better else is_refused
    return result.requests if holds(result) else None


def effect_figures(
    results: Mapping[str, Sequence[Result]], most: int, *, prefix: str = ""
) -> dict[str, Figure]:
    """How soon and how often candidates better or worse by some points are told."""
    until = judged_until if prefix else replayed_until
    figures = {}
    for name, found in results.items():
        is_better = name.startswith("plus")
        key = f"{prefix}{name}"
        counts = [until(each, is_better=is_better) or most for each in found]
        figures[f"{prefix}median_requests_{name}"] = median_figure(counts, "requests")
        if is_better:
            figures[f"{key}_promoted_share"] = share(found, is_promoted)
        else:
            figures[f"{key}_rolled_back_share"] = share(found, is_refused)
        if name in ("minus10", "minus20"):
            figures[f"{key}_reach_half_share"] = share(
                found, lambda each: each.largest_share_bps >= 5000
            )
    return figures


def replay_figures(results: Mapping[str, Sequence[Result]], most: int) -> dict[str, Figure]:
    """What is told of effects, besides how soon and how often."""
    figures = {
        f"{name}_gain_too_small_share": share(found, is_gain_too_small)
        for name, found in results.items()
        if name.startswith("minus")
    }
    figures["plus1_undecided_share"] = share(
        results["plus1"], lambda each: not is_promoted(each) and not is_refused(each)
    )
    live = [judged_until(each, is_better=True) or most for each in results["plus2"]]
    figures["median_live_requests_plus2"] = median_figure(live, "requests")
    shown = [each.saved_bps / 10_000 for each in results["plus2"] if is_promoted(each)]
    if shown:
        bias = statistics.fmean(shown) / saving(replay_effect_population(2)) - 1
        figures["shown_gain_bias_share"] = exact_figure(bias, "share")
    return figures


def harm_figures(broken: Mapping[str, Sequence[Result]]) -> dict[str, Figure]:
    """What broken candidates cost; all of them must be rolled back."""
    for results in broken.values():
        left = [each.strict for each in results if not isinstance(each.strict, RolledBack)]
        if left:
            raise RuntimeError(f"{len(left)} broken candidates were not rolled back: {left[0]}")
    return {
        "crash_loop_failed_requests": median_figure(
            [each.failed_requests for each in broken["crashing"]], "requests"
        ),
        "raising_draft_judged_requests": median_figure(
            [each.requests for each in broken["raising"]], "requests"
        ),
    }


def effects(world: Callable[[int], Setting]) -> dict[str, Setting]:
    return {
        f"{'plus' if sign > 0 else 'minus'}{points}": world(sign * points)
        for points in EFFECTS
        for sign in (1, -1)
    }


def by_replay(
    pool: ProcessPoolExecutor, *, nulls: tuple[int, int], few: tuple[int, int], rows: int
) -> dict[str, Figure]:
    """The figures of replay; `nulls`, `few`: rollouts of each world, and requests of each."""
    runs, requests = Runs(pool, "Replay", nulls[0]), nulls[1]
    figures = null_figures(runs.of(REPLAY_NULL_WORLDS, requests=requests, guardrails=False))
    copies = Runs(pool, "Replay", rows * COPIES)
    world = {_NOISE: REPLAY_NULL_WORLDS[_NOISE]}
    tried = copies.of(world, requests=requests, guardrails=False, in_a_row=COPIES)
    figures |= copies_figures(dict(tried)[_NOISE])
    figures |= promoted_figures(runs.of(HARMFUL, requests=requests, guardrails=False))
    figures |= slower_figures(runs.of(SLOWER, requests=requests, guardrails=True), requests)
    runs, most = Runs(pool, "Replay", few[0]), few[1]
    figures |= ambiguous_figures(runs.of(AMBIGUOUS, requests=most, guardrails=True))
    found = dict(runs.of(effects(replay_effect_world), requests=most, guardrails=True))
    figures |= effect_figures(found, most) | replay_figures(found, most)
    broken = {"crashing": REPLAY_CRASH_LOOP, "raising": REPLAY_RAISING}
    return figures | harm_figures(dict(runs.of(broken, requests=most, guardrails=True)))


def by_canary(pool: ProcessPoolExecutor, rollouts: int, *, most: int) -> dict[str, Figure]:
    """The figures of live traffic alone; null rollouts have up to 1,000 requests."""
    runs, prefix = Runs(pool, "Canary", rollouts), "canary_"
    requests = min(most, 1000)
    figures = null_figures(runs.of(NULL_WORLDS, requests=requests, guardrails=False), prefix=prefix)
    figures |= promoted_figures(
        runs.of(BEYOND_ACCEPTANCE, requests=most, guardrails=False), prefix=prefix
    )
    found = dict(runs.of(effects(effect_world), requests=most, guardrails=True))
    return figures | effect_figures(found, most, prefix=prefix)


def main() -> None:
    """Simulates, prints, and writes out/bench/judgement.json."""
    options = parse(
        __doc__,
        {
            "rollouts": Count(2000, 2, "of each null world"),
            "requests": Count(500, 320, "of each null rollout"),
            "rows": Count(300, 1, "of copies of the stable draft"),
            "effect_rollouts": Count(100, 2, "of each effect"),
            "effect_requests": Count(4000, 600, "of each rollout with an effect"),
            "canary_rollouts": Count(100, 1, "of each world, by live traffic alone"),
        },
    )
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        figures = by_replay(
            pool,
            nulls=(options.rollouts, options.requests),
            few=(options.effect_rollouts, options.effect_requests),
            rows=options.rows,
        )
        figures |= by_canary(pool, options.canary_rollouts, most=options.effect_requests)
    write_report("judgement", figures)


if __name__ == "__main__":
    main()
