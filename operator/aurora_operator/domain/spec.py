"""The AuroraDeployment manifest as frozen types: every field here works, nothing else is accepted.

The cluster's resource definition and docs/reference.md are generated from these types, docstrings
included. Durations, quantities and decimals stay the strings that the user wrote (Kubernetes knows
no floats); a property beside each gives the number, with its unit in the name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from aurora_operator.domain.field_type import (
    Alpha,
    Bytes,
    Digest,
    DnsLabel,
    Duration,
    HeaderName,
    Image,
    LearningRate,
    ModelUri,
    Name,
    ObjectName,
    PositiveDuration,
    Quantity,
    RedisUrl,
    Rule,
    SecretKeyName,
    rule,
)
from aurora_operator.domain.quantity import parse_bytes, parse_duration

# An error of the list as a whole: its context holds (index, text) for each element.
STEPS_PROBLEM = "aurora_steps"
# An error found at one field that belongs to the object around it.
PARENT_PROBLEM = "aurora_parent"

_MAX_STEPS = 20
_INCREASING = rule(
    "self.map(step, step.weightPercent).isSorted() && "
    "self.all(one, self.exists_one(other, other.weightPercent == one.weightPercent))",
    "weightPercent must increase from step to step",
)


class Model(BaseModel):
    """One object of the manifest: frozen, camelCase, no unknown keys, no silent conversions."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
        use_attribute_docstrings=True,
    )


def _with_rules(*rules: Rule) -> ConfigDict:
    """What the API server is to check of an object as a whole."""
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": [dict(one) for one in rules]})


def _immutable(*fields: str) -> Sequence[Rule]:
    return [rule(f"self.{name} == oldSelf.{name}", f"{name} is immutable", name) for name in fields]


def _parent_problem(text: str) -> PydanticCustomError:
    return PydanticCustomError(PARENT_PROBLEM, "{text}", {"text": text})


class Metadata(Model):
    name: Name
    namespace: DnsLabel = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Target(Model):
    """The model whose text is served."""

    model_config = _with_rules(*_immutable("uri", "dtype"))

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


class Resources(Model):
    """Of a pod's main container. On Kubernetes only."""

    limits: dict[str, Quantity] = Field(default_factory=dict, max_length=32)
    """The most of each resource, such as nvidia.com/gpu, cpu or memory."""
    requests: dict[str, Quantity] = Field(default_factory=dict, max_length=32)
    """What the scheduler sets aside of each."""


class PodMetadata(Model):
    """Labels and annotations of the pods, beside Aurora's own."""

    labels: dict[str, str] = Field(default_factory=dict, max_length=64)
    """Labels; Aurora's own cannot be changed."""
    annotations: dict[str, str] = Field(default_factory=dict, max_length=64)
    """Annotations."""


class PodTemplate(Model):
    """Merged strategically, as kubectl does it, over the pods that Aurora makes: node selectors,
    tolerations, volumes, more environment. On Kubernetes only."""

    metadata: PodMetadata = PodMetadata()
    """Labels and annotations of the pods, beside Aurora's own."""
    spec: dict[str, Any] = Field(default_factory=dict)
    """A PodSpec. The main container is called after its component: inference, buffer or trainer."""


class Autoscaling(Model):
    """A HorizontalPodAutoscaler takes spec.replicas over; the custom metrics API must serve the
    pods' metric aurora_waiting_requests. On Kubernetes only."""

    model_config = _with_rules(
        rule(
            "self.minReplicas <= self.maxReplicas",
            "maxReplicas must not be below minReplicas",
            "maxReplicas",
        )
    )

    min_replicas: int = Field(default=1, ge=1, le=1000)
    """At least so many pods."""
    max_replicas: int = Field(ge=1, le=1000, validate_default=True)
    """At most so many pods."""
    waiting_requests: int = Field(default=4, ge=1, le=65_536)
    """How many requests may wait in a pod, on average, before there are more pods."""

    @field_validator("max_replicas")
    @classmethod
    def _not_below(cls, max_replicas: int, info: ValidationInfo) -> int:
        least = info.data.get("min_replicas", 1)
        if max_replicas < least:
            raise ValueError(f"{max_replicas} is below minReplicas, which is {least}")
        return max_replicas


class Inference(Model):
    """The pods that serve the target and both drafts."""

    image: Image | None = None
    """In place of the operator's default. On Kubernetes only."""
    resources: Resources = Resources()
    """Of the container inference. On Kubernetes only."""
    pod_template: PodTemplate = PodTemplate()
    """Merged over the pods. On Kubernetes only."""
    autoscaling: Autoscaling | None = None
    """Scale by waiting requests. On Kubernetes only."""
    max_batch: int = Field(default=8, ge=1, le=256)
    """How many requests are decoded at once."""
    max_waiting: int = Field(default=64, ge=0, le=65_536)
    """How many may wait; one more is answered with 429."""
    max_context_tokens: int | None = Field(default=None, ge=2, le=16_777_216)
    """Prompt and output together; without it what the target was trained for, at most 4096."""


