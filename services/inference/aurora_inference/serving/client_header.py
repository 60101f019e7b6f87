"""What clients say about a request in headers of Aurora's own."""

from __future__ import annotations

from aurora_common.errors import InvalidInputError

TENANT = "x-aurora-tenant"
DOMAIN = "x-aurora-domain"
_LABEL_CHARACTERS = 128
_REFUSALS = frozenset({"", "0", "false"})


def label(name: str, value: str) -> str:
    """The value; raises InvalidInputError if it is too long."""
    if len(value) > _LABEL_CHARACTERS:
        raise InvalidInputError(
            f"the {name} has {len(value)} characters; allowed are up to {_LABEL_CHARACTERS}"
        )
    return value


def opted_out(value: str) -> bool:
    """Any value but an explicit no opts out: if in doubt, nothing is recorded."""
    return value.strip().lower() not in _REFUSALS
