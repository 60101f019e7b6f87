"""The AuroraDeployment manifest as frozen types: every field here works, nothing else is accepted.

Durations, quantities and decimals stay the strings that the user wrote (Kubernetes knows no
floats); a property beside each gives the number, with its unit in the name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from aurora_operator.domain.quantity import parse_bytes, parse_decimal, parse_duration

# An error of the list as a whole: its context holds (index, text) for each element.
STEPS_PROBLEM = "aurora_steps"
# An error found at one field that belongs to the object around it.
PARENT_PROBLEM = "aurora_parent"


class Model(BaseModel):
    """One object of the manifest: frozen, camelCase, no unknown keys, no silent conversions."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
    )


def _duration(text: str) -> str:
    parse_duration(text)
    return text


def _positive_duration(text: str) -> str:
    if not parse_duration(text):
        raise ValueError(f"{text!r} must be longer than 0s")
    return text


def _positive_bytes(text: str) -> str:
    if parse_bytes(text) == 0:
        raise ValueError(f"{text!r} must be more than 0 bytes")
    return text


def _learning_rate(text: str) -> str:
    if not 0 < parse_decimal(text) < 1:
        raise ValueError(f"{text!r} must lie between 0 and 1, both excluded")
    return text


def _alpha(text: str) -> str:
    if not 0 < parse_decimal(text) < 0.5:
        raise ValueError(f"{text!r} must lie between 0 and 0.5, both excluded")
    return text


def _model_uri(uri: str) -> str:
    parts = urlsplit(uri)
    is_file = parts.scheme == "file" and parts.netloc in ("", "localhost") and len(parts.path) > 1
    is_claim = parts.scheme == "pvc" and bool(parts.netloc)
    if not (is_file or is_claim):
        raise ValueError(f"{uri!r} is not a model URI; use file:///folder or pvc://claim/folder")
    return uri


def _redis_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        # The value is left out: it may hold a password.
        raise ValueError("is not a Redis URL; use redis://host:port/0 or rediss://host:port/0")
    return url


Duration = Annotated[str, AfterValidator(_duration)]
PositiveDuration = Annotated[str, AfterValidator(_positive_duration)]
Bytes = Annotated[str, AfterValidator(_positive_bytes)]
ModelUri = Annotated[str, AfterValidator(_model_uri)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
# Short enough for every name that is made of it, a pod's hash included.
Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$")]
ObjectName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$", max_length=253)
]
SecretKeyName = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]{1,253}$")]
Image = Annotated[str, Field(pattern=r"^[a-z0-9][-a-zA-Z0-9._/:@]{0,511}$")]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|[MGTPE]i?)?$")]
HeaderName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,62})$")]


class Metadata(Model):
    name: Name
    namespace: DnsLabel = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Target(Model):
    """The model whose text is served; immutable."""

    uri: ModelUri
    dtype: Literal["float32", "bfloat16"] = "bfloat16"


class InitialCheckpoint(Model):
    uri: ModelUri
    digest: Digest | None = None


class SpeculationLength(Model):
    """Draft tokens a step: at most `max`, fewer where `adaptive` and fewer are faster."""

    max: int = Field(default=6, ge=0, le=16)
    adaptive: bool = True


class Draft(Model):
    """Without `initial_checkpoint` no draft serves until the first one was promoted."""

    kind: Literal["Standalone"] = "Standalone"
    initial_checkpoint: InitialCheckpoint | None = None
    speculation_length: SpeculationLength = SpeculationLength()


class Engine(Model):
    type: Literal["native"] = "native"


class Resources(Model):
    """Of one pod's main container, as Kubernetes counts them."""

    limits: dict[str, Quantity] = Field(default_factory=dict)
    requests: dict[str, Quantity] = Field(default_factory=dict)


class PodMetadata(Model):
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class PodTemplate(Model):
    """Merged strategically over the pods that Aurora makes; the main container's name is the
    component's."""

    metadata: PodMetadata = PodMetadata()
    spec: dict[str, Any] = Field(default_factory=dict)


class Autoscaling(Model):
    """A HorizontalPodAutoscaler on the waiting requests of a pod takes `replicas` over."""

    min_replicas: int = Field(default=1, ge=1, le=1000)
    max_replicas: int = Field(ge=1, le=1000, validate_default=True)
    waiting_requests: int = Field(default=4, ge=1, le=65_536)

    @field_validator("max_replicas")
    @classmethod
    def _not_below(cls, max_replicas: int, info: ValidationInfo) -> int:
        least = info.data.get("min_replicas", 1)
        if max_replicas < least:
            raise ValueError(f"{max_replicas} is below minReplicas, which is {least}")
        return max_replicas


class Inference(Model):
    image: Image | None = None
    resources: Resources = Resources()
    pod_template: PodTemplate = PodTemplate()
    autoscaling: Autoscaling | None = None
    max_batch: int = Field(default=8, ge=1, le=256)
    max_waiting: int = Field(default=64, ge=0, le=65_536)
    # Absent: what the target was trained for.
    max_context_tokens: int | None = Field(default=None, ge=2)


class EmbeddedRedis(Model):
    appendfsync: Literal["everysec", "always"] = "everysec"
    storage: Bytes = "20Gi"
    storage_class_name: ObjectName | None = None


class SecretKeyReference(Model):
    name: ObjectName
    key: SecretKeyName


class SecretReference(Model):
    name: ObjectName


