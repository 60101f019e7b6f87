"""What a Redis must be so that the buffer can keep its promises."""

from __future__ import annotations

from collections.abc import Mapping

_OLDEST = (6, 2)


def unmet_requirement(info: Mapping[str, object]) -> str | None:
    """Why a Redis cannot serve the buffer, and what is needed; None if it can.

    `info`: the fields of INFO. Those that a proxy or a compatible server leaves out are not judged.
    """
    mode = info.get("redis_mode", "standalone")
    if mode != "standalone":
        return f"Redis runs in {mode} mode: the buffer needs one without cluster or sentinel"
    version = str(info.get("redis_version", ""))
    if version and _numbers(version) < _OLDEST:
        return f"Redis {version} is too old: the buffer needs 6.2 or later"
    policy = str(info.get("maxmemory_policy", ""))
    # The others evict only keys that expire, which the buffer's do not.
    if policy.startswith("allkeys") and info.get("maxmemory") not in (None, 0):
        return (
            f"Redis evicts by maxmemory-policy {policy}, which deletes trajectories behind the "
            "buffer's back: set it to noeviction"
        )
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """The major and the minor number."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
