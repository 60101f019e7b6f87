"""What a seed costs and what it gives.

Requests with a seed couple draft and target by shared noise, which accepts less than the optimal
rule that requests without one use. Both decode the same prompts at temperature 1, taking turns, at
a fixed speculation length. What each rule accepts is then computed, not sampled, at every position
of the texts that requests without a seed got. `texts_*` counts the texts of one seed in runs that
differ in draft, speculation length and neighbours.

    python -m benchmarks.seeds [--quick] [--rounds N] [--prompts N] [--max-tokens N] [--runs N]
"""

from __future__ import annotations

import os

# Before torch: its threads must not spin while the others work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from benchmarks.option import Count, parse
from benchmarks.report import Figure, median_figure, write_report
from benchmarks.workload import Workload, workload
from torch import Tensor

from aurora_inference.contract import Request, Sampling
from aurora_inference.native.engine import Engine, EngineSettings
from aurora_inference.native.launch import new_engine
from aurora_inference.native.runner.cpu import Cpu
from aurora_inference.native.runner.target import Target
from aurora_model.decoder import Decoder, causal_attend
from aurora_model.draft import Draft, PackedTokens, load_draft
from aurora_model.folder import read_folder

BATCH = 8
SPECULATION_LENGTH = 4
# At each of whose positions both rules are computed: V² steps a position.
TEXTS = 16
# Of the runs whose texts are counted; -1 adapts.
LENGTHS = (-1, 0, 1, 4, 7)
SEED = 1234


class Round(NamedTuple):
    """What decoding all prompts once gave."""

    tokens_per_second: float
    outputs: dict[str, tuple[int, ...]]


def engine_for(target: Target, draft: Path | None, *, length: int) -> Engine:
    """An engine with a fixed speculation length; -1 adapts it."""
    settings = EngineSettings(
        max_batch=BATCH,
        max_context_tokens=512,
        max_speculation_length=6 if length < 0 else length,
        adaptive_speculation=length < 0,
    )
    engine = new_engine(target, settings, on_completion=lambda completion: None)
    if draft is not None:
        engine.stage("stable", engine.runner.load_drafter(draft, ""))
    return engine


def decoded(engine: Engine, requests: Sequence[Request]) -> dict[str, tuple[int, ...]]:
    """Runs requests to their end, as many at once as the engine takes; their output tokens."""
    outputs: dict[str, tuple[int, ...]] = {request.id: () for request in requests}
    for request in requests:
        engine.submit(request)
    while not engine.idle:
        for progress in engine.step():
            outputs[progress.request_id] += progress.token_ids
    return outputs


def measured(
    engine: Engine, prompts: Sequence[tuple[int, ...]], *, first_seed: int | None, max_tokens: int
) -> Round:
    """Decodes each prompt with a seed of its own, from `first_seed` on, or all without one."""
    requests = [
        Request(
            id=str(number),
            prompt_tokens=prompt,
            max_tokens=max_tokens,
            sampling=Sampling(seed=None if first_seed is None else first_seed + number),
            ignore_eos=True,
            record=False,
        )
        for number, prompt in enumerate(prompts)
    ]
    started = time.perf_counter()
    outputs = decoded(engine, requests)
    seconds = time.perf_counter() - started
    return Round(sum(len(output) for output in outputs.values()) / seconds, outputs)


