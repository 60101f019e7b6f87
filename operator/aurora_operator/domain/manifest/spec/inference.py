"""The pods that serve."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from aurora_operator.domain.manifest.field_type import Device, Image, rule
from aurora_operator.domain.manifest.spec.model import Model, with_rules
from aurora_operator.domain.manifest.spec.pod import (
    NO_IDLE_GPU,
    PodTemplate,
    Resources,
    without_idle_gpu,
)


class Autoscaling(Model):
    """A HorizontalPodAutoscaler takes over spec.replicas; the custom metrics API must serve the
    pods' metric aurora_waiting_requests. On Kubernetes only."""

    model_config = with_rules(
        rule(
            "self.minReplicas <= self.maxReplicas",
            "maxReplicas must not be below minReplicas",
            "maxReplicas",
        )
    )

    min_replicas: int = Field(default=1, ge=1, le=1000)
    """The fewest pods."""
    max_replicas: int = Field(ge=1, le=1000, validate_default=True)
    """The most pods."""
    waiting_requests: int = Field(default=4, ge=1, le=65_536)
    """Average waiting requests per pod above which pods are added."""

    @field_validator("max_replicas")
    @classmethod
    def _not_below(cls, max_replicas: int, info: ValidationInfo) -> int:
        least = info.data.get("min_replicas", 1)
        if max_replicas < least:
            raise ValueError(f"{max_replicas} is below minReplicas, which is {least}")
        return max_replicas


class Inference(Model):
    """The pods that serve the target and both drafts."""

    model_config = with_rules(NO_IDLE_GPU)

    image: Image | None = None
    """In place of the operator's default. On Kubernetes only."""
    resources: Resources = Resources()
    """Of the container inference. On Kubernetes only."""
    device: Device | None = None
    """What it computes on: auto, cpu, cuda or cuda:<index>; cuda is AMD's too. Defaults to cuda if
    resources.limits has nvidia.com/gpu, nvidia.com/mig-… or amd.com/gpu, else to auto, which is a
    GPU if a usable one is visible. Native engine only."""
    gpu_memory_percent: int = Field(default=90, ge=1, le=100)
    """How much of a GPU's memory weights and caches may take. If maxBatch requests need more, fewer
    run at once. Native engine only."""
    pod_template: PodTemplate = PodTemplate()
    """Merged over the pods. On Kubernetes only."""
    autoscaling: Autoscaling | None = None
    """Scale by waiting requests. On Kubernetes only."""
    max_batch: int = Field(default=8, ge=1, le=256)
    """How many requests are decoded concurrently. Native engine only, as is what follows but
    maxContextTokens: vLLM has flags of its own."""
    max_waiting: int = Field(default=64, ge=0, le=65_536)
    """How many requests may wait; further ones get a 429."""
    max_context_tokens: int | None = Field(default=None, ge=2, le=16_777_216)
    """Prompt and output together; defaults to the target's context length, at most 4096 with the
    native engine."""
    generation_config: Literal["auto", "vllm"] = "auto"
    """Defaults of requests, as in vLLM. `auto`: those in the target's generation_config.json;
    `vllm`: none."""
    allowed_origins: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(
        default=("*",), max_length=64, strict=False
    )
    """Origins that browsers may call from, `*` for any; an empty list for none."""

    _without_idle_gpu = field_validator("device")(without_idle_gpu)
