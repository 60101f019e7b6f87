"""Which components may connect to which."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from aurora_operator.domain.manifest.field_type import ObjectName, rule
from aurora_operator.domain.manifest.spec.model import Model, parent_problem, with_rules
from aurora_operator.domain.manifest.spec.pod import SecretReference


class IssuerReference(Model):
    """A cert-manager issuer."""

    name: ObjectName
    """Its name."""
    kind: Literal["Issuer", "ClusterIssuer"] = "Issuer"
    """In the deployment's namespace, or cluster-wide."""


class Tls(Model):
    """Mutual TLS between the components. On Kubernetes only."""

    model_config = with_rules(
        rule(
            "(has(self.mode) && self.mode == 'CertManager') == has(self.issuerRef)",
            "issuerRef must be set if and only if mode is CertManager",
            "issuerRef",
        )
    )

    mode: Literal["SelfManaged", "CertManager", "Disabled"] = "SelfManaged"
    """Who issues the certificates: the operator or cert-manager. Disabled: plaintext."""
    issuer_ref: IssuerReference | None = Field(default=None, validate_default=True)
    """The issuer if mode is CertManager. Deployments may share it if it issues each namespace only
    names that end in .NAMESPACE.svc, which an approver policy can enforce."""

    @field_validator("issuer_ref")
    @classmethod
    def _with_cert_manager(cls, reference: IssuerReference | None, info: ValidationInfo) -> object:
        mode = info.data.get("mode")
        if mode is not None and (mode == "CertManager") != (reference is not None):
            verb = "needs" if reference is None else "takes no"
            raise parent_problem(f"mode {mode} {verb} issuerRef")
        return reference


class ClientPeer(Model):
    """A NetworkPolicy's peer: pods, namespaces or addresses."""

    pod_selector: dict[str, Any] | None = None
    """Pods by their labels; without namespaceSelector, those of the deployment's namespace."""
    namespace_selector: dict[str, Any] | None = None
    """Namespaces by their labels."""
    ip_block: dict[str, Any] | None = None
    """Addresses: cidr, and except."""


class Security(Model):
    """Which components may connect to which. On Kubernetes only."""

    tls: Tls = Tls()
    """Mutual TLS between the components."""
    trainer_traffic: Literal["Plaintext"] | None = None
    """What the trainer's replicas send each other. torch.distributed neither encrypts it nor asks
    who sends it: Plaintext says that this is known, and NetworkPolicies admit the trainer's pods
    alone. An encrypting CNI keeps it from others on the network."""
    auth_secret_ref: SecretReference | None = None
    """A Secret whose values are bearer tokens; clients must present one of them."""
    client_peers: tuple[ClientPeer, ...] = Field(default=(), max_length=32, strict=False)
    """Who may connect to the ports for clients; empty: anyone. A NetworkPolicy of your own cannot
    limit it, since policies only add to what is allowed."""
