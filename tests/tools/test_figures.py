"""The README's table is what the reports say, and nothing else changes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tools import figures

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _report(folder, name, command, **values):
    (folder / "bench").mkdir(exist_ok=True)
    figures = {key: {"value": value} for key, value in values.items()}
    report = {"command": command, "figures": figures}
    (folder / "bench" / f"{name}.json").write_text(json.dumps(report))


def test_without_reports_the_readme_stays_as_it_is(tmp_path):
    present = figures._TABLE.search(README)[0]
    assert figures.table(tmp_path, present) == present


def test_a_report_writes_its_rows_and_says_what_is_not_reached(tmp_path):
    present = figures._TABLE.search(README)[0]
    _report(
        tmp_path, "swap", "python -m benchmarks.swap", dropped_requests=3, pause_p99_over_step=0.5
    )
    written = figures.table(tmp_path, present)
    assert "| requests dropped over 100 swaps under load | 3 (not reached) | 0 |" in written
    assert "| pause of a swap, p99 ÷ one decode step | 0.50 | < 1 |" in written
    changed = set(written.splitlines()) - set(present.splitlines())
    assert len(changed) <= 2


def test_a_report_that_ended_early_leaves_the_other_rows(tmp_path):
    present = figures._TABLE.search(README)[0]
    _report(tmp_path, "swap", "python -m benchmarks.swap", dropped_requests=3)
    written = figures.table(tmp_path, present)
    assert "| 3 (not reached) | 0 | `python -m benchmarks.swap` |" in written
    changed = set(written.splitlines()) - set(present.splitlines())
    assert len(changed) == 1


def test_a_quick_run_counts_for_nothing(tmp_path):
    present = figures._TABLE.search(README)[0]
    _report(tmp_path, "swap", "python -m benchmarks.swap --quick", dropped_requests=3)
    assert figures.table(tmp_path, present) == present


def test_every_benchmark_reports_the_keys_that_its_rows_need():
    for row in figures.ROWS:
        modules = (ROOT / "benchmarks").glob(f"{row.report}*.py")
        source = "".join(module.read_text() for module in modules)
        source += (ROOT / "services/demo/aurora_demo/measurement.py").read_text()
        for key in row.keys:
            stem = re.sub(r"_b\d$|_(200|1000)_seconds$", "", key)
            assert stem in source, f"{row.report} reports no {key}"
