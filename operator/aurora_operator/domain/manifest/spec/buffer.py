"""Where served requests are queued for the trainer."""

from __future__ import annotations

from decimal import Decimal
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
from aurora_operator.domain.manifest.quantity import parse_bytes, parse_duration, parse_quantity
from aurora_operator.domain.manifest.spec.model import (
    STORED,
    Model,
    inner_problem,
    parent_problem,
    with_rules,
)
from aurora_operator.domain.manifest.spec.pod import PodTemplate, Resources, SecretKeyReference

# Redis rewrites its file beside the old one, so its volume holds it more than twice. In memory, its
# index and what changes during the rewrite come on top.
_OF_STORAGE = Decimal("0.4")
_OF_MEMORY = Decimal("0.5")
_MEMORY = "4Gi"
_EXTERNAL_BYTES = 16 << 30
_BEYOND_STORAGE = (
    "maxBytes must be at most 40% of embedded.storage, since Redis rewrites its file beside the old"
)
_BEYOND_MEMORY = (
    "maxBytes must be at most half of embedded.resources.limits.memory, which is 4Gi by default"
)


_UNBOUNDED = "!has(self.embedded) || !has(self.retention) || !has(self.retention.maxBytes)"
_IN_BYTES = "quantity({}).asApproximateFloat()"
# A number or a string.
_MEMORY_LIMIT = (
    "has(self.embedded.resources) && has(self.embedded.resources.limits) && "
    "'memory' in self.embedded.resources.limits"
    f" ? string(self.embedded.resources.limits['memory']) : '{_MEMORY}'"
)


class ClaimRetention(Model):
    """What becomes of a claim, as in a StatefulSet."""

    when_deleted: Literal["Delete", "Retain"] = "Delete"
    """Delete: it goes with the deployment. Retain: it stays, and a deployment of the same name
    finds its requests again."""


class EmbeddedRedis(Model):
    """A Redis in the buffer's pod, with an append-only file."""

    model_config = with_rules(
        rule(
            "quantity(self.storage).compareTo(quantity(oldSelf.storage)) >= 0",
            "storage must not shrink",
            "storage",
        ),
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
    """The size of its volume. It may grow if the volume's class allows that, but not shrink."""
    storage_class_name: ObjectName | None = None
    """The class of its volume; defaults to the cluster's. Immutable. On Kubernetes only."""
    persistent_volume_claim_retention_policy: ClaimRetention = ClaimRetention()
    """What becomes of its volume's claim. On Kubernetes only."""
    resources: Resources = Resources()
    """Of the container redis. `limits.memory` is 4Gi by default, of which Redis takes at most three
    quarters; `requests.memory` is what retention keeps."""

    @property
    def memory(self) -> Decimal:
        """The limit, in bytes."""
        limit = parse_quantity(self.resources.limits.get("memory", _MEMORY))
        assert limit is not None
        return max(Decimal(1), limit)

    @property
    def storage_bytes(self) -> int:
        return parse_bytes(self.storage)

    @property
    def most_on_disk(self) -> Decimal:
        """How many bytes of trajectories its volume has room for."""
        return _OF_STORAGE * self.storage_bytes

    @property
    def most_in_memory(self) -> Decimal:
        """How many bytes of trajectories its memory has room for."""
        return _OF_MEMORY * self.memory


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
    max_bytes: Bytes | None = None
    """Its total size: at most, and by default, 40% of `embedded.storage` and half of
    `embedded.resources.limits.memory`, whichever is less. For an external Redis 16Gi by default."""

    @property
    def max_age_seconds(self) -> int:
        return max(1, round(parse_duration(self.max_age).total_seconds()))


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
        rule(
            "has(self.embedded) != has(self.external)", "set exactly one of embedded and external"
        ),
        rule(
            f"{_UNBOUNDED} || {_IN_BYTES.format('self.retention.maxBytes')} * 5.0 <= "
            f"{_IN_BYTES.format('self.embedded.storage')} * 2.0",
            _BEYOND_STORAGE,
            "retention.maxBytes",
        ),
        rule(
            f"{_UNBOUNDED} || {_IN_BYTES.format('self.retention.maxBytes')} * 2.0 <= "
            f"{_IN_BYTES.format(_MEMORY_LIMIT)}",
            _BEYOND_MEMORY,
            "retention.maxBytes",
        ),
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

    @field_validator("retention")
    @classmethod
    def _fits(cls, retention: Retention, info: ValidationInfo) -> Retention:
        excess = _excess(info.data.get("embedded"), retention)
        if excess and info.context != STORED:
            raise inner_problem("maxBytes", excess)
        return retention

    @property
    def excess(self) -> str:
        """Why `retention.maxBytes`, which an earlier version admitted, is more than is kept."""
        return _excess(self.embedded, self.retention)

    @property
    def retained_bytes(self) -> int:
        """How many bytes of trajectories are kept."""
        asked = self.retention.max_bytes
        if self.embedded is None:
            return _EXTERNAL_BYTES if asked is None else parse_bytes(asked)
        most = max(1, int(min(self.embedded.most_on_disk, self.embedded.most_in_memory)))
        return most if asked is None else min(most, parse_bytes(asked))


def _excess(embedded: EmbeddedRedis | None, retention: Retention) -> str:
    """Which bound `maxBytes` exceeds; empty if none."""
    if embedded is None or retention.max_bytes is None:
        return ""
    size = parse_quantity(retention.max_bytes)
    assert size is not None
    if size > embedded.most_on_disk:
        return _BEYOND_STORAGE
    return _BEYOND_MEMORY if size > embedded.most_in_memory else ""