class ExternalRedis(Model):
    """Exactly one of `url` and `url_secret_ref`; the Secret keeps a password out of sight."""

    url: Annotated[str, AfterValidator(_redis_url)] | None = None
    url_secret_ref: SecretKeyReference | None = Field(default=None, validate_default=True)
    ca_secret_ref: SecretKeyReference | None = None

    @field_validator("url_secret_ref")
    @classmethod
    def _exactly_one(cls, reference: SecretKeyReference | None, info: ValidationInfo) -> object:
        if "url" in info.data and (info.data["url"] is None) == (reference is None):
            count = "neither" if reference is None else "both"
            raise PydanticCustomError(
                PARENT_PROBLEM,
                "{text}",
                {"text": f"{count} of url and urlSecretRef is set; set exactly one"},
            )
        return reference


class Retention(Model):
    max_age: PositiveDuration = "24h"
    max_bytes: Bytes = "16Gi"

    @property
    def max_age_seconds(self) -> int:
        return max(1, round(parse_duration(self.max_age).total_seconds()))

    @property
    def max_size_bytes(self) -> int:
        return parse_bytes(self.max_bytes)


class Privacy(Model):
    sample_percent: int = Field(default=100, ge=0, le=100)
    opt_out_header: HeaderName = "x-aurora-no-train"


class Buffer(Model):
    embedded: EmbeddedRedis | None = None
    external: ExternalRedis | None = Field(default=None, validate_default=True)
    retention: Retention = Retention()
    privacy: Privacy = Privacy()
    image: Image | None = None
    resources: Resources = Resources()
    pod_template: PodTemplate = PodTemplate()

    @field_validator("external")
    @classmethod
    def _exactly_one(cls, external: ExternalRedis | None, info: ValidationInfo) -> object:
        # An `embedded` with a mistake of its own is not in the data, and was reported already.
        if "embedded" in info.data and (info.data["embedded"] is None) == (external is None):
            count = "neither" if external is None else "both"
            raise PydanticCustomError(
                PARENT_PROBLEM,
                "{text}",
                {
                    "text": f"{count} of embedded and external is set; set exactly one, "
                    "for example embedded: {}"
                },
            )
        return external


class Trigger(Model):
    """A training round starts once both are reached."""

    min_new_trajectories: int = Field(default=500, ge=1)
    min_interval: Duration = "10m"

    @property
    def min_interval_seconds(self) -> float:
        return parse_duration(self.min_interval).total_seconds()


class Hyperparameters(Model):
    learning_rate: Annotated[str, AfterValidator(_learning_rate)] = "1e-4"
    batch_size: int = Field(default=32, ge=1, le=4096)
    steps_per_round: int = Field(default=100, ge=1, le=1_000_000)


class Trainer(Model):
    suspend: bool = False
    trigger: Trigger = Trigger()
    objective: Literal["ForwardKL", "LK"] = "LK"
    hyperparameters: Hyperparameters = Hyperparameters()
    holdout_percent: int = Field(default=5, ge=0, le=50)
    image: Image | None = None
    resources: Resources = Resources()
    pod_template: PodTemplate = PodTemplate()


class PersistentVolumeClaim(Model):
    claim_name: DnsLabel


class ModelStore(Model):
    """Where drafts are published; the newest `keep` stay, and whatever a rollout still needs."""

    pvc: PersistentVolumeClaim
    keep: int = Field(default=5, ge=1, le=1000)


class Step(Model):
    weight_percent: int = Field(ge=1, le=99)


class Analysis(Model):
    """When a candidate counts as better; the rule itself is in domain/rollout.py."""

    alpha: Annotated[str, AfterValidator(_alpha)] = "0.01"
    min_effect_bps: int = Field(default=0, ge=0, le=9999)
    min_requests: int = Field(default=300, ge=1)
    max_duration: PositiveDuration = "6h"

    @property
    def max_duration_seconds(self) -> float:
        return parse_duration(self.max_duration).total_seconds()


_MAX_STEPS = 20


class Rollout(Model):
    paused: bool = False
    supersede: Literal["QueueLatest"] = "QueueLatest"
    assignment: Literal["PerRequest"] = "PerRequest"
    # Strictness is each step's; a YAML sequence is a list, never a tuple.
    steps: tuple[Step, ...] = Field(
        default=(Step(weightPercent=5), Step(weightPercent=20), Step(weightPercent=50)),
        strict=False,
    )
    analysis: Analysis = Analysis()
    on_inconclusive: Literal["KeepStable"] = "KeepStable"

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
    name: ObjectName
    kind: Literal["Issuer", "ClusterIssuer"] = "Issuer"


class Tls(Model):
    """Mutual TLS between the components; `issuer_ref` exactly where cert-manager issues."""

    mode: Literal["SelfManaged", "CertManager", "Disabled"] = "SelfManaged"
    issuer_ref: IssuerReference | None = Field(default=None, validate_default=True)

    @field_validator("issuer_ref")
    @classmethod
    def _with_cert_manager(cls, reference: IssuerReference | None, info: ValidationInfo) -> object:
        mode = info.data.get("mode")
        if mode is not None and (mode == "CertManager") != (reference is not None):
            verb = "needs" if reference is None else "takes no"
            raise PydanticCustomError(
                PARENT_PROBLEM, "{text}", {"text": f"mode {mode} {verb} issuerRef"}
            )
        return reference


class Security(Model):
    """`auth_secret_ref`: each value of the Secret is a bearer token that clients may show."""

    tls: Tls = Tls()
    auth_secret_ref: SecretReference | None = None


class Spec(Model):
    target: Target
    draft: Draft = Draft()
    engine: Engine = Engine()
    replicas: int = Field(default=1, ge=0, le=1000)
    inference: Inference = Inference()
    buffer: Buffer
    trainer: Trainer = Trainer()
    model_store: ModelStore
    rollout: Rollout = Rollout()
    security: Security = Security()


class AuroraDeployment(Model):
    api_version: Literal["aurora.dev/v1alpha1"]
    kind: Literal["AuroraDeployment"]
    metadata: Metadata
    spec: Spec
