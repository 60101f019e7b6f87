"""Trains the demo's target and static draft from a recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aurora_demo.corpus import Domain
from aurora_demo.recipe import Recipe, Shape
from aurora_demo.training import (
    Progress,
    Windows,
    distillation_loss,
    next_token_loss,
    train,
)
from aurora_demo.vocabulary import END_OF_TEXT_ID
from aurora_model.config import DecoderConfig
from aurora_model.decoder import Decoder
from aurora_model.draft import StandaloneDraft, random_draft
from aurora_model.rope import DefaultRope

_ROPE_THETA = 10_000.0
# Multiplications per token and parameter: forward once, backward twice.
_FORWARD, _TRAINING = 1, 3


@dataclass(frozen=True, slots=True)
class Work:
    """Costs in multiplications, so that progress is even in time.

    The first four are per step of a stage, `draft` and `total` over all steps.
    """

    shallow: float
    deep: float
    draft_text: float
    draft_distillation: float
    draft: float
    total: float


def planned_work(recipe: Recipe, vocabulary_size: int) -> Work:
    """The work of the whole recipe."""
    target, draft = recipe.target_training, recipe.draft_training
    target_tokens = recipe.window_tokens * sum(target.windows.values())
    draft_tokens = recipe.window_tokens * draft.windows
    shallow_shape = replace(recipe.target, layers=target.shallow_layers)
    whole = _parameters(recipe.target, vocabulary_size)
    small = _parameters(recipe.draft, vocabulary_size)
    shallow = _TRAINING * target_tokens * _parameters(shallow_shape, vocabulary_size)
    deep = _TRAINING * target_tokens * whole
    text = _TRAINING * draft_tokens * small
    distillation = draft_tokens * (_TRAINING * small + _FORWARD * whole)
    of_draft = text * draft.text.steps + distillation * draft.distillation.steps
    deep_steps = target.schedule.steps - target.shallow_steps
    return Work(
        shallow,
        deep,
        text,
        distillation,
        draft=of_draft,
        total=shallow * target.shallow_steps + deep * deep_steps + of_draft,
    )


def trained_target(
    recipe: Recipe, streams: dict[Domain, Tensor], vocabulary_size: int, progress: Progress
) -> Decoder:
    """The target, float32; streams: each domain's tokens, int64 [N]."""
    training = recipe.target_training
    windows = Windows(
        streams=[streams[domain] for domain in training.windows],
        counts=list(training.windows.values()),
        length=recipe.window_tokens,
        generator=torch.Generator().manual_seed(recipe.seed),
    )
    work = planned_work(recipe, vocabulary_size)
    rates = training.schedule.rates()
    config = decoder_config(recipe, recipe.target, vocabulary_size)
    shallow = random_draft(replace(config, num_layers=training.shallow_layers), recipe.seed)
    progress.stage(f"target, {training.shallow_layers} layers")
    train(
        shallow,
        lambda: next_token_loss(shallow, windows.draw()),
        rates[: training.shallow_steps],
        lambda: progress.advance(work.shallow),
    )
    target = deepened(shallow, config.num_layers, recipe.seed)
    progress.stage(f"target, {config.num_layers} layers")
    train(
        target,
        lambda: next_token_loss(target, windows.draw()),
        # The optimizer starts afresh, so the rate is warmed up again.
        [
            rate * min(1.0, (step + 1) / training.schedule.warmup_steps)
            for step, rate in enumerate(rates[training.shallow_steps :])
        ],
        lambda: progress.advance(work.deep),
    )
    return target


def trained_draft(
    recipe: Recipe, target: Decoder, streams: dict[Domain, Tensor], progress: Progress
) -> StandaloneDraft:
    """The static draft, float32; it sees only one domain, so it is poor after a shift."""
    training = recipe.draft_training
    windows = Windows(
        streams=[streams[training.domain]],
        counts=[training.windows],
        length=recipe.window_tokens,
        generator=torch.Generator().manual_seed(recipe.seed + 1),
    )
    vocabulary_size = target.config.vocab_size
    work = planned_work(recipe, vocabulary_size)
    draft = random_draft(decoder_config(recipe, recipe.draft, vocabulary_size), recipe.seed + 1)
    progress.stage("draft, on text")
    train(
        draft,
        lambda: next_token_loss(draft, windows.draw()),
        training.text.rates(),
        lambda: progress.advance(work.draft_text),
    )
    progress.stage("draft, on the target's distributions")
    train(
        draft,
        lambda: distillation_loss(draft, target, windows.draw()),
        training.distillation.rates(),
        lambda: progress.advance(work.draft_distillation),
    )
    return draft


def deepened(shallow: Decoder, layers: int, seed: int) -> Decoder:
    """A decoder with more layers, a multiple of the shallow one's, that computes the same.

    Each layer is followed by new ones that add nothing at first: their output projections are zero
    until the first gradient step.
    """
    deep = random_draft(replace(shallow.config, num_layers=layers), seed)
    for name in ("embed_tokens", "norm"):
        deep.get_submodule(name).load_state_dict(shallow.get_submodule(name).state_dict())
    spacing = layers // shallow.config.num_layers
    assert spacing * shallow.config.num_layers == layers, (layers, shallow.config.num_layers)
    for index in range(layers):
        if index % spacing == 0:
            trained = shallow.get_submodule(f"layers.{index // spacing}")
            deep.get_submodule(f"layers.{index}").load_state_dict(trained.state_dict())
        else:
            for output in ("attention.o_proj", "mlp.down_proj"):
                nn.init.zeros_(deep.get_parameter(f"layers.{index}.{output}.weight"))
    return deep


def decoder_config(recipe: Recipe, shape: Shape, vocabulary_size: int) -> DecoderConfig:
    """The config of one of the recipe's models."""
    return DecoderConfig(
        family="llama",
        vocab_size=vocabulary_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_layers=shape.layers,
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        head_dim=shape.hidden_size // shape.heads,
        max_position_embeddings=recipe.context_tokens,
        rope=DefaultRope(_ROPE_THETA),
        tie_word_embeddings=True,
        eos_token_ids=(END_OF_TEXT_ID,),
    )


def _parameters(shape: Shape, vocabulary_size: int) -> int:
    """The number of weights that each token is multiplied with, norms excepted."""
    hidden = shape.hidden_size
    kv_width = hidden // shape.heads * shape.kv_heads
    layer = hidden * (2 * hidden + 2 * kv_width + 3 * shape.intermediate_size)
    return shape.layers * layer + vocabulary_size * hidden
