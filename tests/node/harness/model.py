"""The models that the node's pods serve and train: the demo's, smaller, trained once a machine."""

from __future__ import annotations

import os
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from harness.image import USER
from rich.console import Console

from aurora_demo.corpus import TRAFFIC_MODULES, Domain, read_modules
from aurora_demo.models import cache_root, prepared_models, training_documents
from aurora_demo.progress import TrainingProgress
from aurora_demo.recipe import DraftTraining, Recipe, Schedule, Shape, TargetTraining
from aurora_demo.traffic import fresh_prompts
from aurora_demo.vocabulary import load_vocabulary

# The minimum that lets a draft adapt: the target knows three domains, the draft one of them.
_RECIPE = Recipe(
    vocabulary_size=1024,
    target=Shape(hidden_size=256, intermediate_size=768, layers=4, heads=4, kv_heads=2),
    draft=Shape(hidden_size=128, intermediate_size=320, layers=1, heads=2, kv_heads=1),
    target_training=TargetTraining(
        schedule=Schedule(steps=300, learning_rate=3e-3, warmup_steps=20, decay_fraction=0.4),
        shallow_layers=2,
        shallow_steps=220,
        windows={"python": 2, "logs": 3, "sql": 3},
    ),
    draft_training=DraftTraining(
        domain="python",
        text=Schedule(steps=60, learning_rate=3e-3, warmup_steps=20, decay_fraction=0.3),
        distillation=Schedule(steps=20, learning_rate=2e-3, warmup_steps=5, decay_fraction=0.7),
        windows=16,
    ),
    window_tokens=128,
    context_tokens=512,
    generated_documents=200,
    seed=0,
    version=2,
)


@dataclass(frozen=True, slots=True)
class Models:
    """`folder` has target/ and draft/, laid out like a claim; `seen`: all training text."""

    folder: Path
    draft_digest: str
    dtype: str
    seen: str

    def prompts(self, domain: Domain, count: int, seed: int) -> list[str]:
        """Beginnings of documents that no model has seen."""
        return fresh_prompts(
            domain,
            count,
            seed=seed,
            codec=load_vocabulary(self.folder / "target"),
            held_out=read_modules(_library(), TRAFFIC_MODULES),
            seen=self.seen,
        )


def models_in(folder: Path) -> Models:
    """Copies the models into a folder of the pods' user; trains them first if necessary."""
    documents = training_documents(_RECIPE, _library())
    made = prepared_models(_RECIPE, documents, cache_root(), TrainingProgress(Console()))
    shutil.copytree(made.target, folder / "target")
    shutil.copytree(made.draft, folder / "draft")
    for path in folder.rglob("*"):
        os.chown(path, USER, USER)
    return Models(
        folder=folder,
        draft_digest=made.draft_digest,
        dtype=made.target_dtype,
        seen="\n".join(text for texts in documents.values() for text in texts),
    )


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))
