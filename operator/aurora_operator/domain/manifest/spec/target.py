"""The served model and its draft."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aurora_operator.domain.manifest.field_type import Digest, ModelUri, rule
from aurora_operator.domain.manifest.spec.model import Model, immutable, with_rules


class Target(Model):
    """The model that is served."""

    model_config = with_rules(*immutable("uri", "dtype"))

    uri: ModelUri
    """Its folder in Hugging Face layout: pvc://claim/folder or file:///folder. Immutable."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """The precision of its weights and arithmetic. Immutable."""


class InitialCheckpoint(Model):
    """A draft checkpoint: config.json, safetensors and aurora.json."""

    uri: ModelUri
    """Its folder: pvc://claim/folder or file:///folder."""
    digest: Digest | None = None
    """Its digest, sha256:<64 hex>; defaults to the one in its aurora.json."""


class SpeculationLength(Model):
    """How many tokens are drafted in a step."""

    max: int = Field(default=6, ge=0, le=16)
    """Upper bound; 0 turns speculation off."""
    adaptive: bool = True
    """Draft fewer tokens, or none, when that is faster at the current load."""


class Portfolio(Model):
    """Drafts that stay in memory beside the stable one, so that each request is served by the one
    that suits it best. Native engine only."""

    retain: int = Field(default=3, ge=1, le=6)
    """How many drafts requests are served with at most, outside rollouts: the stable one, the
    initial one, and former stable ones. Each takes memory for its weights and its cache. 1: only
    the stable one."""


class Draft(Model):
    """The small model that proposes tokens."""

    kind: Literal["Standalone", "Eagle3"] = Field(
        default="Standalone",
        # On the field, not the object, whose default `{}` has no kind yet.
        json_schema_extra={
            "x-kubernetes-validations": [dict(rule("self == oldSelf", "kind is immutable"))]
        },
    )
    """Standalone: a separate language model with the target's tokenizer. Eagle3: a head that reads
    the target's hidden states; with trainer.targets Recompute. Immutable."""
    initial_checkpoint: InitialCheckpoint | None = None
    """The draft to start with. Without it n-grams are drafted until a draft is promoted: what
    followed a request's last tokens earlier in its text. The trainer starts from random weights."""
    speculation_length: SpeculationLength = SpeculationLength()
    """How many tokens are drafted in a step."""
    portfolio: Portfolio | None = None
    """Drafts that requests may be served with beside the stable one; absent: none."""

    @property
    def retained(self) -> int:
        """How many drafts stay in memory beside the stable one."""
        return 0 if self.portfolio is None else self.portfolio.retain - 1
