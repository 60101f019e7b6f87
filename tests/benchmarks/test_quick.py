"""Each benchmark runs to its report: a quick run of the same code, of which few figures count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 240


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """The tiny models are trained once for all benchmarks."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("engine", "speculative_over_plain_b1"),
        ("seeds", "adapted_acceptance_coupled"),
        ("ngram", "tokens_per_second_over_plain_code_b1"),
        ("states", "overhead_percent_b1"),
        ("swap", "pause_p99_over_step"),
        ("capture", "overhead_percent"),
        ("portfolio", "worst_window_over_static_portfolio"),
        ("buffer", "append_over_raw_xadd"),
        ("serving", "clients_passed"),
        ("sizing", "redis_memory_mib_per_1000"),
        ("distributed", "two_ranks_over_one"),
        ("drafts", "eagle3_over_standalone"),
        ("switchback", "median_pairs_plus3"),
        ("judging", "judging_cost_share"),
        ("learning", "adapted_over_static"),
        ("operator", "soak_diverged"),
    ],
)
def test_a_quick_run_writes_its_report(cache, tmp_path, name, figure):
    figures = quick_figures(name, cache, tmp_path)

    assert figures[figure]["unit"]


@pytest.mark.slow
def test_a_quick_judgement_promotes_what_is_faster_and_nothing_else(cache, tmp_path):
    figures = quick_figures("judgement", cache, tmp_path)

    value = {key: figure["value"] for key, figure in figures.items()}
    # The bound where none of two rollouts was promoted, in any world.
    assert value["false_promotion_upper_05"] < 0.78
    assert value["copies_promoted_share"] == 0
    assert value["mixed_effects_promoted_share"] == value["collapse_promoted_share"] == 0
    for points in (1, 2, 5, 10, 20):
        assert value[f"plus{points}_promoted_share"] == 1
        assert value[f"minus{points}_rolled_back_share"] == 1
    assert value["minus20_reach_half_share"] == 0
    assert value["median_requests_plus20"] < value["median_requests_plus1"] < 600
    assert value["median_live_requests_plus2"] >= 300
    assert abs(value["shown_gain_bias_share"]) < 0.2
    assert value["crash_loop_failed_requests"] > 0


def quick_figures(name: str, cache: Path, folder: Path) -> Mapping[str, Any]:
    """The figures that a quick run wrote below `folder`."""
    run = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick"],
        cwd=folder,
        env={
            **os.environ,
            "AURORA_CACHE_DIR": str(cache),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/cluster'}",
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )

    assert run.returncode == 0, run.stderr[-2000:]
    report = json.loads((folder / f"out/bench/{name}.json").read_text())
    assert report["command"].endswith(f"-m benchmarks.{name} --quick")
    figures: Mapping[str, Any] = report["figures"]
    return figures
