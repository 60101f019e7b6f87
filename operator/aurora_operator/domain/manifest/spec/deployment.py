"""An AuroraDeployment as a whole."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aurora_operator.domain.manifest.field_type import DnsLabel, Name
from aurora_operator.domain.manifest.spec.buffer import Buffer
from aurora_operator.domain.manifest.spec.inference import Inference
from aurora_operator.domain.manifest.spec.model import Model
from aurora_operator.domain.manifest.spec.rollout import Rollout
from aurora_operator.domain.manifest.spec.security import Security
from aurora_operator.domain.manifest.spec.target import Draft, Engine, Target
from aurora_operator.domain.manifest.spec.trainer import ModelStore, Trainer


class Metadata(Model):
    name: Name
    namespace: DnsLabel = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Spec(Model):
    """What should run."""

    target: Target
    """The model that is served."""
    draft: Draft = Draft()
    """The small model that proposes tokens."""
    engine: Engine = Engine()
    """What runs the target."""
    replicas: int = Field(default=1, ge=0, le=1000)
    """How many inference pods. On one machine there is always one process."""
    inference: Inference = Inference()
    """The pods that serve."""
    buffer: Buffer
    """Where served requests are queued for the trainer."""
    trainer: Trainer = Trainer()
    """What distils the target into the draft."""
    model_store: ModelStore
    """Where drafts are published."""
    rollout: Rollout = Rollout()
    """How a new draft is tried and promoted."""
    security: Security = Security()
    """Which components may connect to which."""


class AuroraDeployment(Model):
    api_version: Literal["aurora.dev/v1alpha1"]
    kind: Literal["AuroraDeployment"]
    metadata: Metadata
    spec: Spec
