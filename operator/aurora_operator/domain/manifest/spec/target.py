"""The served model, its draft and the engine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from aurora_operator.domain.manifest.field_type import (
    Digest,
    Image,
    ModelUri,
    VllmArgument,
    rule,
)
from aurora_operator.domain.manifest.spec.model import Model, immutable, with_rules
from aurora_operator.domain.manifest.spec.pod import Resources


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


class Draft(Model):
    """The small model that proposes tokens."""

    kind: Literal["Standalone"] = Field(
        default="Standalone",
        # On the field, not the object, whose default `{}` has no kind yet.
        json_schema_extra={
            "x-kubernetes-validations": [dict(rule("self == oldSelf", "kind is immutable"))]
        },
    )
    """A separate language model with the target's tokenizer. Immutable."""
    initial_checkpoint: InitialCheckpoint | None = None
    """The draft to start with. Without it no draft serves until one is promoted, and the trainer
    starts from random weights."""
    speculation_length: SpeculationLength = SpeculationLength()
    """How many tokens are drafted in a step."""


_OF_VLLM = "image, executable and args are vLLM's: set type: vllm, or leave them out"


class Engine(Model):
    """What runs the target."""

    model_config = with_rules(
        rule(
            "(has(self.type) && self.type == 'vllm') || !(has(self.image) || has(self.executable) "
            "|| (has(self.args) && size(self.args) > 0))",
            _OF_VLLM,
        )
    )

    type: Literal["native", "vllm"] = "native"
    """native: Aurora's own engine, on CPUs. vllm: a stock vLLM, 0.32 or later, behind Aurora's
    gateway; its drafts alternate in time."""
    image: Image | None = None
    """vLLM's image; vllm/vllm-openai:v0.32.0 by default. On Kubernetes only."""
    executable: str | None = Field(default=None, min_length=1, max_length=4096)
    """vLLM's program; `vllm` on PATH by default. On one machine only."""
    args: tuple[VllmArgument, ...] = Field(default=(), max_length=64, strict=False)
    """vLLM's own flags, such as --tensor-parallel-size=2, but those that Aurora sets."""
    resources: Resources = Resources()
    """Of the container vllm, such as nvidia.com/gpu. On Kubernetes only."""

    @model_validator(mode="after")
    def _of_vllm(self) -> Engine:
        is_set = self.args or self.image is not None or self.executable is not None
        if self.type == "native" and is_set:
            raise ValueError(_OF_VLLM)
        return self