class EmbeddedRedis(Model):
    """A Redis of the deployment's own, in the buffer's pod, with an append-only file."""

    model_config = _with_rules(
        *_immutable("storage"),
        rule(
            "has(self.storageClassName) == has(oldSelf.storageClassName) && "
            "(!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
            "storageClassName is immutable",
            "storageClassName",
        ),
    )

    appendfsync: Literal["everysec", "always"] = "everysec"
    """How often it reaches the disk: each second, or with each write."""
    storage: Bytes = "20Gi"
    """The size of its volume. Immutable. On Kubernetes only."""
    storage_class_name: ObjectName | None = None
    """The class of its volume; without it the cluster's default. Immutable. On Kubernetes only."""


class SecretKeyReference(Model):
    """A key of a Secret in the deployment's namespace."""

    name: ObjectName
    """The Secret's name."""
    key: SecretKeyName
    """The key in it."""


class SecretReference(Model):
    """A Secret in the deployment's namespace."""

    name: ObjectName
    """Its name."""


class ExternalRedis(Model):
    """A Redis that is there already; its stream is bounded by the retention, and stays when the
    deployment goes."""

    model_config = _with_rules(
        rule("has(self.url) != has(self.urlSecretRef)", "set exactly one of url and urlSecretRef")
    )

    url: RedisUrl | None = None
    """redis://host:port/0 or rediss://host:port/0, where it holds no password."""
    url_secret_ref: SecretKeyReference | None = Field(default=None, validate_default=True)
    """Where the URL is kept that holds a password. On Kubernetes only."""
    ca_secret_ref: SecretKeyReference | None = None
    """PEM of the authorities that vouch for a rediss:// server. On Kubernetes only."""

    @field_validator("url_secret_ref")
    @classmethod
    def _exactly_one(cls, reference: SecretKeyReference | None, info: ValidationInfo) -> object:
        if "url" in info.data and (info.data["url"] is None) == (reference is None):
            count = "neither" if reference is None else "both"
            raise _parent_problem(f"{count} of url and urlSecretRef is set; set exactly one")
        return reference


class Retention(Model):
    """How much of the traffic is kept; the oldest goes first."""

    max_age: PositiveDuration = "24h"
    """For how long."""
    max_bytes: Bytes = "16Gi"
    """How much in all."""

    @property
    def max_age_seconds(self) -> int:
        return max(1, round(parse_duration(self.max_age).total_seconds()))

    @property
    def max_size_bytes(self) -> int:
        return parse_bytes(self.max_bytes)


class Privacy(Model):
    """Whose requests are kept for training."""

    sample_percent: int = Field(default=100, ge=0, le=100)
    """The share of requests that is kept."""
    opt_out_header: HeaderName = "x-aurora-no-train"
    """The HTTP header by which a client keeps a request out."""


class Buffer(Model):
    """Where served requests wait for the trainer, in Redis: exactly one of embedded, external."""

    model_config = _with_rules(
        rule("has(self.embedded) != has(self.external)", "set exactly one of embedded and external")
    )

    embedded: EmbeddedRedis | None = None
    """A Redis of the deployment's own."""
    external: ExternalRedis | None = Field(default=None, validate_default=True)
    """A Redis that is there already."""
    retention: Retention = Retention()
    """How much is kept."""
    privacy: Privacy = Privacy()
    """Whose requests are kept."""
    image: Image | None = None
    """In place of the operator's default. On Kubernetes only."""
    resources: Resources = Resources()
    """Of the container buffer. On Kubernetes only."""
    pod_template: PodTemplate = PodTemplate()
    """Merged over the pod. On Kubernetes only."""

    @field_validator("external")
    @classmethod
    def _exactly_one(cls, external: ExternalRedis | None, info: ValidationInfo) -> object:
        # An `embedded` with a mistake of its own is not in the data, and was reported already.
        if "embedded" in info.data and (info.data["embedded"] is None) == (external is None):
            count = "neither" if external is None else "both"
            raise _parent_problem(
                f"{count} of embedded and external is set; set exactly one, "
                "for example embedded: {}"
            )
        return external


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

    suspend: bool = False
    """Stop training; what is learned stays."""
    trigger: Trigger = Trigger()
    """When a round starts."""
    objective: Literal["ForwardKL", "LK"] = "LK"
    """LK moves from likelihood to acceptance as acceptance rises; ForwardKL stays at likelihood."""
    hyperparameters: Hyperparameters = Hyperparameters()
    """Of the optimizer."""
    holdout_percent: int = Field(default=5, ge=0, le=50)
    """The share of requests that is never trained on, to measure with."""
    image: Image | None = None
    """In place of the operator's default. On Kubernetes only."""
    resources: Resources = Resources()
    """Of the container trainer. On Kubernetes only."""
    pod_template: PodTemplate = PodTemplate()
    """Merged over the pod. On Kubernetes only."""


class PersistentVolumeClaim(Model):
    """A claim in the deployment's namespace; ReadWriteMany where pods run on several nodes."""

    model_config = _with_rules(*_immutable("claimName"))

    claim_name: DnsLabel
    """Its name. Immutable."""