@torch.inference_mode()
def acceptance(
    target: Decoder, draft: Draft, prompt: tuple[int, ...], output: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """The probabilities [T] that the optimal and the coupled rule accept the draft of a token.

    Coupled, both take the token with the least noise ÷ probability, and the noise is standard
    exponential: both take i with probability 1 ÷ Σ_j max(target_j ÷ target_i, draft_j ÷ draft_i).
    """
    tokens = torch.tensor([[*prompt, *output[:-1]]])
    length = tokens.shape[1]
    positions = torch.arange(length)[None]
    rows = torch.arange(len(prompt) - 1, length)
    hidden = target(tokens, positions, causal_attend)[0, rows]
    batch = PackedTokens(tokens, positions, (length,), rows)
    # [T, V]
    target_probs = target.logits(hidden).float().softmax(-1)
    draft_probs = draft.logits(draft.features(batch)).float().softmax(-1)
    optimal = torch.minimum(target_probs, draft_probs).sum(-1)
    coupled = torch.empty(len(rows))
    least = torch.finfo(torch.float32).tiny
    for row, (mine, theirs) in enumerate(zip(target_probs, draft_probs, strict=True)):
        either = torch.maximum(
            mine / mine.clamp_min(least)[:, None], theirs / theirs.clamp_min(least)[:, None]
        )
        coupled[row] = (1 / either.sum(-1)).sum()
    return optimal, coupled


def distinct_texts(work: Workload, dtype: torch.dtype, *, runs: int, max_tokens: int) -> int:
    """How many texts one seed gives in runs with every draft, every length and any neighbours."""
    target = Target.load(read_folder(work.target), dtype=dtype, device=Cpu())
    drafts = (None, work.static_draft, work.adapted_draft)
    engines = [engine_for(target, draft, length=length) for draft in drafts for length in LENGTHS]
    draws = random.Random(SEED)
    prompts = work.fresh_prompts
    texts = set()
    for run in range(runs):
        watched = Request("watched", prompts[0], max_tokens, Sampling(seed=SEED), ignore_eos=True)
        neighbours = [
            Request(
                id=str(number),
                prompt_tokens=draws.choice(prompts)[: draws.randint(1, 24)],
                max_tokens=draws.randint(1, max_tokens),
                sampling=Sampling(temperature=draws.choice([0.0, 0.7, 1.0])),
            )
            for number in range(draws.randrange(2 * BATCH))
        ]
        requests = [watched, *neighbours]
        draws.shuffle(requests)
        texts.add(decoded(engines[run % len(engines)], requests)["watched"])
    return len(texts)


def main() -> None:
    """Measures, prints, and writes out/bench/seeds.json."""
    options = parse(
        __doc__,
        {
            "rounds": Count(5, 1),
            "prompts": Count(64, 4, "in each round"),
            "max_tokens": Count(96, 8),
            "runs": Count(100, 4, "whose texts are counted"),
        },
    )
    work = workload(quick=options.quick)
    prompts, tokens = work.prompts(options.prompts), options.max_tokens
    target = Target.load(read_folder(work.target), dtype=work.dtype, device=Cpu())
    figures: dict[str, Figure] = {}
    for name, folder in (("adapted", work.adapted_draft), ("static", work.static_draft)):
        engine = engine_for(target, folder, length=SPECULATION_LENGTH)
        speeds: list[float] = []
        # The first round warms everything up and is not counted.
        for number in range(options.rounds + 1):
            rounds: dict[bool, Round] = {}
            for seeded in (True, False) if number % 2 else (False, True):
                first_seed = number * len(prompts) if seeded else None
                rounds[seeded] = measured(engine, prompts, first_seed=first_seed, max_tokens=tokens)
            if number:
                speeds.append(rounds[True].tokens_per_second / rounds[False].tokens_per_second)
            print(f"{name} draft: round {number} of {options.rounds}", flush=True)
        draft = load_draft(folder, target=work.identity, dtype=work.dtype)[0]
        rules = [
            acceptance(target.decoder, draft, prompt, rounds[False].outputs[str(number)])
            for number, prompt in enumerate(prompts[:TEXTS])
        ]
        figures |= _figures(name, rules, speeds)
    for dtype in (torch.float32, torch.bfloat16):
        print(f"counting texts in {dtype}", flush=True)
        count = distinct_texts(work, dtype, runs=options.runs, max_tokens=tokens)
        key = f"texts_of_a_seed_{str(dtype).removeprefix('torch.')}"
        figures[key] = median_figure([count], f"texts in {options.runs} runs")
    write_report("seeds", figures)


def _figures(
    name: str, rules: Sequence[tuple[Tensor, Tensor]], speeds: Sequence[float]
) -> dict[str, Figure]:
    """`rules`: of each text; the spread of acceptance is that of texts."""
    unit = "expected share of drafted tokens"
    return {
        f"{name}_acceptance_optimal": median_figure([float(a.mean()) for a, _ in rules], unit),
        f"{name}_acceptance_coupled": median_figure([float(b.mean()) for _, b in rules], unit),
        f"{name}_acceptance_coupled_over_optimal": median_figure(
            [float(coupled.mean() / optimal.mean()) for optimal, coupled in rules], "ratio"
        ),
        f"{name}_tokens_per_second_coupled_over_optimal": median_figure(speeds, "ratio"),
    }


if __name__ == "__main__":
    main()
