"""Two drafts that must not be promoted: a worse one and a slower one, published on purpose.

A rollout judges whatever is published, so one of them takes the place of a trainer gone wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor
from torch.nn import functional as F

from aurora_client import Deployment, ServedDraft
from aurora_common.checkpoint import CheckpointManifest
from aurora_model.draft import Draft, load_draft, publish_draft
from aurora_model.target import target_identity
from aurora_trainer.published import checkpoint_name, newest_sequence

# Of a weight's own deviation: acceptance falls by a good part.
_NOISE = 0.1
# How many times as wide the MLP of the slower draft is.
_WIDER = 8


@dataclass(frozen=True, slots=True)
class Offer:
    """`title` is for display; `altered` makes it from the stable draft, which it may change."""

    title: str
    altered: Callable[[Draft], Draft]


def worse(draft: Draft) -> Draft:
    """The draft with noise on its weights, in place: it costs as much, and is accepted less."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in draft.parameters():
            if parameter.dim() > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise, alpha=_NOISE * parameter.std().item())
    return draft


def slower(draft: Draft) -> Draft:
    """A draft with a wider MLP whose added part is zero: it proposes the same, and takes longer."""
    content = draft.config_content()
    content["intermediate_size"] *= _WIDER
    wide = type(draft).build(draft.parse_config(content, source="the slower draft"))
    state = draft.state_dict()
    with torch.no_grad():
        for name, tensor in wide.state_dict().items():
            tensor.copy_(_padded(state[name], tensor.shape, halves="gate_up_proj" in name))
    return wide


OFFERS = (Offer("worse on purpose", worse), Offer("slower on purpose", slower))


class Offering:
    """Publishes one offer after the other, each once the one before it is judged."""

    def __init__(self, models: Path, target: Path) -> None:
        """`models`: the folder of published drafts; `target`: that of the target."""
        self._models = models
        self._target = target
        self._left = list(OFFERS)
        # The digest and number of the last one, until it is judged.
        self._published = ""
        self._sequence = 0
        # Of each digest that was published.
        self.titles: dict[str, str] = {}

    @property
    def is_over(self) -> bool:
        """Whether all are judged."""
        return not self._left

    def publish_due(self, deployment: Deployment) -> str | None:
        """The title of the offer that was published now, if one was due; raises as publishing."""
        if self._published and self._published in {past.digest for past in deployment.history}:
            self._left.pop(0)
            self._published = ""
        stable = deployment.stable
        if not self._left or stable is None or deployment.queued or self._is_awaited(deployment):
            return None
        offer = self._left[0]
        self._sequence = newest_sequence(self._models) + 1
        manifest = _publish(offer, self._models, self._sequence, stable=stable, target=self._target)
        self._published = manifest.digest
        self.titles[manifest.digest] = offer.title
        return offer.title

    def _is_awaited(self, deployment: Deployment) -> bool:
        """Whether the last one published is unseen or on trial: a newer one may take its place."""
        queue, rollout = deployment.status.queue, deployment.rollout
        if not self._published:
            return False
        if queue is None or queue.sequence < self._sequence:
            return True
        tried = None if rollout is None else rollout.candidate
        return tried is not None and tried.digest == self._published


def _publish(
    offer: Offer, models: Path, sequence: int, *, stable: ServedDraft, target: Path
) -> CheckpointManifest:
    """Publishes it as the newest draft, which claims the best acceptance that there can be.

    It is judged on what is recorded from now on. Raises CheckpointError if the stable draft is
    damaged, and StorageError if a write fails.
    """
    identity = target_identity(target)
    folder = Path(urlsplit(stable.uri).path)
    draft, _ = load_draft(folder, digest=stable.digest, target=identity, dtype=torch.float32)
    now_ms = time.time_ns() // 1_000_000
    _, manifest = publish_draft(
        offer.altered(draft),
        models,
        name=checkpoint_name(sequence),
        target=identity,
        parent_digest=stable.digest,
        trained_through=f"{now_ms}-0",
        created_at_ms=now_ms,
        metrics={"acceptance": 1.0},
    )
    return manifest


def _padded(weight: Tensor, shape: torch.Size, *, halves: bool) -> Tensor:
    """The weight with zeros below and to the right, or below each half of its rows."""
    if halves:
        parts = (_padded(half, _half(shape), halves=False) for half in weight.chunk(2))
        return torch.cat(list(parts))
    missing = [wanted - found for wanted, found in zip(shape, weight.shape, strict=True)]
    # Pairs from the last dimension on.
    return F.pad(weight, [part for size in reversed(missing) for part in (0, size)])


def _half(shape: torch.Size) -> torch.Size:
    return torch.Size((shape[0] // 2, *shape[1:]))
