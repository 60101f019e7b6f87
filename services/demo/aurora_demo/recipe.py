"""The recipe of the demo's models: shapes, steps and seeds. Any change gets a new cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from aurora_demo.corpus import Domain


@dataclass(frozen=True, slots=True)
class Schedule:
    """A learning-rate schedule: linear warmup, a plateau, and linear decay to zero."""

    steps: int
    learning_rate: float
    warmup_steps: int
    decay_fraction: float

    def rates(self) -> list[float]:
        """The learning rate of each step."""
        decay_steps = self.decay_fraction * self.steps
        return [
            self.learning_rate
            * min(1.0, (step + 1) / self.warmup_steps)
            * min(1.0, (self.steps - step) / decay_steps)
            for step in range(self.steps)
        ]


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama's shape; embeddings are tied."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int


@dataclass(frozen=True, slots=True)
class TargetTraining:
    """Trains few layers for `shallow_steps` of the schedule, then all of them.

    A step of two layers costs a quarter of one of eight and achieves nearly as much, so the same
    quality takes about a third of the time.
    """

    schedule: Schedule
    shallow_layers: int
    shallow_steps: int
    windows: Mapping[Domain, int]  # of each domain, in a batch


@dataclass(frozen=True, slots=True)
class DraftTraining:
    """Trains on one domain: on its text first, which is cheap, then on target distributions."""

    domain: Domain
    text: Schedule
    distillation: Schedule
    windows: int  # in a batch


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that determines the weights, except for the text."""

    vocabulary_size: int
    target: Shape
    draft: Shape
    target_training: TargetTraining
    draft_training: DraftTraining
    window_tokens: int
    context_tokens: int
    generated_documents: int  # of each generated domain
    seed: int
    # Incremented when a change of the code changes the result of a recipe.
    version: int

    def digest(self, texts: Sequence[str]) -> str:
        """Identifies the result of this recipe on these texts: 16 hex digits."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode())
        for text in texts:
            digest.update(hashlib.sha256(text.encode()).digest())
        return digest.hexdigest()[:16]


# 25.2 and 1.2 million parameters, about 52 TFLOP to train: a minute and a half on two cores that
# multiply bfloat16, five minutes on two that do not.
RECIPE = Recipe(
    vocabulary_size=2048,
    target=Shape(hidden_size=512, intermediate_size=1536, layers=8, heads=8, kv_heads=2),
    draft=Shape(hidden_size=256, intermediate_size=640, layers=1, heads=4, kv_heads=2),
    target_training=TargetTraining(
        schedule=Schedule(steps=620, learning_rate=2e-3, warmup_steps=20, decay_fraction=0.4),
        shallow_layers=2,
        shallow_steps=500,
        windows={"python": 6, "logs": 1, "sql": 1},
    ),
    draft_training=DraftTraining(
        domain="python",
        text=Schedule(steps=200, learning_rate=3e-3, warmup_steps=20, decay_fraction=0.3),
        distillation=Schedule(steps=80, learning_rate=2e-3, warmup_steps=20, decay_fraction=0.7),
        windows=16,
    ),
    window_tokens=128,
    context_tokens=1024,
    generated_documents=400,
    seed=0,
    version=2,
)
