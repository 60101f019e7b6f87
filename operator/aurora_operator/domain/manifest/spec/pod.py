"""Pod settings and references to Secrets."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from aurora_operator.domain.manifest.field_type import ObjectName, Quantity, SecretKeyName
from aurora_operator.domain.manifest.spec.model import Model


class Resources(Model):
    """Of a pod's main container. On Kubernetes only."""

    limits: dict[str, Quantity] = Field(default_factory=dict, max_length=32)
    """The most of each resource, such as cpu or memory."""
    requests: dict[str, Quantity] = Field(default_factory=dict, max_length=32)
    """How much of each the scheduler reserves."""


class PodMetadata(Model):
    """Labels and annotations of the pods, in addition to Aurora's own."""

    labels: dict[str, str] = Field(default_factory=dict, max_length=64)
    """Labels; Aurora's own cannot be changed."""
    annotations: dict[str, str] = Field(default_factory=dict, max_length=64)
    """Annotations."""


class PodTemplate(Model):
    """A strategic merge patch over Aurora's pods: node selectors, tolerations, volumes, more
    environment. On Kubernetes only."""

    metadata: PodMetadata = PodMetadata()
    """Labels and annotations of the pods, in addition to Aurora's own."""
    spec: dict[str, Any] = Field(default_factory=dict)
    """A PodSpec. The main container has its component's name: inference, buffer or trainer."""


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
