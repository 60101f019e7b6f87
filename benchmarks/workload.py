"""What the engine benchmarks decode: the demo's target on its generated logs, and drafts for it.

The adapted draft is distilled here from what the target says to a few hundred prompts, as the
trainer does it from served requests; it is kept beside the demo's models.
"""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from aurora_client import Draft
from aurora_common.checkpoint import read_manifest
from aurora_demo.corpus import TRAFFIC_MODULES, Domain, read_modules
from aurora_demo.models import DemoModels, cache_root, prepared_models, training_documents
from aurora_demo.progress import TrainingProgress
from aurora_demo.recipe import RECIPE, Recipe, Shape
from aurora_demo.traffic import fresh_prompts
from aurora_demo.vocabulary import load_vocabulary
from aurora_inference.contract import Request, Sampling
from aurora_inference.native.engine import EngineSettings
from aurora_inference.native.launch import new_engine
from aurora_inference.native.runner.cpu import Cpu
from aurora_inference.native.runner.target import Target
from aurora_inference.trajectory.completion import Completion
from aurora_model.draft import load_draft, publish_draft
from aurora_model.folder import read_folder
from aurora_model.target import TargetIdentity, target_identity
from aurora_trainer.data.sample import Sample
from aurora_trainer.learning.learner import Learner, LearnerSettings

# All prompts as long as this: what cannot be batched raggedly must not pay for padding.
PROMPT_TOKENS = 24
_TRAINING_TOKENS = 96
_FRESH_PROMPTS = 64
_BATCH = 16
_SEED = 11


@dataclass(frozen=True, slots=True)
class _Scale:
    """How much work goes into the models; `prompts` and `steps` adapt the draft."""

    recipe: Recipe
    prompts: int
    steps: int


_USUAL = _Scale(RECIPE, prompts=256, steps=200)
# Ready in seconds, and as good as untrained.
_QUICK = _Scale(
    replace(
        RECIPE,
        target=Shape(hidden_size=64, intermediate_size=128, layers=2, heads=4, kv_heads=2),
        draft=Shape(hidden_size=32, intermediate_size=64, layers=1, heads=2, kv_heads=1),
        target_training=replace(
            RECIPE.target_training,
            schedule=replace(RECIPE.target_training.schedule, steps=4),
            shallow_steps=2,
        ),
        draft_training=replace(
            RECIPE.draft_training,
            text=replace(RECIPE.draft_training.text, steps=2),
            distillation=replace(RECIPE.draft_training.distillation, steps=2),
        ),
        generated_documents=40,
    ),
    prompts=16,
    steps=2,
)


@dataclass(frozen=True, slots=True)
class Workload:
    """A target, the draft that knows another domain, and the one adapted to these prompts."""

    target: Path
    identity: TargetIdentity
    dtype: torch.dtype
    static_draft: Path
    adapted_draft: Path
    fresh_prompts: tuple[tuple[int, ...], ...]

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def prompts(self, count: int) -> tuple[tuple[int, ...], ...]:
        """Prompts of one length, none of which the adapted draft was trained on."""
        return self.fresh_prompts[:count]

    def draft_named(self, name: str) -> Draft:
        """The `static` or `adapted` draft, as a server stages it."""
        folder = self.static_draft if name == "static" else self.adapted_draft
        return Draft(name=name, digest=read_manifest(folder).digest, uri=folder.as_uri())


def workload(*, quick: bool) -> Workload:
    """The workload; trains what is not in the cache yet. `quick`: barely trained tiny models."""
    scale = _QUICK if quick else _USUAL
    library = Path(sysconfig.get_path("stdlib"))
    documents = training_documents(scale.recipe, library)
    models = prepared_models(scale.recipe, documents, cache_root(), TrainingProgress(Console()))
    prompts = _prompts(models.target, "logs", scale.prompts + _FRESH_PROMPTS, documents, library)
    dtype = getattr(torch, models.target_dtype)
    folder = models.target.parent / "bench"
    adapted = next(iter(sorted(folder.glob("adapted-*"))), None)
    if adapted is None:
        served = served_samples(models.target, prompts[: scale.prompts], dtype)
        adapted = _adapted_draft(models, served, scale.steps, folder)
    return Workload(
        target=models.target,
        identity=target_identity(models.target),
        dtype=dtype,
        static_draft=models.draft,
        adapted_draft=adapted,
        fresh_prompts=prompts[scale.prompts :],
    )


def prompts_of(
    work: Workload, domain: Domain, count: int, *, quick: bool
) -> tuple[tuple[int, ...], ...]:
    """Prompts of another domain, of one length; the same for the same count."""
    library = Path(sysconfig.get_path("stdlib"))
    documents = training_documents((_QUICK if quick else _USUAL).recipe, library)
    return _prompts(work.target, domain, count, documents, library)


def _prompts(
    target: Path,
    domain: Domain,
    count: int,
    documents: dict[Domain, list[str]],
    library: Path,
) -> tuple[tuple[int, ...], ...]:
    vocabulary = load_vocabulary(target)
    texts = fresh_prompts(
        domain,
        count,
        seed=_SEED,
        codec=vocabulary,
        held_out=read_modules(library, TRAFFIC_MODULES),
        seen="\n".join(text for each in documents.values() for text in each),
    )
    return tuple(tuple(vocabulary.encode(text)[:PROMPT_TOKENS]) for text in texts)


def _adapted_draft(models: DemoModels, samples: Sequence[Sample], steps: int, folder: Path) -> Path:
    print(f"adapting the draft to {len(samples)} completions", flush=True)
    identity = target_identity(models.target)
    draft, manifest = load_draft(models.draft, target=identity, dtype=torch.float32)
    learner = Learner(draft, LearnerSettings(objective="ForwardKL", learning_rate=2e-3))
    source = random.Random(_SEED)
    for _ in range(steps):
        learner.step(source.sample(samples, _BATCH))
    path, _ = publish_draft(
        learner.average,
        folder,
        name="adapted",
        target=identity,
        parent_digest=manifest.digest,
        objective="ForwardKL",
    )
    return path


def served_samples(
    target: Path, prompts: Sequence[tuple[int, ...]], dtype: torch.dtype
) -> list[Sample]:
    """What the target says to the prompts, greedily, with its distributions."""
    completions: list[Completion] = []
    engine = new_engine(
        Target.load(read_folder(target), dtype=dtype, device=Cpu()),
        EngineSettings(max_context_tokens=512),
        on_completion=completions.append,
    )
    for number, prompt in enumerate(prompts):
        greedy = Sampling(temperature=0.0)
        engine.submit(Request(str(number), prompt, _TRAINING_TOKENS, greedy, ignore_eos=True))
    while not engine.idle:
        engine.step()
    return [_sample(each) for each in completions]


def _sample(completion: Completion) -> Sample:
    distributions = completion.distributions
    assert distributions is not None
    tokens = (*completion.request.prompt_tokens, *completion.output_tokens)
    return Sample(
        stream_id=completion.request.id,
        request_id=completion.request.id,
        domain="logs",
        tokens=np.array(tokens, np.int32),
        top_ids=distributions.top_ids.astype(np.int32),
        log_probs=distributions.top_log_probs,
        tail_mass=distributions.tail_mass,
    )
