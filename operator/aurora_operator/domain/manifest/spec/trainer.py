"""The trainer and its model store."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from aurora_operator.domain.manifest.field_type import (
    Device,
    DnsLabel,
    Duration,
    Image,
    LearningRate,
    rule,
)
from aurora_operator.domain.manifest.quantity import parse_duration
from aurora_operator.domain.manifest.spec.model import Model, immutable, with_rules
from aurora_operator.domain.manifest.spec.pod import (
    GPU_LIMITED,
    NO_IDLE_GPU,
    PodTemplate,
    Resources,
    without_idle_gpu,
)


class Trigger(Model):
    """A training round starts once both conditions hold."""

    min_new_trajectories: int = Field(default=500, ge=1, le=1_000_000_000)
    """New requests since the last round."""
    min_interval: Duration = "10m"
    """Time since the last round began."""

    @property
    def min_interval_seconds(self) -> float:
        return parse_duration(self.min_interval).total_seconds()


class Hyperparameters(Model):
    """Hyperparameters of the optimizer."""

    learning_rate: LearningRate = "1e-4"
    """A decimal between 0 and 1."""
    batch_size: int = Field(default=32, ge=1, le=4096)
    """Requests per step."""
    steps_per_round: int = Field(default=100, ge=1, le=1_000_000)
    """Steps before a checkpoint is published."""


class Budget(Model):
    """What training may cost."""

    max_share_percent: int = Field(ge=1, le=100)
    """How much of the wall time may be spent in training steps; thirty seconds may be saved up."""


_RANKS_ON_CPUS = "several replicas compute on CPUs: set replicas to 1, or leave the GPU out"


class Trainer(Model):
    """What distils the target into the draft."""

    model_config = with_rules(
        NO_IDLE_GPU,
        rule(
            # Rules also run on the defaults as written, before nested defaults are filled in.
            "!has(self.replicas) || !has(self.hyperparameters)"
            " || !has(self.hyperparameters.batchSize)"
            " || self.replicas <= self.hyperparameters.batchSize",
            "replicas must not be above hyperparameters.batchSize",
            "replicas",
        ),
        rule(
            "!has(self.replicas) || self.replicas == 1 || !("
            f"(has(self.device) && self.device.startsWith('cuda')) || ({GPU_LIMITED}))",
            _RANKS_ON_CPUS,
            "device",
        ),
    )

    suspend: bool = False
    """Stop training; published drafts and state stay."""
    trigger: Trigger = Trigger()
    """When a round starts."""
    budget: Budget | None = None
    """What training may cost; absent: it is not limited."""
    objective: Literal["ForwardKL", "LK"] = "LK"
    """LK shifts from likelihood to acceptance as acceptance rises; ForwardKL is likelihood only."""
    optimizer: Literal["AdamW", "Muon"] = "AdamW"
    """Muon for the matrices of the draft's layers and AdamW for the rest, or AdamW alone. A change
    keeps the weights."""
    targets: Literal["Recorded", "Recompute"] = "Recorded"
    """Recorded: what the target thought of each token is recorded with it, 0.4 KB a token.
    Recompute: each trainer replica holds the target to compute it, 4 bytes of memory for each
    parameter, and in front of a vllm tokens alone are recorded."""
    hyperparameters: Hyperparameters = Hyperparameters()
    """Hyperparameters of the optimizer."""
    replicas: int = Field(default=1, ge=1, le=64)
    """How many pods or processes share each step, by torch.distributed: the trainer, rank 0, and
    others that keep nothing. Worthwhile if a step takes longer than sending them the draft. More
    than one beside TLS need security.trainerTraffic."""
    holdout_percent: int = Field(default=5, ge=0, le=50)
    """The share of requests held out from training for evaluation."""
    image: Image | None = None
    """In place of the operator's default. On Kubernetes only."""
    resources: Resources = Resources()
    """Of the trainer container in each of its pods. On Kubernetes only."""
    device: Device | None = Field(default=None, validate_default=True)
    """What it computes on, as inference.device; several replicas on CPUs."""
    pod_template: PodTemplate = PodTemplate()
    """Merged over the pods. On Kubernetes only."""

    _without_idle_gpu = field_validator("device")(without_idle_gpu)

    @field_validator("device")
    @classmethod
    def _alone_on_a_gpu(cls, device: str | None, info: ValidationInfo) -> str | None:
        resources: Resources | None = info.data.get("resources")
        on_gpu = (device or "").startswith("cuda") or (resources is not None and resources.has_gpu)
        if on_gpu and info.data.get("replicas", 1) > 1:
            raise ValueError(_RANKS_ON_CPUS)
        return device

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
    """A claim in the deployment's namespace; ReadWriteMany if pods run on several nodes."""

    model_config = with_rules(*immutable("claimName"))

    claim_name: DnsLabel
    """Its name. Immutable."""


class ModelStore(Model):
    """Where drafts are published and the trainer keeps its state."""

    pvc: PersistentVolumeClaim
    """The claim; on one machine, a folder of that name."""
    keep: int = Field(default=5, ge=1, le=1000)
    """How many of the newest drafts to keep, besides those that a rollout still needs."""
    restore_policy: Literal["LastPromoted", "Never"] = "LastPromoted"
    """What a deployment begins with if one of the same name and target has used the store before.
    LastPromoted: the draft that was stable then; Never: draft.initialCheckpoint."""
