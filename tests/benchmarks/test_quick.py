"""Each benchmark runs to its report: a quick run of the same code, for which no figure counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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
        ("swap", "pause_p99_over_step"),
        ("capture", "overhead_percent"),
        ("buffer", "append_over_raw_xadd"),
        ("serving", "clients_passed"),
        ("trainer_replicas", "two_replicas_over_one"),
        ("judgement", "false_promotion_upper_01"),
        ("switchback", "median_pairs_plus3"),
        ("operator", "soak_diverged"),
    ],
)
def test_a_quick_run_writes_its_report(cache, tmp_path, name, figure):
    run = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick"],
        cwd=tmp_path,
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
    report = json.loads((tmp_path / f"out/bench/{name}.json").read_text())
    assert report["command"].endswith(f"-m benchmarks.{name} --quick")
    assert report["figures"][figure]["unit"]
