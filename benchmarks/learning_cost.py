"""What a step of the engine costs on this machine, by speculation length."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.workload import Workload

from aurora_inference.contract import Request, Sampling
from aurora_inference.native.engine import EngineSettings
from aurora_inference.native.launch import new_engine
from aurora_inference.native.runner.cpu import Cpu
from aurora_inference.native.runner.target import Target
from aurora_model.folder import read_folder

# Speculation lengths among which an engine finds the best.
LENGTHS = (0, 1, 2, 4, 7, 12)
_SAMPLED_BATCH = 4
_CONTEXT_TOKENS = 512


class StepCost(NamedTuple):
    """Processor seconds of a step for each request in it, by speculation length.

    Greedy requests are served one at a time, sampled ones four at a time.
    """

    greedy: Mapping[int, float]
    sampled: Mapping[int, float]

    def at(self, temperature: float) -> Mapping[int, float]:
        return self.sampled if temperature else self.greedy


def measured_cost(work: Workload, *, steps: int) -> StepCost:
    """Means over up to `steps` steps of each length, with one thread."""
    target = Target.load(read_folder(work.target), dtype=work.dtype, device=Cpu())
    greedy, sampled = (
        {length: _step_seconds(work, target, length, rows, steps) for length in LENGTHS}
        for rows in (1, _SAMPLED_BATCH)
    )
    return StepCost(greedy, sampled)


def _step_seconds(work: Workload, target: Target, length: int, rows: int, steps: int) -> float:
    """Of `rows` requests decoded together, for each of them."""
    settings = EngineSettings(
        max_batch=rows,
        max_context_tokens=_CONTEXT_TOKENS,
        max_speculation_length=max(length, 1),
        adaptive_speculation=False,
    )
    engine = new_engine(target, settings, on_completion=lambda completion: None)
    if length:
        engine.stage("stable", engine.runner.load_drafter(work.static_draft, ""))
    for number, prompt in enumerate(work.prompts(rows)):
        greedy = Sampling(temperature=0.0)
        most = _CONTEXT_TOKENS - len(prompt)
        engine.submit(Request(str(number), prompt, most, greedy, ignore_eos=True, record=False))
    # Prompts are read, and everything is warm.
    for _ in range(2):
        engine.step()
    began = time.process_time()
    done = 0
    while done < steps and not engine.idle:
        engine.step()
        done += 1
    return (time.process_time() - began) / done / rows
