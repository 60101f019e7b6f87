"""Where served requests are queued for the trainer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from aurora_operator.domain.manifest.field_type import (
    Bytes,
    HeaderName,
    Image,
    ObjectName,
    PositiveDuration,
    RedisUrl,
    rule,
)
from aurora_operator.domain.manifest.quantity import parse_bytes, parse_duration
from aurora_operator.domain.manifest.spec.model import Model, immutable, parent_problem, with_rules
from aurora_operator.domain.manifest.spec.pod import PodTemplate, Resources, SecretKeyReference


class EmbeddedRedis(Model):
    """A Redis in the buffer's pod, with an append-only file."""

    model_config = with_rules(
        *immutable("storage"),
        rule(
            "has(self.storageClassName) == has(oldSelf.storageClassName) && "
            "(!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
            "storageClassName is immutable",
            "storageClassName",
        ),
    )

    appendfsync: Literal["everysec", "always"] = "everysec"
    """How often writes are fsynced: every second, or on each write."""
    storage: Bytes = "20Gi"
    """The size of its volume. Immutable. On Kubernetes only."""
    storage_class_name: ObjectName | None = None
    """The class of its volume; defaults to the cluster's. Immutable. On Kubernetes only."""


class ExternalRedis(Model):
    """An existing Redis; its stream is bounded by the retention and outlives the deployment."""

    model_config = with_rules(
        rule("has(self.url) != has(self.urlSecretRef)", "set exactly one of url and urlSecretRef"),
        # A process on one machine has no Secrets.
        rule(
            "!has(self.url) || !self.url.matches('^[a-z]+://[^@/?#]*:[^@/?#]+@')",
            "a URL with a password belongs in a Secret: use urlSecretRef",
            "url",
        ),
    )

    url: RedisUrl | None = None
    """redis://host:port/0 or rediss://host:port/0; on Kubernetes without a password."""
    url_secret_ref: SecretKeyReference | None = Field(default=None, validate_default=True)
    """The Secret that holds a URL with a password. On Kubernetes only."""
    ca_secret_ref: SecretKeyReference | None = None
    """PEM of the CAs that a rediss:// server is verified against. On Kubernetes only."""

    @field_validator("url_secret_ref")
    @classmethod
    def _exactly_one(cls, reference: SecretKeyReference | None, info: ValidationInfo) -> object:
        if "url" in info.data and (info.data["url"] is None) == (reference is None):
            count = "neither" if reference is None else "both"
            raise parent_problem(f"{count} of url and urlSecretRef is set; set exactly one")
        return reference


class Retention(Model):
    """How much traffic is kept; the oldest is dropped first."""

    max_age: PositiveDuration = "24h"
    """For how long."""
    max_bytes: Bytes = "16Gi"
    """Its total size."""

    @property
    def max_age_seconds(self) -> int:
        return max(1, round(parse_duration(self.max_age).total_seconds()))

    @property
    def max_size_bytes(self) -> int:
        return parse_bytes(self.max_bytes)


class Privacy(Model):
    """Which requests are kept for training."""

    sample_percent: int = Field(default=100, ge=0, le=100)
    """The share of requests that is kept."""
    opt_out_header: HeaderName = "x-aurora-no-train"
    """The HTTP header by which a client keeps a request out."""


class Buffer(Model):
    """Where served requests are queued for the trainer: exactly one of embedded, external.

    One may replace the other: the buffer's pod is recreated, and what the trainer has not read by
    then is lost.
    """

    model_config = with_rules(
        rule("has(self.embedded) != has(self.external)", "set exactly one of embedded and external")
    )

    embedded: EmbeddedRedis | None = None
    """A Redis in the buffer's pod; its volume is deleted when `external` replaces it."""
    external: ExternalRedis | None = Field(default=None, validate_default=True)
    """An existing Redis: 6.2 or later, no cluster, and none that evicts."""
    retention: Retention = Retention()
    """How much is kept."""
    privacy: Privacy = Privacy()
    """Which requests are kept."""
    image: Image | None = None
    """In place of the operator's default. On Kubernetes only."""
    resources: Resources = Resources()
    """Of the container buffer. On Kubernetes only."""
    pod_template: PodTemplate = PodTemplate()
    """Merged over the pod. On Kubernetes only."""

    @field_validator("external")
    @classmethod
    def _exactly_one(cls, external: ExternalRedis | None, info: ValidationInfo) -> object:
        # An invalid `embedded` is not in the data and was already reported.
        if "embedded" in info.data and (info.data["embedded"] is None) == (external is None):
            count = "neither" if external is None else "both"
            raise parent_problem(
                f"{count} of embedded and external is set; set exactly one, "
                "for example embedded: {}"
            )
        return external
