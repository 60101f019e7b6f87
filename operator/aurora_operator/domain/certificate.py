"""When certificates are due, and how one CA replaces another without a gap.

A rotation has three phases, in each of which every peer can verify every other: the new CA is added
to all bundles, which then propagate; it issues, and all leaves are reissued; its predecessor is
removed from the bundles once those leaves have propagated.
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
# Far longer than a kubelet takes to update a mounted Secret; nothing waits for it.
SPREADING = timedelta(days=1)

COMPONENTS = ("inference", "buffer", "trainer")
# One per deployment: a certificate for one deployment grants nothing in another.
OPERATOR = "operator"
# Who may call each component.
_CALLERS: Mapping[str, tuple[str, ...]] = {
    "inference": (OPERATOR,),
    "buffer": ("inference", "trainer"),
    "trainer": (OPERATOR,),
}


def authority_name(name: str) -> str:
    """The Secret that holds a deployment's CA."""
    return f"{name}-ca"


def leaf_name(name: str, peer: str) -> str:
    """The Secret that holds the certificate of a component or of the operator."""
    return f"{name}-{peer}-tls"


def dns_name(name: str, peer: str, *, namespace: str) -> str:
    """The only name in the certificate of a component, or of the operator, for a deployment.

    It is the component's Service, always with the namespace: a CA may serve several, and a name
    without one would be valid in all of them. Nothing listens at the operator's. Clients of
    inference see none of these: their ports are plaintext.
    """
    return f"{name}-{peer}.{namespace}.svc"


def admitted_names(metadata: Metadata, component: str) -> tuple[str, ...]:
    """The names of the peers that may call a component over mutual TLS."""
    return tuple(
        dns_name(metadata.name, peer, namespace=metadata.namespace) for peer in _CALLERS[component]
    )


@dataclass(frozen=True, slots=True)
class Validity:
    """The period in which a certificate is valid."""

    begin: datetime
    end: datetime

    def is_due(self, now: datetime) -> bool:
        """Whether two thirds of its lifetime have passed, or it is not yet valid."""
        return now < self.begin or now >= self.begin + (self.end - self.begin) * 2 / 3

    def is_over(self, now: datetime) -> bool:
        return now >= self.end


def leaf_validity(authority: Validity, now: datetime) -> Validity:
    """The validity of a leaf issued now, which does not outlive its CA."""
    return Validity(now - BACKDATED, min(now + LEAF_LIFETIME, authority.end))


@dataclass(frozen=True, slots=True)
class Succession:
    """The state of a CA rotation.

    `since`: when all leaves were first seen to match the current phase.
    """

    issuing: Validity
    has_next: bool = False
    has_previous: bool = False
    since: datetime | None = None


class Step(Enum):
    """The next step of a CA rotation."""

    KEEP = "keep"
    # No CA is able to issue.
    CREATE = "create"
    # A new CA is created, for the bundles only.
    ADD_NEXT = "add next"
    # All leaves match: they start to propagate.
    NOTE = "note"
    # The next CA issues from now on.
    SWITCH = "switch"
    # The previous CA is removed from the bundles.
    RETIRE = "retire"


def due_step(succession: Succession | None, *, followed: bool, now: datetime) -> Step:
    """The step that is due; `followed`: every leaf has the current bundle and issuer."""
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
