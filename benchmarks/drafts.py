"""Draft kinds after the same requests: how many tokens a verify step gives.

Two begin with random weights and are trained alike on the same recorded answers of the demo's
target to prompts of source code: an EAGLE-3 head, and a standalone draft for which a drafted token
costs as many multiplications. N-grams, which learn nothing, are beside them. Acceptance length is
tokens over expected verify steps by the trainer's judge, on answers to other prompts; 1 is without
speculation. Acceptance of the first and the last token of a proposal tells whether a draft lacks
knowledge or loses it on the way, and on answers that it learned from, whether it lacks examples.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np
import torch
from benchmarks.option import Count, parse
from benchmarks.report import Figure, exact_figure, write_report
from benchmarks.workload import prompts_of, served_samples, workload

from aurora_inference.native.ngram import SuffixAutomaton
from aurora_model.decoder import Decoder
from aurora_model.draft import Draft, Eagle3Draft, random_draft
from aurora_model.weights import load_decoder
from aurora_trainer.data.sample import Sample
from aurora_trainer.data.teacher import Teacher
from aurora_trainer.judge.acceptance import acceptance
from aurora_trainer.judge.renewal import expected_steps
from aurora_trainer.judge.sampling import Sampling
from aurora_trainer.learning.gradient import Unroll
from aurora_trainer.learning.learner import Learner, LearnerSettings

_DRAFTED = 4
_SEED = 1
_GREEDY = Sampling(temperature=0.0)


def main() -> None:
    counts = {
        "requests": Count(192, 4, "answers to learn from"),
        "fresh": Count(48, 4, "answers to measure"),
        "steps": Count(200, 2, "training steps of each draft"),
        "batch": Count(8, 2, "requests in a step"),
    }
    options = parse(__doc__, counts)
    work = workload(quick=options.quick)
    prompts = prompts_of(work, "python", options.requests + options.fresh, quick=options.quick)
    samples = served_samples(work.target, prompts, work.dtype)
    served, fresh = samples[: options.requests], samples[options.requests :]
    target = load_decoder(work.target, dtype=torch.float32).requires_grad_(requires_grad=False)
    head = Eagle3Draft.random(target.config, _SEED)
    head.attach(target)
    figures: dict[str, Figure] = {}
    for draft in (head, _standalone_as_dear(head, target)):
        learner, seconds = _trained(draft, target, served, options.steps, options.batch)
        length, (first, *_, last) = accepted(learner.average, target, fresh)
        _, (learned, *_) = accepted(learner.average, target, served[: len(fresh)])
        cost = draft.multiplications(tokens=1, predictions=1)
        figures |= {
            f"{draft.kind}_acceptance_length": exact_figure(length, "tokens per step"),
            f"{draft.kind}_first_token": exact_figure(first, "accepted"),
            f"{draft.kind}_last_token": exact_figure(last, "accepted"),
            f"{draft.kind}_first_token_learned": exact_figure(learned, "accepted"),
            f"{draft.kind}_multiplications": exact_figure(cost / 1e6, "million a drafted token"),
            f"{draft.kind}_training_step": exact_figure(seconds, "seconds of processor"),
        }
    figures["ngram_acceptance_length"] = exact_figure(ngram_length(fresh), "tokens per step")
    lengths = [figures[f"{kind}_acceptance_length"].value for kind in ("eagle3", "standalone")]
    figures["eagle3_over_standalone"] = exact_figure(lengths[0] / lengths[1], "×")
    write_report("drafts", figures)


def accepted(draft: Draft, target: Decoder, samples: Sequence[Sample]) -> tuple[float, list[float]]:
    """Tokens over expected verify steps, each drafting _DRAFTED, when all are served greedily; and
    how many are accepted at each place of a proposal, if it is reached."""
    teacher = Teacher(target, draft.target_layers(target.config)) if draft.needs_target else None
    found = [
        acceptance(
            draft,
            sample,
            _GREEDY,
            vocab_size=target.config.vocab_size,
            drafted=_DRAFTED,
            teacher=teacher,
        )
        for sample in samples
    ]
    steps = sum(expected_steps(each, _DRAFTED) for each in found)
    columns = [each if each.ndim == 2 else each[:, None] for each in found]
    by_place = np.concatenate([np.broadcast_to(each, (len(each), _DRAFTED)) for each in columns])
    return len(by_place) / steps, by_place.mean(axis=0).tolist()


def ngram_length(samples: Sequence[Sample]) -> float:
    """Tokens over verify steps with what followed a request's last tokens before."""
    steps = 0
    for sample in samples:
        history, place = SuffixAutomaton(), len(sample.tokens) - sample.output_count
        tokens = sample.tokens.tolist()
        for token in tokens[:place]:
            history.append(token)
        while place < len(tokens):
            proposal = history.continuation(_DRAFTED)
            matches = (left == right for left, right in zip(proposal, tokens[place:], strict=False))
            emitted = 1 + sum(takewhile(bool, matches))
            for token in tokens[place : place + emitted]:
                history.append(token)
            place += emitted
            steps += 1
    return sum(sample.output_count for sample in samples) / steps


def _standalone_as_dear(head: Eagle3Draft, target: Decoder) -> Draft:
    """One layer as wide as the target, whose inner width makes up for what the head reads."""
    shape = replace(target.config, num_layers=1, tie_word_embeddings=True)
    budget = head.multiplications(tokens=1, predictions=1)
    least = random_draft(replace(shape, intermediate_size=1), _SEED)
    spare = budget - least.multiplications(tokens=1, predictions=1)
    inner = 1 + round(spare / (3 * shape.hidden_size))
    return random_draft(replace(shape, intermediate_size=inner), _SEED)


def _trained(
    draft: Draft, target: Decoder, samples: Sequence[Sample], steps: int, batch: int
) -> tuple[Learner, float]:
    """The learner, and the processor's seconds of a step."""
    teacher = Teacher(target, draft.target_layers(target.config))
    settings = LearnerSettings(objective="LK", learning_rate=2e-3, unroll=Unroll(_DRAFTED))
    learner = Learner(draft, settings, packed=teacher.pack)
    source, began = random.Random(_SEED), time.process_time()
    for _ in range(steps):
        learner.step(source.sample(samples, batch))
    return learner, (time.process_time() - began) / steps


if __name__ == "__main__":
    main()
