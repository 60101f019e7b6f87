"""Results of a load: rates, percentiles, and the JSON that every benchmark writes."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aurora_client._bench.load import Sample

# Distinct failure reasons shown on one line.
_REASONS = 3


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity; `spread` is the minimum and maximum of its samples."""

    value: float
    unit: str
    spread: tuple[float, float]


def figures_of(samples: Sequence[Sample]) -> dict[str, Figure]:
    """The figures of at least one request; a figure that no request yields is absent."""
    good = [sample for sample in samples if not sample.error]
    began_at = min(sample.started_at for sample in samples)
    seconds = max(sample.ended_at for sample in samples) - began_at
    tokens = sum(sample.output_tokens for sample in good)
    figures = {
        "requests": _total(len(good), "requests"),
        "failed_requests": _total(len(samples) - len(good), "requests"),
        "seconds": _total(seconds, "s"),
        "output_tokens": _total(tokens, "tokens"),
        "output_tokens_per_second": _total(tokens / seconds, "tokens/s"),
        "requests_per_second": _total(len(good) / seconds, "requests/s"),
    }
    firsts = [sample.seconds_to_first_token for sample in good]
    each = [sample.seconds_per_output_token for sample in good]
    figures |= _percentiles("time_to_first_token", firsts)
    figures |= _percentiles("time_per_output_token", [value for value in each if value is not None])
    return figures | _acceptance(good)


def failures_of(samples: Sequence[Sample]) -> str:
    """Counts of the most frequent failure reasons; empty if no request failed."""
    reasons = Counter(sample.error for sample in samples if sample.error)
    named = reasons.most_common(_REASONS)
    parts = [f"{count} {reason}" for reason, count in named]
    others = reasons.total() - sum(count for _, count in named)
    return ", ".join([*parts, f"{others} others"] if others else parts)


def nearest_rank(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0..1) of `values` do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def report_json(arguments: Sequence[str], figures: Mapping[str, Figure]) -> str:
    """{"command": …, "machine": {…}, "figures": {key: {"value", "unit", "spread"}}}."""
    content = {
        "command": shlex.join(arguments),
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "figures": {
            key: {"value": figure.value, "unit": figure.unit, "spread": list(figure.spread)}
            for key, figure in figures.items()
        },
    }
    return json.dumps(content, indent=2) + "\n"


def _total(value: float, unit: str) -> Figure:
    return Figure(value, unit, (value, value))


def _percentiles(name: str, seconds: Sequence[float]) -> dict[str, Figure]:
    if not seconds:
        return {}
    spread = (min(seconds) * 1e3, max(seconds) * 1e3)
    return {
        f"{name}_p{percent}": Figure(nearest_rank(seconds, percent / 100) * 1e3, "ms", spread)
        for percent in (50, 99)
    }


def _acceptance(samples: Sequence[Sample]) -> dict[str, Figure]:
    """Over all requests together, so that long ones weigh more."""
    reported = [sample.acceptance for sample in samples if sample.acceptance is not None]
    figures = {}
    drafted = [(one.accepted_tokens, one.drafted_tokens) for one in reported if one.drafted_tokens]
    if drafted:
        figures["acceptance_rate"] = _ratio(drafted, "share", offset=0)
    # Counts the bonus token of each step.
    stepped = [(one.accepted_tokens, one.steps) for one in reported if one.steps]
    if stepped:
        figures["mean_acceptance_length"] = _ratio(stepped, "tokens/step", offset=1)
    return figures


def _ratio(parts: Sequence[tuple[int, int]], unit: str, *, offset: int) -> Figure:
    """`offset` plus the ratio of the sums; the spread is that of the individual ratios."""
    above, below = (sum(column) for column in zip(*parts, strict=True))
    single = [offset + part / whole for part, whole in parts]
    return Figure(offset + above / below, unit, (min(single), max(single)))
