"""Tokens per second of our engine and of Hugging Face's, with the same weights, in one run.

Plain decoding, speculative decoding with an adapted draft, `generate` and assisted generation take
turns, round after round, on the same prompts, greedily; each ratio is taken within its round. Both
sides run in the precision and with the threads that are fastest for them on this machine.

    python -m benchmarks.engine [--quick] [--rounds N] [--prompts N] [--max-tokens N]
"""

from __future__ import annotations

import os

# Before torch: its threads must not spin while the others work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from benchmarks.option import Count, parse
from benchmarks.report import Figure, median_figure, write_report
from benchmarks.workload import Workload, workload
from transformers import AutoModelForCausalLM, PreTrainedModel

from aurora_inference.contract import Request, Sampling
from aurora_inference.native.engine import EngineSettings
from aurora_inference.native.launch import new_engine
from aurora_inference.native.runner.cpu import Cpu
from aurora_inference.native.runner.target import Target
from aurora_model.folder import read_folder

BATCHES = (1, 4, 8)
# Hugging Face's heuristic goes as far where everything is accepted.
MAX_SPECULATION_LENGTH = 12
Prompts = Sequence[tuple[int, ...]]
# Decodes the prompts, so many at a time; returns the number of tokens.
Decode = Callable[[Prompts, int], int]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to decode; `seconds_key` names it in the report."""

    name: str
    decode: Decode
    batches: tuple[int, ...]


def ours(work: Workload, target: Target, *, speculative: bool, max_tokens: int) -> Decode:
    """Our engine, with the adapted draft or without speculation."""
    engine = new_engine(
        target,
        # Without a draft it would draft by n-grams.
        EngineSettings(
            max_context_tokens=512,
            max_speculation_length=MAX_SPECULATION_LENGTH if speculative else 0,
        ),
        on_completion=lambda completion: None,
    )
    if speculative:
        engine.stage("stable", engine.runner.load_drafter(work.adapted_draft, ""))

    def decode(prompts: Prompts, batch: int) -> int:
        tokens, waiting = 0, list(prompts)
        while waiting or not engine.idle:
            counters = engine.counters()
            while waiting and counters.running + counters.waiting < batch:
                engine.submit(
                    Request(
                        id=str(len(waiting)),
                        prompt_tokens=waiting.pop(),
                        max_tokens=max_tokens,
                        sampling=Sampling(temperature=0.0),
                        ignore_eos=True,
                        record=False,
                    )
                )
                counters = engine.counters()
            tokens += sum(len(progress.token_ids) for progress in engine.step())
        return tokens

    return decode


def hugging_face(
    model: PreTrainedModel, assistant: PreTrainedModel | None, *, threads: int, max_tokens: int
) -> Decode:
    """transformers' `generate`; with an assistant, its assisted generation."""

    def decode(prompts: Prompts, batch: int) -> int:
        torch.set_num_threads(threads)
        tokens = 0
        for start in range(0, len(prompts), batch):
            rows = prompts[start : start + batch]
            inputs = torch.tensor(rows)
            outputs = model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                assistant_model=assistant,
                do_sample=False,
                min_new_tokens=max_tokens,
                max_new_tokens=max_tokens,
                pad_token_id=0,
            )
            tokens += int(outputs.numel() - inputs.numel())
        return tokens

    return decode


def fastest_hugging_face(
    work: Workload, prompts: Prompts, *, assisted: bool, max_tokens: int
) -> Decode:
    """The fastest of both precisions, one thread or all, and two proposal schedules."""
    candidates: list[Decode] = []
    for dtype in (torch.float32, torch.bfloat16):
        for threads in sorted({1, os.cpu_count() or 1}):
            for schedule in ("constant", "heuristic") if assisted else (None,):
                model = _model(work.target, dtype)
                draft = _model(work.adapted_draft, dtype) if assisted else None
                if draft is not None and schedule is not None:
                    draft.generation_config.num_assistant_tokens_schedule = schedule
                    draft.generation_config.num_assistant_tokens = 6
                candidates.append(
                    hugging_face(model, draft, threads=threads, max_tokens=max_tokens)
                )
    for decode in candidates:
        decode(prompts[:1], 1)
    return min(candidates, key=lambda decode: _seconds(decode, prompts[:3], 1))


def _model(folder: object, dtype: torch.dtype) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    return model


def _seconds(decode: Decode, prompts: Prompts, batch: int) -> float:
    started = time.perf_counter()
    decode(prompts, batch)
    return time.perf_counter() - started


def main() -> None:
    """Measures, prints, and writes out/bench/engine.json."""
    options = parse(
        __doc__,
        {
            "rounds": Count(5, 1),
            "prompts": Count(16, 2, "in each round and batch size"),
            "max_tokens": Count(96, 8),
        },
    )
    work = workload(quick=options.quick)
    prompts = work.prompts(options.prompts)
    cpu = Cpu()
    target = Target.load(read_folder(work.target), dtype=work.dtype, device=cpu)
    tokens = options.max_tokens
    print(f"our target decodes with {cpu.decode_threads} threads: {cpu.target_calibration.choices}")
    print("choosing the fastest settings for Hugging Face", flush=True)
    contestants = [
        Contestant("plain", ours(work, target, speculative=False, max_tokens=tokens), BATCHES),
        Contestant("speculative", ours(work, target, speculative=True, max_tokens=tokens), BATCHES),
        Contestant(
            "hf_generate",
            fastest_hugging_face(work, prompts, assisted=False, max_tokens=tokens),
            BATCHES,
        ),
        Contestant(
            "hf_assisted",
            fastest_hugging_face(work, prompts, assisted=True, max_tokens=tokens),
            (1,),
        ),
    ]
    write_report(
        "engine", _figures(_measured(contestants, prompts, options.rounds, cpu.decode_threads))
    )


def _measured(
    contestants: Sequence[Contestant], prompts: Prompts, rounds: int, threads: int
) -> dict[tuple[str, int], list[float]]:
    """Tokens per second of each contestant and batch size, one value for each round."""
    rates: dict[tuple[str, int], list[float]] = {}
    # The first round warms everything up and is not counted.
    for number in range(rounds + 1):
        for contestant in contestants if number % 2 else reversed(contestants):
            for batch in contestant.batches:
                torch.set_num_threads(threads)
                started = time.perf_counter()
                count = contestant.decode(prompts, batch)
                rate = count / (time.perf_counter() - started)
                if number:
                    rates.setdefault((contestant.name, batch), []).append(rate)
        print(f"round {number} of {rounds}", flush=True)
    return rates


def _figures(rates: dict[tuple[str, int], list[float]]) -> dict[str, Figure]:
    def ratio(batch: int, baseline: str) -> Figure:
        pairs = zip(rates["speculative", batch], rates[baseline, batch], strict=True)
        return median_figure([ours / theirs for ours, theirs in pairs], "ratio")

    figures = {"speculative_over_hf_assisted_b1": ratio(1, "hf_assisted")}
    for batch in BATCHES:
        figures[f"speculative_over_plain_b{batch}"] = ratio(batch, "plain")
        figures[f"speculative_over_hf_generate_b{batch}"] = ratio(batch, "hf_generate")
    for (name, batch), values in rates.items():
        figures[f"{name}_b{batch}"] = median_figure(values, "tokens/s")
    return figures


if __name__ == "__main__":
    main()
