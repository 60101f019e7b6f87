"""How often a switchback canary promotes a draft that is not better, and how soon one that is.

The gateway's own coin, blocks and pairs, and the operator's own evidence, over simulated traffic:
requests come at random times, and their acceptance wanders with the world's. Both levels are read
from the same canaries, which are looked at after every pair.

- `false_promotion_upper_05`, `false_promotion_upper_01`: in the worst world, in which both drafts
  are alike, the exact (Clopper-Pearson) 95% upper bound of the share of canaries that ever reach
  1/α within `pairs`.
- `median_pairs_plus1` … `minus5`: pairs until a candidate better or worse by so many points is
  promoted or rolled back, at level 0.01; what is undecided counts as the most tried.

    python -m benchmarks.switchback [--quick] [--canaries N] [--pairs N] [--effect-canaries N]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from benchmarks.judgement import upper_bound
from benchmarks.option import Count, parse
from benchmarks.report import Figure, exact_figure, median_figure, write_report

from aurora_inference.contract import Arm, Served
from aurora_inference.contract import Outcome as Listed
from aurora_inference.gateway.pair import Block, Pairs, block_seconds, order
from aurora_operator.domain.rollout import outcome as domain
from aurora_operator.domain.rollout.evidence import Evidence, observe_pair

# The acceptance of the stable draft at a time, in seconds.
World = Callable[[float], float]
_PER_SECOND = 8.0
_BPS = 2000
_DIGESTS = ("sha256:a", "sha256:b")
_LEVELS = (0.05, 0.01)

WORLDS: dict[str, World] = {
    "calm": lambda when: 0.6,
    "a trend": lambda when: 0.4 + 0.4 * min(when / 3600, 1.0),
    "waves of ten seconds": lambda when: 0.6 + 0.25 * math.sin(2 * math.pi * when / 10),
    "waves of a pair's length": lambda when: 0.6 + 0.25 * math.sin(2 * math.pi * when / 7),
    "shifts each minute": lambda when: 0.35 if int(when // 60) % 2 else 0.75,
}


def pairs(draw: np.random.Generator, name: str, world: World, gain: float) -> Iterator[domain.Pair]:
    """What an inference tells of a canary, pair after pair."""
    tally, now, rate, former, number = Pairs(), 0.0, 0.0, 0.0, 0
    while True:
        number += 1
        seconds = block_seconds(_BPS, requests_per_second=rate, former_seconds=former)
        former, since, begun = min(seconds.values()), now, 0
        for arm in order(name, number, crossed=False):
            block = Block(name, number, arm, _BPS, *_DIGESTS)
            arrivals = now + np.sort(
                draw.uniform(0, seconds[arm], draw.poisson(_PER_SECOND * seconds[arm]))
            )
            for when in arrivals:
                _serve(
                    draw, tally, block, world(float(when)) + (gain if arm == "candidate" else 0.0)
                )
            begun += len(arrivals)
            now += seconds[arm]
        rate = begun / (now - since)
        tally.close(block, now=now)
        listed: dict[Arm, Listed] = {each.arm: each for _, each in tally.due(now)}
        if listed:
            yield domain.Pair(_block(listed["stable"]), _block(listed["candidate"]), *_DIGESTS)


def _serve(draw: np.random.Generator, tally: Pairs, block: Block, rate: float) -> None:
    """One request: its own acceptance differs from the world's."""
    drafted = int(draw.integers(20, 120))
    chance = float(np.clip(draw.normal(rate, 0.1), 0, 1))
    tally.begin(block)
    accepted = int(draw.binomial(drafted, chance))
    tally.end(block, Served(drafted, accepted, time_per_output_token_us=20_000), failed=False)


def _block(listed: Listed) -> domain.Block:
    return domain.Block(
        listed.requests,
        listed.failed_requests,
        listed.served.drafted_tokens,
        listed.served.accepted_tokens,
        listed.served.time_per_output_token_us,
    )


def most_evidence(seed: int, world: World, *, at_most: int) -> float:
    """The largest log E of a canary of two drafts that are alike."""
    draw, evidence, most = np.random.default_rng(seed), Evidence(), -math.inf
    for count, pair in enumerate(pairs(draw, f"canary-{seed}", world, 0.0), start=1):
        evidence = observe_pair(evidence, pair)
        most = max(most, evidence.log_e)
        if count == at_most:
            return most
    raise AssertionError("there is always another pair")


def pairs_until(seed: int, gain: float, *, at_most: int) -> int:
    """How many pairs until a candidate is promoted or, with a loss, rolled back."""
    draw, evidence = np.random.default_rng(seed), Evidence()
    for count, pair in enumerate(pairs(draw, f"effect-{seed}", WORLDS["calm"], gain), start=1):
        evidence = observe_pair(evidence, pair)
        found = evidence.log_e if gain > 0 else evidence.log_harm
        if found >= -math.log(0.01) or count == at_most:
            return count
    raise AssertionError("there is always another pair")


def null_figures(canaries: int, at_most: int) -> dict[str, Figure]:
    bounds: dict[float, float] = dict.fromkeys(_LEVELS, 0.0)
    for name, world in WORLDS.items():
        found = [most_evidence(seed, world, at_most=at_most) for seed in range(canaries)]
        counts = {level: sum(most >= -math.log(level) for most in found) for level in _LEVELS}
        print(
            f"{name}: promoted {counts[0.05]} at .05, {counts[0.01]} at .01 of {canaries}",
            flush=True,
        )
        for level, count in counts.items():
            bounds[level] = max(bounds[level], upper_bound(count, canaries))
    return {
        "false_promotion_upper_05": exact_figure(bounds[0.05], "share"),
        "false_promotion_upper_01": exact_figure(bounds[0.01], "share"),
    }


def main() -> None:
    """Simulates, prints, and writes out/bench/switchback.json."""
    options = parse(
        __doc__,
        {
            "canaries": Count(200, 2, "of each world"),
            "pairs": Count(200, 4, "of each of them"),
            "effect_canaries": Count(50, 2, "of each effect"),
        },
    )
    figures = null_figures(options.canaries, options.pairs)
    for points in (1, 2, 3, 5, -2, -5):
        name = f"{'plus' if points > 0 else 'minus'}{abs(points)}"
        counts = [
            pairs_until(seed, points / 100, at_most=10 * options.pairs)
            for seed in range(options.effect_canaries)
        ]
        figures[f"median_pairs_{name}"] = median_figure(counts, "pairs")
        print(f"{name}: {sorted(counts)[len(counts) // 2]} pairs in the median", flush=True)
    write_report("switchback", figures)


if __name__ == "__main__":
    main()