class ModelStore(Model):
    """Where drafts are published, and the trainer keeps its state."""

    pvc: PersistentVolumeClaim
    """The claim; on one machine a folder of that name."""
    keep: int = Field(default=5, ge=1, le=1000)
    """The newest so many drafts stay, and whatever a rollout still needs."""


class Step(Model):
    """One step of a rollout."""

    weight_percent: int = Field(ge=1, le=99)
    """The candidate's share of new requests."""


class Analysis(Model):
    """When a candidate counts as better."""

    alpha: Alpha = "0.01"
    """The probability with which a candidate that is not better may ever be promoted; a decimal."""
    min_effect_bps: int = Field(default=0, ge=0, le=9999)
    """By how much its acceptance must be higher; basis points."""
    min_requests: int = Field(default=300, ge=1, le=1_000_000_000)
    """How many requests must be judged before a promotion."""
    max_duration: PositiveDuration = "6h"
    """After so long without a verdict the stable draft stays; pauses do not count."""

    @property
    def max_duration_seconds(self) -> float:
        return parse_duration(self.max_duration).total_seconds()


class Rollout(Model):
    """How a new draft earns its place."""

    paused: bool = False
    """Hold the rollout where it is, and begin no other. Harm still rolls back."""
    supersede: Literal["QueueLatest"] = "QueueLatest"
    """Of the drafts published during a rollout, the newest is tried next."""
    assignment: Literal["PerRequest"] = "PerRequest"
    """Each new request draws its draft by itself."""
    # Strictness is each step's; a YAML sequence is a list, never a tuple.
    steps: tuple[Step, ...] = Field(
        default=(Step(weightPercent=5), Step(weightPercent=20), Step(weightPercent=50)),
        strict=False,
        json_schema_extra={
            "minItems": 1,
            "maxItems": _MAX_STEPS,
            "x-kubernetes-validations": [dict(_INCREASING)],
        },
    )
    """The candidate's shares of the traffic, which must increase; at most 20."""
    analysis: Analysis = Analysis()
    """When a candidate counts as better."""
    on_inconclusive: Literal["KeepStable"] = "KeepStable"
    """What serves where time ran out without a verdict."""

    @field_validator("steps")
    @classmethod
    def _increasing(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        # Not min_length: pydantic would count only the entries that are right in themselves.
        if not 1 <= len(steps) <= _MAX_STEPS:
            raise ValueError(f"has {len(steps)} entries; it must have 1 to {_MAX_STEPS}")
        problems = [
            (index, f"{step.weight_percent} is not above {steps[index - 1].weight_percent}")
            for index, step in enumerate(steps)
            if index > 0 and step.weight_percent <= steps[index - 1].weight_percent
        ]
        if problems:
            raise PydanticCustomError(STEPS_PROBLEM, "{problems}", {"problems": problems})
        return steps


class IssuerReference(Model):
    """An issuer of cert-manager."""

    name: ObjectName
    """Its name."""
    kind: Literal["Issuer", "ClusterIssuer"] = "Issuer"
    """Of the deployment's namespace, or of the cluster."""


class Tls(Model):
    """Mutual TLS between the components. On Kubernetes only."""

    model_config = _with_rules(
        rule(
            "(has(self.mode) && self.mode == 'CertManager') == has(self.issuerRef)",
            "issuerRef must be set exactly where mode is CertManager",
            "issuerRef",
        )
    )

    mode: Literal["SelfManaged", "CertManager", "Disabled"] = "SelfManaged"
    """Who issues the certificates: the operator, or cert-manager; Disabled: plain text."""
    issuer_ref: IssuerReference | None = Field(default=None, validate_default=True)
    """The issuer, where mode is CertManager."""

    @field_validator("issuer_ref")
    @classmethod
    def _with_cert_manager(cls, reference: IssuerReference | None, info: ValidationInfo) -> object:
        mode = info.data.get("mode")
        if mode is not None and (mode == "CertManager") != (reference is not None):
            verb = "needs" if reference is None else "takes no"
            raise _parent_problem(f"mode {mode} {verb} issuerRef")
        return reference


class Security(Model):
    """Who may talk to whom. On Kubernetes only."""

    tls: Tls = Tls()
    """Mutual TLS between the components."""
    auth_secret_ref: SecretReference | None = None
    """A Secret each of whose values is a bearer token; clients must show one of them."""


class Spec(Model):
    """What should run."""

    target: Target
    """The model whose text is served."""
    draft: Draft = Draft()
    """The small model that proposes tokens."""
    engine: Engine = Engine()
    """What runs the target."""
    replicas: int = Field(default=1, ge=0, le=1000)
    """How many inference pods. One machine runs one process whatever it says."""
    inference: Inference = Inference()
    """The pods that serve."""
    buffer: Buffer
    """Where served requests wait for the trainer."""
    trainer: Trainer = Trainer()
    """What distils the target into the draft."""
    model_store: ModelStore
    """Where drafts are published."""
    rollout: Rollout = Rollout()
    """How a new draft earns its place."""
    security: Security = Security()
    """Who may talk to whom."""


class AuroraDeployment(Model):
    api_version: Literal["aurora.dev/v1alpha1"]
    kind: Literal["AuroraDeployment"]
    metadata: Metadata
    spec: Spec
