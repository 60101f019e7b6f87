"""Which headers a proxy passes on."""

from __future__ import annotations

from collections.abc import Iterable

from multidict import CIMultiDict

# Of one connection alone (RFC 9110, 7.6.1).
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def passed(headers: Iterable[tuple[str, str]], *without: str) -> CIMultiDict[str]:
    """The headers, repeated ones too, but those of the connection and `without`, in lower case."""
    found = list(headers)
    own = _HOP_BY_HOP.union(without)
    for name, value in found:
        if name.lower() == "connection":
            own |= {option.strip().lower() for option in value.split(",")}
    return CIMultiDict((name, value) for name, value in found if name.lower() not in own)
