"""What a portfolio of drafts saves when a domain returns: verify steps, against the frozen draft.

The initial draft knows one domain, and one that was promoted since knows another. Both domains take
turns; the same requests are served with the frozen initial draft alone, with the promoted one
alone, and with both in a portfolio, with and without the domain's label on each request. Windows
are compared in output tokens per verify step, which no other load on the machine changes, and the
whole in tokens per second.

    python -m benchmarks.portfolio [--quick] [--requests N] [--max-tokens N] [--rounds N]
"""

from __future__ import annotations

import os

# Before torch: its threads must not spin while the others work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.option import Count, parse
from benchmarks.report import Figure, median_figure, write_report
from benchmarks.workload import Workload, prompts_of, workload

from aurora_common.checkpoint import read_manifest
from aurora_inference.contract import DraftReference, Request, Sampling
from aurora_inference.native.engine import Engine, EngineSettings
from aurora_inference.native.launch import new_engine
from aurora_inference.native.runner.cpu import Cpu
from aurora_inference.native.runner.target import Target
from aurora_inference.trajectory.completion import Completion
from aurora_model.folder import read_folder

Arm = Literal["static", "promoted", "portfolio", "unlabelled"]
ARMS: tuple[Arm, ...] = ("static", "promoted", "portfolio", "unlabelled")
_WINDOW = 16
_AT_ONCE = 4
_LENGTH = 6


@dataclass
class Run:
    """One arm's engine, and what it served."""

    engine: Engine
    labelled: bool
    completions: list[Completion]
    seconds: float = 0.0
    windows: list[float] = field(default_factory=list)

    def serve(self, domain: str, prompts: Sequence[tuple[int, ...]], max_tokens: int) -> None:
        """Serves the prompts, a window at a time, and notes each window's tokens per step."""
        for start in range(0, len(prompts), _WINDOW):
            began = time.perf_counter()
            self.completions.clear()
            self._window(domain, prompts[start : start + _WINDOW], max_tokens)
            self.seconds += time.perf_counter() - began
            steps = sum(len(each.steps) for each in self.completions)
            tokens = sum(len(each.output_tokens) for each in self.completions)
            self.windows.append(tokens / steps)

    def _window(self, domain: str, prompts: Sequence[tuple[int, ...]], max_tokens: int) -> None:
        waiting = list(enumerate(prompts))
        while waiting or not self.engine.idle:
            counters = self.engine.counters()
            while waiting and counters.running + counters.waiting < _AT_ONCE:
                number, prompt = waiting.pop(0)
                self.engine.submit(
                    Request(
                        id=str(number),
                        prompt_tokens=prompt,
                        max_tokens=max_tokens,
                        sampling=Sampling(temperature=0.0),
                        ignore_eos=True,
                        domain=domain if self.labelled else "",
                    )
                )
                counters = self.engine.counters()
            self.engine.step()


def started(work: Workload, target: Target, arm: Arm) -> Run:
    """An engine with the initial draft."""
    completions: list[Completion] = []
    engine = new_engine(
        target,
        EngineSettings(
            max_context_tokens=512, max_speculation_length=_LENGTH, adaptive_speculation=False
        ),
        on_completion=completions.append,
    )
    engine.stage("stable", engine.runner.load_drafter(work.static_draft, ""))
    return Run(engine, arm != "unlabelled", completions)


def promote(run: Run, work: Workload, arm: Arm) -> None:
    """Promotes the adapted draft, as the operator does; a portfolio retains the initial one."""
    if arm == "static":
        return
    engine = run.engine
    if arm != "promoted":
        digest = read_manifest(work.static_draft).digest
        assert engine.stage_resident("retained", DraftReference("static", digest))
    drafter = engine.runner.load_drafter(work.adapted_draft, "")
    engine.stage("candidate", drafter)
    engine.promote(drafter.digest)


def main() -> None:
    """Measures, prints, and writes out/bench/portfolio.json."""
    options = parse(
        __doc__,
        {
            "requests": Count(32, 16, "in each of five phases"),
            "max_tokens": Count(48, 16),
            "rounds": Count(2, 1),
        },
    )
    work = workload(quick=options.quick)
    target = Target.load(read_folder(work.target), dtype=work.dtype, device=Cpu())
    count = options.requests
    first = prompts_of(work, "python", count, quick=options.quick)
    logs = work.prompts(count)
    worst: dict[Arm, list[float]] = {arm: [] for arm in ARMS}
    whole: dict[Arm, list[float]] = {arm: [] for arm in ARMS}
    returned: dict[Arm, list[float]] = {arm: [] for arm in ARMS}
    for number in range(options.rounds):
        runs = {arm: started(work, target, arm) for arm in ARMS}
        for run in runs.values():
            run.serve("python", first, options.max_tokens)
        for arm, run in runs.items():
            promote(run, work, arm)
            run.windows.clear()
            run.seconds = 0.0
        for domain, prompts in (
            ("logs", logs),
            ("python", first),
            ("logs", logs),
            ("python", first),
        ):
            for arm in ARMS if number % 2 else reversed(ARMS):
                runs[arm].serve(domain, prompts, options.max_tokens)
        static = runs["static"]
        back = len(static.windows) // 4
        for arm, run in runs.items():
            over = [mine / its for mine, its in zip(run.windows, static.windows, strict=True)]
            worst[arm].append(min(over))
            returned[arm].append(over[back])
            whole[arm].append(static.seconds / run.seconds)
        print(f"round {number + 1} of {options.rounds}", flush=True)
    write_report("portfolio", _figures(worst, returned, whole))


def _figures(
    worst: dict[Arm, list[float]], returned: dict[Arm, list[float]], whole: dict[Arm, list[float]]
) -> dict[str, Figure]:
    figures = {}
    for arm in ARMS[1:]:
        figures[f"worst_window_over_static_{arm}"] = median_figure(worst[arm], "ratio")
        figures[f"first_window_of_return_over_static_{arm}"] = median_figure(returned[arm], "ratio")
        figures[f"tokens_per_second_over_static_{arm}"] = median_figure(whole[arm], "ratio")
    return figures


if __name__ == "__main__":
    main()
