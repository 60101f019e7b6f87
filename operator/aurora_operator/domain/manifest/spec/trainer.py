"""What learns, and where it puts what it learned."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from aurora_operator.domain.manifest.field_type import DnsLabel, Duration, Image, LearningRate, rule
from aurora_operator.domain.manifest.quantity import parse_duration
from aurora_operator.domain.manifest.spec.model import Model, immutable, with_rules
from aurora_operator.domain.manifest.spec.pod import PodTemplate, Resources


class Trigger(Model):
    """A training round starts once both are reached."""

    min_new_trajectories: int = Field(default=500, ge=1, le=1_000_000_000)
    """New requests since the last round."""
    min_interval: Duration = "10m"
    """Time since the last round began."""

    @property
    def min_interval_seconds(self) -> float:
        return parse_duration(self.min_interval).total_seconds()


class Hyperparameters(Model):
    """Of the optimizer."""

    learning_rate: LearningRate = "1e-4"
    """A decimal between 0 and 1."""
    batch_size: int = Field(default=32, ge=1, le=4096)
    """Requests in a step."""
    steps_per_round: int = Field(default=100, ge=1, le=1_000_000)
    """Steps before a checkpoint is published."""


class Trainer(Model):
    """What distils the target into the draft."""

    model_config = with_rules(
        rule(
            # Defaults are checked as they are written, before they are filled in.
            "!has(self.replicas) || !has(self.hyperparameters)"
            " || !has(self.hyperparameters.batchSize)"
            " || self.replicas <= self.hyperparameters.batchSize",
            "replicas must not be above hyperparameters.batchSize",
            "replicas",
        )
    )

    suspend: bool = False
    """Stop training; what is learned stays."""
    trigger: Trigger = Trigger()
    """When a round starts."""
    objective: Literal["ForwardKL", "LK"] = "LK"
    """LK moves from likelihood to acceptance as acceptance rises; ForwardKL stays at likelihood."""
    hyperparameters: Hyperparameters = Hyperparameters()
    """Of the optimizer."""
    replicas: int = Field(default=1, ge=1, le=64)
    """How many pods share each step: the trainer, and others that compute gradients for it. It pays
    where a step takes longer than to send them the draft. One machine runs one process whatever it
    says."""
    holdout_percent: int = Field(default=5, ge=0, le=50)
    """The share of requests that is never trained on, to measure with."""
    image: Image | None = None
    """In place of the operator's default. On Kubernetes only."""
    resources: Resources = Resources()
    """Of the container trainer, in each of its pods. On Kubernetes only."""
    pod_template: PodTemplate = PodTemplate()
    """Merged over the pods. On Kubernetes only."""

    @field_validator("replicas")
    @classmethod
    def _not_above(cls, replicas: int, info: ValidationInfo) -> int:
        parameters: Hyperparameters | None = info.data.get("hyperparameters")
        if parameters is not None and replicas > parameters.batch_size:
            raise ValueError(
                f"{replicas} is above hyperparameters.batchSize, which is {parameters.batch_size}"
            )
        return replicas


class PersistentVolumeClaim(Model):
    """A claim in the deployment's namespace; ReadWriteMany where pods run on several nodes."""

    model_config = with_rules(*immutable("claimName"))

    claim_name: DnsLabel
    """Its name. Immutable."""


class ModelStore(Model):
    """Where drafts are published, and the trainer keeps its state."""

    pvc: PersistentVolumeClaim
    """The claim; on one machine a folder of that name."""
    keep: int = Field(default=5, ge=1, le=1000)
    """The newest so many drafts stay, and whatever a rollout still needs."""
