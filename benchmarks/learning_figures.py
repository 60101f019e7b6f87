"""What the blocks of all runs show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from benchmarks.learning_run import Block
from benchmarks.report import Figure, median_figure

# By story and arm, one run for each seed.
Results: TypeAlias = dict[tuple[str, str], list[list[Block]]]

_WINDOW = 100
_SHIFT = 1
_BACK = 2
_EARLY = 32
_SHARE = 0.9
# Of the public recipe's final acceptance.
_LEVELS = tuple(percent / 100 for percent in range(50, 100, 5))


def figures(results: Results) -> dict[str, Figure]:
    """The figures that sum up what the default is, and those of every arm."""
    shift, static = results["shift_greedy", "ours"], results["shift_greedy", "static"]
    recipe = results["shift_greedy", "public_recipe"]
    after = [
        (_phase(ours, _SHIFT), _phase(theirs, _SHIFT))
        for ours, theirs in zip(shift, static, strict=True)
    ]
    worst = {
        story: [_worst_window(*pair) for pair in _beside_static(results, story)]
        for story, arm in results
        if arm == "no_replay"
    }
    return {
        "requests_to_90_percent_shift": _over(shift, lambda run: _to_share(run, _SHIFT)),
        "requests_to_90_percent_day0": _over(
            results["day0_greedy", "ours"], lambda run: _to_share(run, 0)
        ),
        "adapted_over_static": _ratios(after, net=False),
        "adapted_over_static_net": _ratios(after, net=True),
        "worst_window_over_static": median_figure(
            [min(seed) for seed in zip(*worst.values(), strict=True)], "×"
        ),
        "forgetting_points": _over(shift, _forgotten, "points of acceptance"),
        "requests_over_aurora_recipe": median_figure(
            [_requests_over(ours, theirs) for ours, theirs in zip(shift, recipe, strict=True)], "×"
        ),
        **{
            key: figure
            for story, windows in worst.items()
            for key, figure in _story_figures(results, story, windows)
        },
        **dict(_arm_figures(results)),
    }


def _story_figures(
    results: Results, story: str, worst: Sequence[float]
) -> Iterator[tuple[str, Figure]]:
    """What the default gives over the whole of a story."""
    pairs = _beside_static(results, story)
    yield f"{story}_adapted_over_static", _ratios(pairs, net=False)
    yield f"{story}_adapted_over_static_net", _ratios(pairs, net=True)
    yield f"{story}_worst_window_over_static", median_figure(worst, "×")
    yield f"{story}_learning_share", _over(results[story, "ours"], _learning_share, "share")


def _beside_static(results: Results, story: str) -> list[tuple[list[Block], list[Block]]]:
    return list(zip(results[story, "ours"], results[story, "static"], strict=True))


def ablation_table(results: Results) -> str:
    """Acceptance of the draft in training, median over the seeds, as Markdown."""
    arms = list(dict.fromkeys(arm for _, arm in results if arm != "static"))
    stories = [name for name in dict.fromkeys(story for story, _ in results) if "short" not in name]
    head = "| arm | " + " | ".join(f"{story} after 32, 64, all" for story in stories) + " |"
    lines = [head, "|" + "---|" * (len(stories) + 1)]
    for arm in arms:
        cells = [
            " · ".join(f"{each.value:.3f}" for each in _learned(results[story, arm], story))
            if (story, arm) in results
            else ""
            for story in stories
        ]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _arm_figures(results: Results) -> Iterator[tuple[str, Figure]]:
    for (story, arm), runs in results.items():
        if arm == "static" or story.startswith("short"):
            continue
        for name, figure in zip(("32", "64", "all"), _learned(runs, story), strict=True):
            yield f"{story}_{arm}_acceptance_after_{name}", figure


def _learned(runs: Sequence[Sequence[Block]], story: str) -> list[Figure]:
    """Acceptance of the trained draft after 32, 64 and all requests of what is new."""
    phase = 0 if story.startswith("day0") else _SHIFT

    def after(run: Sequence[Block], requests: int) -> float:
        seen, found = 0, 0.0
        for block in _phase(run, phase):
            seen, found = seen + block.requests, block.trained_probe
            if seen >= requests:
                break
        return found

    return [
        median_figure([after(run, requests) for run in runs], "acceptance")
        for requests in (_EARLY, 2 * _EARLY, 1 << 30)
    ]


def _over(
    runs: Sequence[Sequence[Block]],
    measured: Callable[[Sequence[Block]], float],
    unit: str = "requests",
) -> Figure:
    return median_figure([measured(run) for run in runs], unit)


def _phase(run: Sequence[Block], phase: int) -> list[Block]:
    return [block for block in run if block.phase == phase]


def _to_share(run: Sequence[Block], phase: int) -> float:
    """Requests until the served draft has 90% of the acceptance that it ends with."""
    blocks = _phase(run, phase)
    return _to_level(blocks, _SHARE * blocks[-1].served_probe)


def _to_level(blocks: Sequence[Block], level: float) -> float:
    """Requests until the served draft has it; if it never does, all and a block more."""
    requests = 0
    for block in blocks:
        if block.served_probe >= level:
            return requests
        requests += block.requests
    return requests + blocks[-1].requests


def _requests_over(ours: Sequence[Block], theirs: Sequence[Block]) -> float:
    """The largest ratio over the levels of acceptance that the other one reaches."""
    both = [_phase(run, _SHIFT) for run in (ours, theirs)]
    final = both[1][-1].served_probe
    return max(
        (
            _to_level(both[0], level * final) / needed
            for level in _LEVELS
            if (needed := _to_level(both[1], level * final))
        ),
        default=0.0,
    )


def _ratios(pairs: Sequence[tuple[Sequence[Block], Sequence[Block]]], *, net: bool) -> Figure:
    return median_figure([_seconds(b, net=net) / _seconds(a, net=net) for a, b in pairs], "×")


def _seconds(blocks: Sequence[Block], *, net: bool) -> float:
    return sum(block.seconds + net * block.learning_seconds for block in blocks)


def _learning_share(run: Sequence[Block]) -> float:
    return 1 - _seconds(run, net=False) / _seconds(run, net=True)


def _worst_window(ours: Sequence[Block], static: Sequence[Block]) -> float:
    """The least ratio of speeds over 100 requests in a row, or all if there are fewer."""
    ratios = []
    for first in range(len(ours)):
        last, requests = first, 0
        while last < len(ours) and requests < _WINDOW:
            requests += ours[last].requests
            last += 1
        if requests >= _WINDOW or first == 0:
            ratios.append(
                _seconds(static[first:last], net=False) / _seconds(ours[first:last], net=False)
            )
    return min(ratios)


def _forgotten(run: Sequence[Block]) -> float:
    """How much less is accepted of the first domain when it is back than before."""
    before, back = _phase(run, 0)[-1], _phase(run, _BACK)[0]
    return 100 * (before.served_probe - back.served_probe)
