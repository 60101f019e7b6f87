"""Writes the README's table of figures from what `make demo` and the benchmarks measured last.

Rows whose report is missing, or ended before it had their figures, keep what they say.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_TABLE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- /figures -->)", re.DOTALL)
_HEAD = "| what | measured | goal | measured by |\n|---|---|---|---|\n"

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `keys` of a report, each as `shown`; `reached` compares the first with the goal."""

    what: str
    report: str
    keys: Sequence[str]
    shown: str
    command: str
    goal: str = "reported"
    reached: Callable[[float], bool] = lambda value: True
    scale: float = 1.0

    def measured(self, figures: Figures) -> str:
        values = [figures[key] * self.scale for key in self.keys]
        text = ", ".join(self.shown.format(value) for value in values)
        return text if self.reached(values[0]) else f"{text} (not reached)"

    def line(self, measured: str) -> str:
        return f"| {self.what} | {measured} | {self.goal} | `{self.command}` |\n"


def _at_least(bound: float) -> Callable[[float], bool]:
    return lambda value: value >= bound


def _at_most(bound: float) -> Callable[[float], bool]:
    return lambda value: value <= bound


_ENGINE = "python -m benchmarks.engine"
_OPERATOR = "make bench-operator"
_SERVING = "make bench-serving"
_VLLM = "make bench-vllm"
ROWS = (
    Row(
        "tokens/s after the shift, adapted ÷ frozen draft, serving only",
        "demo",
        ("adapted_over_static",),
        "{:.2f}×",
        "make demo",
        "≥ 2×",
        _at_least(2),
    ),
    Row(
        "… over the whole phase, with all training time charged to it",
        "demo",
        ("adapted_over_static_net",),
        "{:.2f}×",
        "make demo",
    ),
    Row(
        "a worse and a slower draft, published on purpose: refused",
        "demo",
        ("bad_drafts_refused",),
        "{:.0f} of 2",
        "make demo",
        "2 of 2",
        _at_least(2),
    ),
    Row(
        "processor time of judging every request ÷ that of serving it",
        "judging",
        ("judging_cost_share",),
        "{:.1f}%",
        "python -m benchmarks.judging",
        "≤ 2%",
        _at_most(2),
        scale=100,
    ),
    Row(
        "speculative ÷ plain decoding, batch 1",
        "engine",
        ("speculative_over_plain_b1",),
        "{:.2f}×",
        _ENGINE,
        "≥ 2.5×",
        _at_least(2.5),
    ),
    Row(
        "… batch 4, batch 8",
        "engine",
        ("speculative_over_plain_b4", "speculative_over_plain_b8"),
        "{:.2f}×",
        _ENGINE,
    ),
    Row(
        "speculative ÷ Hugging Face assisted generation, batch 1",
        "engine",
        ("speculative_over_hf_assisted_b1",),
        "{:.2f}×",
        _ENGINE,
        "≥ 2.2×",
        _at_least(2.2),
    ),
    Row(
        "speculative ÷ Hugging Face `generate`, batch 1, 4, 8",
        "engine",
        tuple(f"speculative_over_hf_generate_b{batch}" for batch in (1, 4, 8)),
        "{:.2f}×",
        _ENGINE,
    ),
    Row(
        "requests dropped over 100 swaps under load",
        "swap",
        ("dropped_requests",),
        "{:.0f}",
        "python -m benchmarks.swap",
        "0",
        _at_most(0),
    ),
    Row(
        "pause of a swap, p99 ÷ one decode step",
        "swap",
        ("pause_p99_over_step",),
        "{:.2f}",
        "python -m benchmarks.swap",
        "< 1",
        _at_most(1),
    ),
    Row(
        "tokens/s lost to recording trajectories",
        "capture",
        ("overhead_percent",),
        "{:.1f}%",
        "python -m benchmarks.capture",
        "≤ 3%",
        _at_most(3),
    ),
    Row(
        "buffer appends ÷ raw XADD of the same bytes",
        "buffer",
        ("append_over_raw_xadd",),
        "{:.2f}×",
        "python -m benchmarks.buffer",
        "≥ 0.5×",
        _at_least(0.5),
    ),
    Row(
        "training steps/s, two ranks ÷ one, draft of 28 M parameters",
        "distributed",
        ("two_ranks_over_one",),
        "{:.2f}×",
        "make bench-distributed",
        "≥ 1.6×",
        _at_least(1.6),
    ),
    Row(
        "wrong requests: answers of 5xx, and requests that hang",
        "serving",
        ("fuzz_5xx", "fuzz_hangs"),
        "{:.0f}",
        _SERVING,
        "0",
        _at_most(0),
    ),
    Row(
        "… memory growth over them, disconnects and overload",
        "serving",
        ("memory_growth_percent",),
        "{:.1f}%",
        _SERVING,
        "≤ 5%",
        _at_most(5),
    ),
    Row(
        "delay of a stream by another's prompt of 1 MB",
        "serving",
        ("neighbour_stall_ms_1mb",),
        "{:.0f} ms",
        _SERVING,
        "≤ 50 ms",
        _at_most(50),
    ),
    Row(
        "`/health` under attack, p99",
        "serving",
        ("health_p99_ms_under_attack",),
        "{:.0f} ms",
        _SERVING,
        "≤ 100 ms",
        _at_most(100),
    ),
    Row(
        "texts of one seed over 100 runs, load and drafts changing",
        "serving",
        ("seed_texts_distinct",),
        "{:.0f}",
        _SERVING,
        "1",
        _at_most(1),
    ),
    Row(
        "vLLM: exchange of the draft in the worker, p99",
        "vllm",
        ("flip_p99_ms",),
        "{:.1f} ms",
        _VLLM,
        "≤ 5 ms",
        _at_most(5),
    ),
    Row(
        "… requests failed over 300 exchanges under load",
        "vllm",
        ("failed_requests",),
        "{:.0f}",
        _VLLM,
        "0",
        _at_most(0),
    ),
    Row(
        "… tokens/s behind the gateway ÷ without it, 8 clients",
        "vllm",
        ("gateway_tokens_per_second_ratio_b8",),
        "{:.2f}",
        _VLLM,
        "≥ 0.98",
        _at_least(0.98),
    ),
    Row(
        "… time to the first token that it adds, 8 clients",
        "vllm",
        ("gateway_ttft_added_ms",),
        "{:.1f} ms",
        _VLLM,
        "≤ 1 ms",
        _at_most(1),
    ),
    Row(
        "… tokens/s with the distributions of every request recorded ÷ without",
        "vllm",
        ("capture_all_ratio_b8",),
        "{:.2f}",
        _VLLM,
        "≥ 0.90",
        _at_least(0.9),
    ),
    Row(
        "… and of a tenth of the requests",
        "vllm",
        ("capture_tenth_ratio_b8",),
        "{:.2f}",
        _VLLM,
        "≥ 0.98",
        _at_least(0.98),
    ),
    Row(
        "… verify steps counted for the draft that proposed them",
        "vllm",
        ("attributed_share",),
        "{:.2f}%",
        _VLLM,
        "≥ 99.9%",
        _at_least(99.9),
        scale=100,
    ),
    Row(
        "… tokens/s, adapted ÷ frozen draft",
        "vllm",
        ("adapted_over_static",),
        "{:.2f}×",
        _VLLM,
    ),
    Row(
        "operator: `kubectl apply` to the last object created, p99",
        "operator",
        ("apply_p99_seconds",),
        "{:.2f} s",
        _OPERATOR,
        "≤ 1 s",
        _at_most(1),
    ),
    Row(
        "… 200 new deployments at once",
        "operator",
        ("settle_200_seconds",),
        "{:.1f} s",
        _OPERATOR,
        "≤ 15 s",
        _at_most(15),
    ),
    Row(
        "… 1,000 new deployments at once",
        "operator",
        ("settle_1000_seconds",),
        "{:.0f} s",
        _OPERATOR,
        "≤ 60 s",
        _at_most(60),
    ),
    Row(
        "… memory with 1,000 deployments",
        "operator",
        ("rss_1000_bytes",),
        "{:.0f} MB",
        _OPERATOR,
        "≤ 200 MB",
        _at_most(200),
        scale=1e-6,
    ),
    Row(
        "… CPU when idle with them",
        "operator",
        ("idle_cpu_percent",),
        "{:.1f}%",
        _OPERATOR,
        "≤ 2%",
        _at_most(2),
    ),
    Row(
        "… API writes when idle with them",
        "operator",
        ("idle_writes",),
        "{:.0f}",
        _OPERATOR,
        "0",
        _at_most(0),
    ),
    Row(
        "… resumes every rollout after a kill",
        "operator",
        ("restart_resume_seconds",),
        "{:.1f} s",
        _OPERATOR,
        "≤ 5 s",
        _at_most(5),
    ),
    Row(
        "… a deleted object of a deployment is back, p99",
        "operator",
        ("owned_restored_p99_seconds",),
        "{:.1f} s",
        _OPERATOR,
        "≤ 10 s",
        _at_most(10),
    ),
    Row(
        "… causes of failure that Degraded tells within two minutes",
        "operator",
        ("degraded_named_share",),
        "{:.0f}%",
        _OPERATOR,
        "100%",
        _at_least(100),
        scale=100,
    ),
    Row(
        "… of 200 deployments, astray after 20 minutes of faults",
        "operator",
        ("soak_diverged",),
        "{:.0f}",
        _OPERATOR,
        "0",
        _at_most(0),
    ),
)


def table(reports: Path, before: str) -> str:
    """The table; `before` is the present one."""
    said = {line.split(" | ")[0].removeprefix("| "): line for line in before.splitlines(True)}
    lines = []
    for row in ROWS:
        figures = _figures(reports, row.report)
        if figures is not None and figures.keys() >= set(row.keys):
            lines.append(row.line(row.measured(figures)))
        elif row.what in said:
            lines.append(said[row.what])
    return _HEAD + "".join(lines)


def _figures(reports: Path, name: str) -> Figures | None:
    path = reports / ("demo/summary.json" if name == "demo" else f"bench/{name}.json")
    if not path.exists():
        return None
    report = json.loads(path.read_bytes())
    if "--quick" in report["command"]:
        return None
    return {key: figure["value"] for key, figure in report["figures"].items()}


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    found = _TABLE.search(text)
    if found is None:
        sys.exit(f"{readme} has no table between <!-- figures --> and <!-- /figures -->")
    written = table(ROOT / "out", found[0])
    readme.write_text(_TABLE.sub(lambda _: written, text), encoding="utf-8")


if __name__ == "__main__":
    main()
