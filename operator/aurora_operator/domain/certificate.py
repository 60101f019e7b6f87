"""When certificates are due, and how one authority follows another without a gap.

A new authority goes through three phases, each of which leaves every peer able to verify every
other: it is added to all bundles and waits until these have spread; it issues, and all leaves are
issued anew; its predecessor leaves the bundles once those leaves have spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from aurora_operator.domain.manifest.spec import Metadata

AUTHORITY_LIFETIME = timedelta(days=365)
LEAF_LIFETIME = timedelta(days=90)
# A peer's clock may be behind ours.
BACKDATED = timedelta(minutes=10)
# Far longer than a kubelet takes to show a changed Secret to its pods, and nothing waits for it.
SPREADING = timedelta(days=1)

COMPONENTS = ("inference", "buffer", "trainer")
# Not one for all: what an operator may do in one deployment, nobody else's certificate allows.
OPERATOR = "operator"
# Who calls whom. What computes gradients for the trainer has the trainer's certificate.
_CALLERS: Mapping[str, tuple[str, ...]] = {
    "inference": (OPERATOR,),
    "buffer": ("inference", "trainer"),
    "trainer": (OPERATOR,),
    "gradient": ("trainer",),
}


def authority_name(name: str) -> str:
    """The Secret that holds a deployment's authority."""
    return f"{name}-ca"


def leaf_name(name: str, peer: str) -> str:
    """The Secret that holds the certificate of a component, or of the operator."""
    return f"{name}-{peer}-tls"


def dns_name(name: str, peer: str, *, namespace: str) -> str:
    """The one name in the certificate of a component, or of the operator, for a deployment.

    The component's Service is called by it, with the namespace always: an authority may serve
    several, and a name that leaves the namespace out would be valid in all of them. Nothing listens
    at the operator's. Clients of inference meet none of these: their ports speak plain text.
    """
    return f"{name}-{peer}.{namespace}.svc"


def admitted_names(metadata: Metadata, component: str) -> tuple[str, ...]:
    """The names of those that may call a component by mutual TLS."""
    return tuple(
        dns_name(metadata.name, peer, namespace=metadata.namespace) for peer in _CALLERS[component]
    )


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate holds."""

    begin: datetime
    end: datetime

    def is_due(self, now: datetime) -> bool:
        """Whether two thirds of its life are over, or it lies in the future."""
        return now < self.begin or now >= self.begin + (self.end - self.begin) * 2 / 3

    def is_over(self, now: datetime) -> bool:
        return now >= self.end


def leaf_validity(authority: Validity, now: datetime) -> Validity:
    """Of a leaf issued now: it does not outlive its authority."""
    return Validity(now - BACKDATED, min(now + LEAF_LIFETIME, authority.end))


@dataclass(frozen=True, slots=True)
class Succession:
    """Where the change from one authority to the next stands.

    `since`: when the leaves were all found to have followed the present phase.
    """

    issuing: Validity
    has_next: bool = False
    has_previous: bool = False
    since: datetime | None = None


class Step(Enum):
    """What happens to the authority now."""

    KEEP = "keep"
    # There is none that may issue.
    CREATE = "create"
    # Another one is made, for the bundles only.
    ADD_NEXT = "add next"
    # The leaves have followed: their spreading begins.
    NOTE = "note"
    # The next one issues from now on.
    SWITCH = "switch"
    # The previous one leaves the bundles.
    RETIRE = "retire"


def due_step(succession: Succession | None, *, followed: bool, now: datetime) -> Step:
    """What is due; `followed`: every leaf has the present bundle and the present issuer."""
    if succession is None or succession.issuing.is_over(now):
        return Step.CREATE
    if succession.has_next or succession.has_previous:
        if not followed:
            return Step.KEEP
        if succession.since is None:
            return Step.NOTE
        if now < succession.since + SPREADING:
            return Step.KEEP
        return Step.SWITCH if succession.has_next else Step.RETIRE
    return Step.ADD_NEXT if succession.issuing.is_due(now) else Step.KEEP
