"""The model that is served, its draft and the engine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aurora_operator.domain.manifest.field_type import Digest, ModelUri, rule
from aurora_operator.domain.manifest.spec.model import Model, immutable, with_rules


class Target(Model):
    """The model whose text is served."""

    model_config = with_rules(*immutable("uri", "dtype"))

    uri: ModelUri
    """Its folder as Hugging Face lays it out: pvc://claim/folder or file:///folder. Immutable."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """The precision of its weights and arithmetic. Immutable."""


class InitialCheckpoint(Model):
    """A draft checkpoint, config.json and safetensors with an aurora.json beside them."""

    uri: ModelUri
    """Its folder: pvc://claim/folder or file:///folder."""
    digest: Digest | None = None
    """What it must have, sha256:<64 hex>; without it, whatever its manifest says."""


class SpeculationLength(Model):
    """How many tokens are drafted in a step."""

    max: int = Field(default=6, ge=0, le=16)
    """At most so many; 0 turns speculation off."""
    adaptive: bool = True
    """Draft fewer, none included, wherever fewer are faster at the present load."""


class Draft(Model):
    """The small model that proposes tokens."""

    kind: Literal["Standalone"] = Field(
        default="Standalone",
        # Of the field and not of the object, whose default `{}` has no kind yet.
        json_schema_extra={
            "x-kubernetes-validations": [dict(rule("self == oldSelf", "kind is immutable"))]
        },
    )
    """A language model of its own with the target's tokenizer. Immutable."""
    initial_checkpoint: InitialCheckpoint | None = None
    """The draft to begin with. Without it none serves until the first one was promoted, and the
    trainer begins with random weights."""
    speculation_length: SpeculationLength = SpeculationLength()
    """How many tokens are drafted in a step."""


class Engine(Model):
    """What runs the target."""

    type: Literal["native"] = "native"
    """Aurora's own engine."""
