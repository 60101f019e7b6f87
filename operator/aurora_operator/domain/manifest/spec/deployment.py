"""An AuroraDeployment as a whole."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from aurora_operator.domain.manifest.field_type import DnsLabel, Name, rule
from aurora_operator.domain.manifest.spec.buffer import Buffer
from aurora_operator.domain.manifest.spec.engine import Engine
from aurora_operator.domain.manifest.spec.inference import Inference
from aurora_operator.domain.manifest.spec.model import Model, with_rules
from aurora_operator.domain.manifest.spec.network import Network
from aurora_operator.domain.manifest.spec.rollout import Rollout
from aurora_operator.domain.manifest.spec.security import Security
from aurora_operator.domain.manifest.spec.target import Draft, Target
from aurora_operator.domain.manifest.spec.trainer import ModelStore, Trainer


class Metadata(Model):
    name: Name
    namespace: DnsLabel = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


_IS_VLLM = "has(self.engine) && has(self.engine.type) && self.engine.type == 'vllm'"
_NEEDS_DRAFT = "vllm speculates from its start: set draft.initialCheckpoint"
_IS_EAGLE3 = "has(self.draft) && has(self.draft.kind) && self.draft.kind == 'Eagle3'"
_EAGLE3_TARGETS = (
    "drafts of kind Eagle3 learn from the target's hidden states, which are not recorded: set "
    "targets to Recompute"
)
_NEEDS_LENGTH = (
    "vllm without speculation has no draft to improve: set speculationLength.max above 0"
)
_ONE_DRAFT = "vllm holds one draft at a time: leave out draft.portfolio, or set its retain to 1"
_NO_AUTOSCALING = "autoscaling counts the native engine's queue: scale vllm by /scale, as KEDA does"
_OF_ITS_OWNER = "an attached vLLM has the replicas that its owner gives it: leave it out"
_PLAINTEXT = (
    "torch does not encrypt what trainer.replicas send each other, unlike everything under "
    "tls: set trainerTraffic to Plaintext, or trainer.replicas to 1"
)
_ASSIGNMENTS = "assignment is PerRequest with the native engine, Switchback with vllm; leave it out"


class Spec(Model):
    """What should run."""

    model_config = with_rules(
        rule(
            f"!({_IS_VLLM}) || (has(self.draft) && has(self.draft.initialCheckpoint))",
            _NEEDS_DRAFT,
            "engine",
        ),
        rule(
            f"!({_IS_VLLM}) || !has(self.draft) || !has(self.draft.speculationLength) || "
            "!has(self.draft.speculationLength.max) || self.draft.speculationLength.max > 0",
            _NEEDS_LENGTH,
            "engine",
        ),
        rule(
            f"!({_IS_VLLM}) || !has(self.draft) || !has(self.draft.portfolio) || "
            "self.draft.portfolio.retain == 1",
            _ONE_DRAFT,
            "engine",
        ),
        rule(
            f"!({_IS_EAGLE3}) || (has(self.trainer) && has(self.trainer.targets) && "
            "self.trainer.targets == 'Recompute')",
            _EAGLE3_TARGETS,
            "trainer",
        ),
        rule(
            f"!({_IS_VLLM}) || !has(self.inference) || !has(self.inference.autoscaling)",
            _NO_AUTOSCALING,
            "inference",
        ),
        rule(
            "!has(self.engine) || !has(self.engine.attach) || self.replicas == 1",
            _OF_ITS_OWNER,
            "replicas",
        ),
        rule(
            "!has(self.rollout) || !has(self.rollout.assignment) || "
            f"(self.rollout.assignment == 'Switchback') == ({_IS_VLLM})",
            _ASSIGNMENTS,
            "rollout",
        ),
        rule(
            "!has(self.trainer) || !has(self.trainer.replicas) || self.trainer.replicas == 1 || "
            "(has(self.security) && (has(self.security.trainerTraffic) || "
            "(has(self.security.tls) && has(self.security.tls.mode) && "
            "self.security.tls.mode == 'Disabled')))",
            _PLAINTEXT,
            "security",
        ),
    )

    target: Target
    """The model that is served."""
    draft: Draft = Draft()
    """The small model that proposes tokens."""
    engine: Engine = Engine()
    """What runs the target."""
    replicas: int = Field(default=1, ge=0, le=1000)
    """How many inference pods. On one machine there is always one process; in front of an attached
    vLLM, a gateway for each of its pods."""
    suspend: bool = False
    """Stop every pod or process; what they keep stays. Once false, everything goes on where it was:
    drafts, the rollout in progress and its evidence."""
    inference: Inference = Inference()
    """The pods that serve."""
    buffer: Buffer
    """Where served requests are queued for the trainer."""
    trainer: Trainer = Field(default=Trainer(), validate_default=True)
    """What distils the target into the draft."""
    model_store: ModelStore
    """Where drafts are published."""
    rollout: Rollout = Rollout()
    """How a new draft is tried and promoted."""
    network: Network = Network()
    """How the Services are addressed. On Kubernetes only."""
    security: Security = Field(default=Security(), validate_default=True)
    """Which components may connect to which."""

    @field_validator("engine")
    @classmethod
    def _with_draft(cls, engine: Engine, info: ValidationInfo) -> Engine:
        draft: Draft | None = info.data.get("draft")
        if engine.type == "vllm" and draft is not None:
            if draft.initial_checkpoint is None:
                raise ValueError(_NEEDS_DRAFT)
            if draft.speculation_length.max == 0:
                raise ValueError(_NEEDS_LENGTH)
            if draft.retained:
                raise ValueError(_ONE_DRAFT)
        return engine

    @field_validator("replicas")
    @classmethod
    def _counted(cls, replicas: int, info: ValidationInfo) -> int:
        engine: Engine | None = info.data.get("engine")
        if engine is not None and engine.attach is not None and replicas != 1:
            raise ValueError(_OF_ITS_OWNER)
        return replicas

    @field_validator("inference")
    @classmethod
    def _scaled(cls, inference: Inference, info: ValidationInfo) -> Inference:
        engine: Engine | None = info.data.get("engine")
        if engine is not None and engine.type == "vllm" and inference.autoscaling is not None:
            raise ValueError(_NO_AUTOSCALING)
        return inference

    @field_validator("trainer")
    @classmethod
    def _of_kind(cls, trainer: Trainer, info: ValidationInfo) -> Trainer:
        draft: Draft | None = info.data.get("draft")
        if draft is not None and draft.kind == "Eagle3" and trainer.targets != "Recompute":
            raise ValueError(_EAGLE3_TARGETS)
        return trainer

    @field_validator("rollout")
    @classmethod
    def _assigned(cls, rollout: Rollout, info: ValidationInfo) -> Rollout:
        engine: Engine | None = info.data.get("engine")
        if engine is None or rollout.assignment is None:
            return rollout
        if (rollout.assignment == "Switchback") != (engine.type == "vllm"):
            raise ValueError(_ASSIGNMENTS)
        return rollout

    @field_validator("security")
    @classmethod
    def _declared(cls, security: Security, info: ValidationInfo) -> Security:
        trainer: Trainer | None = info.data.get("trainer")
        is_encrypted = security.tls.mode != "Disabled" and security.trainer_traffic is None
        if trainer is not None and trainer.replicas > 1 and is_encrypted:
            raise ValueError(_PLAINTEXT)
        return security


class AuroraDeployment(Model):
    api_version: Literal["aurora.dev/v1alpha1"]
    kind: Literal["AuroraDeployment"]
    metadata: Metadata
    spec: Spec
