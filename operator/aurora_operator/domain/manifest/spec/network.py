"""How the components' Services are addressed."""

from __future__ import annotations

from typing import Literal

from aurora_operator.domain.manifest.spec.model import Model


class Network(Model):
    """How the Services are addressed. On Kubernetes only."""

    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = None
    """As in a Service: one IP family, or IPv4 and IPv6. By default the cluster's first family."""
