"""Pod settings and references to Secrets."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo

from aurora_operator.domain.manifest.field_type import ObjectName, Quantity, SecretKeyName, rule
from aurora_operator.domain.manifest.spec.model import Model

_GPUS = ("nvidia.com/gpu", "amd.com/gpu")
_GPU_PARTITIONS = "nvidia.com/mig-"
# CEL: whether the limits of a component with `resources` give it one.
GPU_LIMITED = (
    "has(self.resources) && has(self.resources.limits)"
    " && self.resources.limits.exists(name, ("
    f"name in {list(_GPUS)} || name.startsWith('{_GPU_PARTITIONS}'))"
    " && string(self.resources.limits[name]) != '0')"
)
_IDLE_GPU = "device cpu leaves the GPU in resources.limits idle: leave one of them out"
# Of a component with `device` and `resources`.
NO_IDLE_GPU = rule(
    f"!has(self.device) || self.device != 'cpu' || !({GPU_LIMITED})", _IDLE_GPU, "device"
)


class Resources(Model):
    """Of a pod's main container. On Kubernetes only."""

    limits: dict[str, Quantity] = Field(default_factory=dict, max_length=32)
    """The most of each resource, such as cpu or memory."""
    requests: dict[str, Quantity] = Field(default_factory=dict, max_length=32)
    """How much of each the scheduler reserves."""

    @property
    def has_gpu(self) -> bool:
        """Whether the container gets GPUs, or partitions of one."""
        return any(
            quantity != "0" and (name in _GPUS or name.startswith(_GPU_PARTITIONS))
            for name, quantity in self.limits.items()
        )


def without_idle_gpu(device: str | None, info: ValidationInfo) -> str | None:
    """A validator of `device`, as NO_IDLE_GPU is a rule."""
    resources: Resources | None = info.data.get("resources")
    if device == "cpu" and resources is not None and resources.has_gpu:
        raise ValueError(_IDLE_GPU)
    return device


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
