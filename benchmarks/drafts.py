"""Draft kinds after the same requests: how many tokens a verify step gives.

Both begin with random weights and are trained alike on the same recorded answers of the demo's
target to prompts of source code: an EAGLE-3 head, and a standalone draft for which a drafted token
costs as many multiplications. Acceptance length is tokens over expected verify steps by the
trainer's judge, on answers to other prompts; 1 is without speculation.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from benchmarks.option import Count, parse
from benchmarks.report import Figure, exact_figure, write_report
from benchmarks.workload import prompts_of, served_samples, workload

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
        length = acceptance_length(learner.average, target, fresh)
        cost = draft.multiplications(tokens=1, predictions=1)
        figures |= {
            f"{draft.kind}_acceptance_length": exact_figure(length, "tokens per step"),
            f"{draft.kind}_multiplications": exact_figure(cost / 1e6, "million a drafted token"),
            f"{draft.kind}_training_step": exact_figure(seconds, "seconds"),
        }
    lengths = [figures[f"{kind}_acceptance_length"].value for kind in ("eagle3", "standalone")]
    figures["eagle3_over_standalone"] = exact_figure(lengths[0] / lengths[1], "×")
    write_report("drafts", figures)


def acceptance_length(draft: Draft, target: Decoder, samples: Sequence[Sample]) -> float:
    """Tokens over expected verify steps, each drafting _DRAFTED, when all are served greedily."""
    teacher = Teacher(target, draft.target_layers(target.config)) if draft.needs_target else None
    steps = sum(
        expected_steps(
            acceptance(
                draft,
                sample,
                _GREEDY,
                vocab_size=target.config.vocab_size,
                drafted=_DRAFTED,
                teacher=teacher,
            ),
            _DRAFTED,
        )
        for sample in samples
    )
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
    """The learner, and the seconds of a step."""
    teacher = Teacher(target, draft.target_layers(target.config))
    settings = LearnerSettings(objective="LK", learning_rate=2e-3, unroll=Unroll(_DRAFTED))
    learner = Learner(draft, settings, packed=teacher.pack)
    source, began = random.Random(_SEED), time.monotonic()
    for _ in range(steps):
        learner.step(source.sample(samples, batch))
    return learner, (time.monotonic() - began) / steps


if __name__ == "__main__":
    main()
