"""Who may talk to whom."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from aurora_operator.domain.manifest.field_type import ObjectName, rule
from aurora_operator.domain.manifest.spec.model import Model, parent_problem, with_rules
from aurora_operator.domain.manifest.spec.pod import SecretReference


class IssuerReference(Model):
    """An issuer of cert-manager."""

    name: ObjectName
    """Its name."""
    kind: Literal["Issuer", "ClusterIssuer"] = "Issuer"
    """Of the deployment's namespace, or of the cluster."""


class Tls(Model):
    """Mutual TLS between the components. On Kubernetes only."""

    model_config = with_rules(
        rule(
            "(has(self.mode) && self.mode == 'CertManager') == has(self.issuerRef)",
            "issuerRef must be set exactly where mode is CertManager",
            "issuerRef",
        )
    )

    mode: Literal["SelfManaged", "CertManager", "Disabled"] = "SelfManaged"
    """Who issues the certificates: the operator, or cert-manager; Disabled: plain text."""
    issuer_ref: IssuerReference | None = Field(default=None, validate_default=True)
    """The issuer, where mode is CertManager. It may be shared by deployments if it gives each
    namespace only names that end in .NAMESPACE.svc, as an approver policy can demand."""

    @field_validator("issuer_ref")
    @classmethod
    def _with_cert_manager(cls, reference: IssuerReference | None, info: ValidationInfo) -> object:
        mode = info.data.get("mode")
        if mode is not None and (mode == "CertManager") != (reference is not None):
            verb = "needs" if reference is None else "takes no"
            raise parent_problem(f"mode {mode} {verb} issuerRef")
        return reference


class Security(Model):
    """Who may talk to whom. On Kubernetes only."""

    tls: Tls = Tls()
    """Mutual TLS between the components."""
    auth_secret_ref: SecretReference | None = None
    """A Secret each of whose values is a bearer token; clients must show one of them."""
